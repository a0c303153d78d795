"""Person detectors of the optional package ultralytics."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import DETECTOR_THRESHOLD, Boxes, detect_boxes
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import Options

PERSON_CLASS = 0


class UltralyticsDetector:
    """
    Person detector that runs a network with ultralytics.

    Parameters
    ----------
    name
        Argument of ``ultralytics.YOLO``: the name of a published network, or a file.
    threads
        Number of CPU threads for torch; 0 keeps the current setting.

    Raises
    ------
    ImportError
        If the package ultralytics is not installed.
    ValueError
        If the network cannot be loaded.
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
        # The exceptions of ultralytics for networks that it cannot load are not documented.
        except Exception as error:
            reason = printable(error, 200)
            raise ValueError(f"ultralytics cannot load '{printable(name)}': {reason}") from error

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Detect people; see `BoxDetector`."""
        threshold = options.detector_threshold_or(DETECTOR_THRESHOLD)
        return detect_boxes(lambda part: self._run_network(part, threshold), image, options)

    def _run_network(self, image: ImageArray, threshold: float) -> Boxes:
        if self._threads:
            import torch

            # ultralytics resets the number of threads when it selects its device.
            torch.set_num_threads(self._threads)
        # ultralytics interprets arrays as BGR.
        bgr = np.ascontiguousarray(image[..., ::-1])
        (result,) = self._network.predict(
            bgr, conf=threshold, classes=[PERSON_CLASS], verbose=False
        )
        corners = result.boxes.xyxy.cpu().numpy().astype(np.float64)
        boxes_px = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return Boxes(boxes_px, result.boxes.conf.cpu().numpy().astype(np.float64))
