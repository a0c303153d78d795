"""From a model's name to a pose estimator that is ready to run."""

from __future__ import annotations

from metrabs_ros.detectors.blazepose import BlazePoseDetector
from metrabs_ros.estimator import PoseEstimator
from metrabs_ros.models import store
from metrabs_ros.models.blazepose import BlazePoseLandmarks
from metrabs_ros.skeleton import BLAZEPOSE_33, COCO_17


def load_model(
    name_or_folder: str, engine: str, precision: str, device: str, detector: str
) -> PoseEstimator:
    """Load a model; see `metrabs_ros.load_model`."""
    if name_or_folder != 'blazepose':
        raise ValueError(f'there is no model {name_or_folder!r}; there is: blazepose')
    offered = {
        'engine': (engine, ('auto', 'openvino')),
        'precision': (precision, ('auto', 'fp32')),
        'device': (device, ('auto', 'cpu')),
        'detector': (detector, ('auto', 'blazepose')),
    }
    for argument, (value, choices) in offered.items():
        if value not in choices:
            raise ValueError(
                f'{argument} {value!r} cannot be had for blazepose; choose of {", ".join(choices)}'
            )
    folder = store.blazepose_folder()
    return PoseEstimator(
        BlazePoseDetector(folder / 'pose_detection.tflite'),
        BlazePoseLandmarks(folder / 'pose_landmark_full.tflite'),
        (BLAZEPOSE_33, COCO_17),
    )
