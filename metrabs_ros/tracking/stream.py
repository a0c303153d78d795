"""How people are found in a stream of images, for each kind of model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.estimator import Options, PoseEstimator, View
from metrabs_ros.estimators.blazepose import BlazePoseEstimator
from metrabs_ros.people import People
from metrabs_ros.tracking.each_frame import EachFrame, people_in_each
from metrabs_ros.tracking.follow import PeopleFollower


class PeopleFinder(Protocol):
    """
    Finds the people in each of a stream's images, with ids.

    Parameters
    ----------
    options
        How; may be replaced from one image to the next.
    """

    options: Options

    def __call__(self, image: ImageArray, camera: Camera) -> People:
        """Find the people in the next image [H, W, 3], uint8, RGB."""
        ...

    def forget(self) -> None:
        """Lose sight of everybody; who is found from now on gets a new id."""
        ...


def people_in_stream(model: PoseEstimator, options: Options) -> PeopleFinder:
    """
    Return what finds the people in a stream.

    Raises
    ------
    ValueError
        If the model cannot do what the options ask for.
    """
    model.check(options)
    if isinstance(model, BlazePoseEstimator):
        return PeopleFollower(model, options)
    return EachFrame(model, options)


def people_in_views(
    finders: Sequence[PeopleFinder], views: Sequence[View], boxes: Sequence[Boxes | None]
) -> list[People]:
    """
    Find the people in the next images of several streams that share a model.

    Parameters
    ----------
    finders
        Of each stream.
    views
        The image of each.
    boxes
        Where people are, for those streams of which somebody else says so.
    """
    each_frame = [finder for finder in finders if isinstance(finder, EachFrame)]
    if len(each_frame) == len(finders):
        return people_in_each(each_frame, views, boxes)
    return [find(view.image, view.camera) for find, view in zip(finders, views)]
