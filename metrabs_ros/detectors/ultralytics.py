"""Person detectors of the package ultralytics, where it is installed."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import DETECTOR_THRESHOLD, Boxes, look
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import Options

PERSON = 0


class UltralyticsDetector:
    """
    Finds people's boxes by a network of ultralytics.

    Parameters
    ----------
    name
        What ``ultralytics.YOLO`` takes: the name of a published network or a file.
    threads
        How many torch may use on the CPU; 0 leaves that as it is.

    Raises
    ------
    ImportError
        If the package ultralytics is not installed.
    ValueError
        If it cannot load the network.
    """

    def __init__(self, name: str, threads: int = 0) -> None:
        self._threads = threads
        try:
            import ultralytics
        except ImportError as error:
            raise ImportError(
                'the package ultralytics is needed for the detector '
                f'ultralytics:{printable(name)}: '
                'pip install ultralytics'
            ) from error
        try:
            self._network = ultralytics.YOLO(name)
        # What it raises for a network that it cannot fetch or read is not documented.
        except Exception as error:
            reason = printable(error, 200)
            raise ValueError(f"ultralytics cannot load '{printable(name)}': {reason}") from error

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Find people; see `BoxDetector`."""
        threshold = options.detector_threshold_or(DETECTOR_THRESHOLD)
        return look(lambda seen: self._find(seen, threshold), image, options)

    def _find(self, image: ImageArray, threshold: float) -> Boxes:
        if self._threads:
            import torch

            # It resets the number when it chooses its device.
            torch.set_num_threads(self._threads)
        # It takes arrays for BGR.
        bgr = np.ascontiguousarray(image[..., ::-1])
        (result,) = self._network.predict(bgr, conf=threshold, classes=[PERSON], verbose=False)
        corners = result.boxes.xyxy.cpu().numpy().astype(np.float64)
        boxes_px = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return Boxes(boxes_px, result.boxes.conf.cpu().numpy().astype(np.float64))
