"""The people in streams of images: looked for on a budget, and known again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.estimator import Options, PoseEstimator, View
from metrabs_ros.estimators.blazepose import BlazePoseEstimator
from metrabs_ros.people import People
from metrabs_ros.tracking.by_boxes import BoxFinder, people_by_boxes
from metrabs_ros.tracking.detection_history import Attempts
from metrabs_ros.tracking.follow import PeopleFollower
from metrabs_ros.tracking.shot import Shot
from metrabs_ros.tracking.tracker import Tracker


class PeopleFinder(Protocol):
    """
    Finds the people in each of a stream's images.

    Parameters
    ----------
    options
        How; may be replaced from one image to the next.
    detect_interval
        How many frames it may take to look for new people everywhere; 0 for what suits the model.
    attempts
        Which of the expected people the last image was examined for.
    """

    options: Options
    detect_interval: int
    attempts: Attempts

    def __call__(self, shot: Shot, expected: People | None) -> People:
        """
        Find the people in the next image.

        Parameters
        ----------
        shot
            The image.
        expected
            Where known people should be, by `Tracker.expect`.
        """
        ...

    def recognise(self, ids: NDArray[np.int64]) -> None:
        """Take note of who those just found are, [N], an id or UNKNOWN_ID."""
        ...

    def memory(self) -> FloatArray:
        """Return the numbers that `recall` needs besides the people just found, [M]."""
        ...

    def recall(
        self, shot: Shot, expected: People | None, found: People, memory: FloatArray
    ) -> None:
        """
        Update the state by a result of an interrupted run, without running the networks.

        The finder then finds the same people in the following images as if it had not been
        interrupted.

        Parameters
        ----------
        shot, expected
            As `__call__` took them.
        found
            What `__call__` returned.
        memory
            What `memory` returned after that.
        """
        ...

    def forget(self) -> None:
        """Look everywhere in the next image."""
        ...


class PeopleStream:
    """
    The people in a stream of images.

    Parameters
    ----------
    finder
        Finds them in each image.
    tracker
        Knows who is who.
    """

    def __init__(self, finder: PeopleFinder, tracker: Tracker) -> None:
        self.finder = finder
        self.tracker = tracker

    def forget(self) -> None:
        """Forget everybody; who is found from now on gets a new id."""
        self.finder.forget()
        self.tracker.reset()

    def __call__(self, image: ImageArray, camera: Camera, stamp_s: float) -> People:
        """
        Find the people in the stream's next image.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        camera
            The camera that took it, with its pose in the world if that is known.
        stamp_s
            When that was.

        Returns
        -------
        People as `Tracker.update` gives them, with all joints of the network, camera frame.
        """
        return people_in_streams([self], [Shot(View(image, camera), stamp_s)])[0]


def finder_for(model: PoseEstimator, options: Options, detect_interval: int = 0) -> PeopleFinder:
    """
    Return what finds the people in a stream with a model.

    Raises
    ------
    ValueError
        If the model cannot do what the options ask for.
    """
    model.check(options)
    if isinstance(model, BlazePoseEstimator):
        return PeopleFollower(model, options, detect_interval)
    return BoxFinder(model, options, detect_interval)


def people_in_streams(streams: Sequence[PeopleStream], shots: Sequence[Shot]) -> list[People]:
    """
    Find the people in the next images of several streams that share a model.

    Parameters
    ----------
    streams
        With the same options.
    shots
        The image of each.

    Returns
    -------
    People of each as `Tracker.update` gives them.
    """
    expected = [
        stream.tracker.expect(stamp_s, view.camera, view.image.shape)
        for stream, (view, stamp_s, _) in zip(streams, shots)
    ]
    finders = [stream.finder for stream in streams]
    by_boxes = [finder for finder in finders if isinstance(finder, BoxFinder)]
    if len(by_boxes) == len(finders):
        everybody = people_by_boxes(by_boxes, shots, expected)
    else:
        everybody = [find(shot, own) for find, shot, own in zip(finders, shots, expected)]
    tracked = []
    for stream, (view, stamp_s, _), found in zip(streams, shots, everybody):
        tracker = stream.tracker
        attempts = stream.finder.attempts
        tracked.append(tracker.update(found, stamp_s, view.camera, view.image.shape, attempts))
        stream.finder.recognise(tracker.ids_of_found)
    return tracked
