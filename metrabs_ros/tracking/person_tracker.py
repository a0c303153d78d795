"""The people in streams of images: looked for on a budget, and known again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.estimator import BlazePoseEstimator
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import Options, View
from metrabs_ros.people import People
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.tracking.box_following import BoxFinder, people_in_boxes
from metrabs_ros.tracking.detection_history import Attempts
from metrabs_ros.tracking.region_following import PeopleFollower
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import Tracker

Result = TypeVar('Result')


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

    def __call__(self, timed_view: TimedView, expected: People | None) -> People:
        """
        Find the people in the next image.

        Parameters
        ----------
        shot
            The image.
        expected
            Where known people should be, by `Tracker.predict`.
        """
        ...

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Take note of who those just found are, [N], an id or UNKNOWN_ID."""
        ...

    def memory(self) -> FloatArray:
        """Return the numbers that `replay` needs besides the people just found, [M]."""
        ...

    def replay(
        self, timed_view: TimedView, expected: People | None, found: People, memory: FloatArray
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

    def reset(self) -> None:
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

    def reset(self) -> None:
        """Forget everybody; who is found from now on gets a new id."""
        self.finder.reset()
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
        return people_in_streams([self], [TimedView(View(image, camera), stamp_s)])[0]


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


def people_in_streams(
    streams: Sequence[PeopleStream], timed_views: Sequence[TimedView]
) -> list[People]:
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

    Raises
    ------
    Exception
        Whatever the processing of one of the images raised.
    """
    everybody = []
    for outcome in outcomes_in_streams(streams, timed_views):
        if isinstance(outcome.people, Exception):
            raise outcome.people
        everybody.append(outcome.people)
    return everybody


class Outcome(NamedTuple):
    """
    What became of a stream's image.

    Parameters
    ----------
    people
        As `Tracker.update` gives them, or the exception that the image alone caused.
    batch_error
        The exception of the network's run for all streams' images, if that run failed and was
        repeated for each image alone.
    """

    people: People | Exception
    batch_error: Exception | None = None


def outcomes_in_streams(
    streams: Sequence[PeopleStream], timed_views: Sequence[TimedView]
) -> list[Outcome]:
    """
    Find the people in the next images of several streams; an image that fails is no other's loss.

    Each stream's state advances by one image at most, also where the network runs twice.  That of
    a stream whose image fails stays such that its next image can be processed.

    Parameters
    ----------
    streams, shots
        As in `people_in_streams`.
    """
    batch_error = None
    if all(isinstance(stream.finder, BoxFinder) for stream in streams):
        found, batch_error = _found_together(streams, timed_views)
    else:
        found = [
            _attempt(_found, stream, timed_view)
            for stream, timed_view in zip(streams, timed_views)
        ]
    return [
        Outcome(
            own if isinstance(own, Exception) else _attempt(_tracked, stream, timed_view, own),
            batch_error,
        )
        for stream, timed_view, own in zip(streams, timed_views, found)
    ]


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | Exception:
    """Return what a function returns, or the exception that it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _expected(stream: PeopleStream, timed_view: TimedView) -> People | None:
    view = timed_view.view
    return stream.tracker.predict(timed_view.stamp_s, view.camera, view.image.shape)


def _found(stream: PeopleStream, timed_view: TimedView) -> People:
    return stream.finder(timed_view, _expected(stream, timed_view))


def _found_together(
    streams: Sequence[PeopleStream], timed_views: Sequence[TimedView]
) -> tuple[list[People | Exception], Exception | None]:
    """
    Return the people found by boxes in each image, or an exception, and `Outcome.batch_error`.

    The boxes are chosen once: that notes when the detector runs.  Only the network's run is
    repeated.
    """

    def boxes(
        stream: PeopleStream, timed_view: TimedView
    ) -> tuple[BoxFinder, TimedView, Boxes | None]:
        assert isinstance(stream.finder, BoxFinder)
        return (
            stream.finder,
            timed_view,
            stream.finder.boxes(timed_view, _expected(stream, timed_view)),
        )

    requests = [
        _attempt(boxes, stream, timed_view) for stream, timed_view in zip(streams, timed_views)
    ]
    possible = [request for request in requests if not isinstance(request, Exception)]
    together = _attempt(people_in_boxes, *zip(*possible)) if possible else []
    batch_error = None
    results: Iterator[People | Exception]
    if not isinstance(together, Exception):
        results = iter(together)
    elif len(possible) == 1:
        results = iter([together])
    else:
        batch_error = together
        results = iter([_attempt(_found_alone, *request) for request in possible])
    return [
        request if isinstance(request, Exception) else next(results) for request in requests
    ], batch_error


def _found_alone(finder: BoxFinder, timed_view: TimedView, boxes: Boxes | None) -> People:
    return people_in_boxes([finder], [timed_view], [boxes])[0]


def _tracked(stream: PeopleStream, timed_view: TimedView, found: People) -> People:
    """Update a stream's tracks with the people found in its image, and return those confirmed."""
    tracker, finder, (view, stamp_s, _) = stream.tracker, stream.finder, timed_view
    try:
        tracked = tracker.update(found, stamp_s, view.camera, view.image.shape, finder.attempts)
        finder.assign_ids(tracker.detection_ids)
    except Exception:
        # Tracks that are half updated would make all later images fail, too.
        stream.reset()
        raise
    return tracked
