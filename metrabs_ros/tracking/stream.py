"""How people are found in a stream of images, for each kind of model."""

from __future__ import annotations

from collections.abc import Callable

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.estimator import Options, PoseEstimator
from metrabs_ros.estimators.blazepose import BlazePoseEstimator, refuse_augmentations
from metrabs_ros.people import People
from metrabs_ros.tracking.each_frame import EachFrame
from metrabs_ros.tracking.follow import PeopleFollower


def people_in_stream(
    model: PoseEstimator, options: Options
) -> Callable[[ImageArray, Camera], People]:
    """
    Return what finds the people in each of a stream's images, with ids.

    Raises
    ------
    ValueError
        If the model cannot do what the options ask for.
    """
    if isinstance(model, BlazePoseEstimator):
        refuse_augmentations(options)
        return PeopleFollower(model)
    return EachFrame(model, options)
