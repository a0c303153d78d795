"""Detect and track the people in the images of one or several cameras."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.blazepose.estimator import BlazePoseEstimator
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import Options
from metrabs_ros.people import People
from metrabs_ros.placement.person_scale import ScaleEstimates
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.tracking.box_following import BoxFollower, detect_in_boxes
from metrabs_ros.tracking.region_following import RegionFollower
from metrabs_ros.tracking.stream_detector import StreamDetector
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import Tracker

DEFAULT_OPTIONS = Options()

Value = TypeVar('Value')


class Result(NamedTuple):
    """
    Result of one image.

    Parameters
    ----------
    people
        As returned by `Tracker.update`, or the exception that the image alone caused.
    batch_error
        Exception of the network's run for the images of all cameras, if that run failed and was
        repeated for each image alone.
    is_detected
        Whether detection succeeded, so that an exception is one of the tracker.
    """

    people: People | Exception
    batch_error: Exception | None = None
    is_detected: bool = True


class DetectedPeople(NamedTuple):
    """
    Result of detection in one image, before tracking.

    Parameters
    ----------
    people
        N detected people, camera frame.
    state
        State of the detector that the following image needs, [M]; see `StreamDetector.state`.
    ids
        Track ids of the people, [N], each an id or UNKNOWN_ID.
    scales
        Estimated scales of the N people.
    """

    people: People
    state: FloatArray
    ids: NDArray[np.int64]
    scales: ScaleEstimates


@dataclasses.dataclass
class _Stream:
    """Detector and tracks of one camera, and the people detected last."""

    detector: StreamDetector
    tracker: Tracker
    detected: People | None = None

    def predict(self, timed_view: TimedView) -> People | None:
        image, camera = timed_view.view
        return self.tracker.predict(timed_view.stamp_s, camera, image.shape)

    def update(self, timed_view: TimedView, detected: People) -> People:
        image, camera = timed_view.view
        try:
            people = self.tracker.update(
                detected,
                timed_view.stamp_s,
                camera,
                image.shape,
                self.detector.attempts,
                timed_view.ground,
                timed_view.depth,
            )
            self.detector.assign_ids(self.tracker.detection_ids)
        except Exception:
            # Tracks that are updated in part would make all later images fail, too.
            self.reset()
            raise
        self.detected = detected
        return people

    def reset(self) -> None:
        self.detector.reset()
        self.tracker.reset()
        self.detected = None


class PersonTracker:
    """
    Detects and tracks people in images.

    Each camera has its own tracks.  The images of several cameras share the runs of the network.

    Parameters
    ----------
    model
        Detects people and estimates their poses in single images.
    options
        Options of detection and pose estimation.
    detect_interval
        Run full-image detection every N frames; 0: default of the model.
    max_lost, min_hits, smoothing
        Parameters of `Tracker`.

    All parameters but the model are attributes that may be changed between two images.

    Raises
    ------
    ValueError
        If the model does not support the options, a parameter is out of range, or the options
        select a skeleton: people in streams have all joints of the network.
    """

    def __init__(
        self,
        model: PoseEstimator,
        options: Options = DEFAULT_OPTIONS,
        detect_interval: int = 0,
        max_lost: float = 1.0,
        min_hits: int = 3,
        smoothing: float = 0.5,
    ) -> None:
        model.check(options)
        _reject_skeleton(options)
        # Check the ranges now, not at the first image.
        Tracker(max_lost, min_hits, smoothing)
        self.options = options
        self.detect_interval = detect_interval
        self.max_lost = max_lost
        self.min_hits = min_hits
        self.smoothing = smoothing
        self._model = model
        self._streams: dict[str, _Stream] = {}

    def process(self, views: Sequence[TimedView]) -> list[People]:
        """
        Detect and track the people in the next image of each of several cameras.

        Parameters
        ----------
        views
            At most one image of each camera.

        Returns
        -------
        For each image the people returned by `Tracker.update`, with all joints of the network,
        camera frame.

        Raises
        ------
        Exception
            The exception of the first image that cannot be processed.
        """
        people = []
        for result in self.process_each(views):
            if isinstance(result.people, Exception):
                raise result.people
            people.append(result.people)
        return people

    def process_each(self, views: Sequence[TimedView]) -> list[Result]:
        """
        Process images as `process` does, but return exceptions instead of raising them.

        A run of the network for all images that fails is repeated for each image alone, so that
        an image does not affect those of other cameras.  After a failure, full-image detection
        runs in the next image of that camera.  Its tracks are kept, unless their update failed.
        """
        streams = [self._stream(timed_view) for timed_view in views]
        detected, batch_error = _detect(streams, views)
        return [
            Result(
                own if isinstance(own, Exception) else _attempt(stream.update, timed_view, own),
                batch_error,
                not isinstance(own, Exception),
            )
            for stream, timed_view, own in zip(streams, views, detected)
        ]

    def detections(self, camera_name: str = '') -> DetectedPeople | None:
        """Return the detections in the last image of a camera; None if it has no result."""
        own = self._streams[camera_name]
        if own.detected is None:
            return None
        tracker = own.tracker
        return DetectedPeople(
            own.detected, own.detector.state(), tracker.detection_ids, tracker.detection_scales
        )

    def replay(self, timed_view: TimedView, people: People, state: FloatArray) -> People:
        """
        Process an image with recorded detections, without running the networks.

        Parameters
        ----------
        timed_view
            The image.
        people, state
            Fields of the `detections` of this image.

        Returns
        -------
        The people that `process` returned.
        """
        stream = self._stream(timed_view)
        stream.detector.replay(timed_view, stream.predict(timed_view), people, state)
        return stream.update(timed_view, people)

    def replay_failure(self, timed_view: TimedView) -> None:
        """Update the state as `process` does for an image in which detection fails."""
        stream = self._stream(timed_view)
        _attempt(stream.predict, timed_view)
        stream.detector.reset()
        stream.detected = None

    def reset(self, camera_name: str | None = None) -> None:
        """Delete the tracks of one camera, or of all; ids are not used again."""
        for name, own in self._streams.items():
            if camera_name in (None, name):
                own.reset()

    def _stream(self, timed_view: TimedView) -> _Stream:
        """Return the stream of an image, with the present parameters."""
        _reject_skeleton(self.options)
        uses_boxes = timed_view.boxes is not None or not isinstance(
            self._model, BlazePoseEstimator
        )
        stream = self._streams.get(timed_view.camera_name)
        if stream is None:
            tracker = Tracker(
                self.max_lost,
                self.min_hits,
                self.smoothing,
                stature_bias=self._model.stature_bias,
            )
            stream = _Stream(self._detector(uses_boxes), tracker)
            self._streams[timed_view.camera_name] = stream
        elif uses_boxes != isinstance(stream.detector, BoxFollower):
            stream.detector = self._detector(uses_boxes)
        stream.detector.options = self.options
        stream.detector.detect_interval = self.detect_interval
        stream.tracker.max_lost = self.max_lost
        stream.tracker.min_hits = self.min_hits
        stream.tracker.smoothing = self.smoothing
        stream.tracker.stature_mm = self.options.stature
        return stream

    def _detector(self, uses_boxes: bool) -> StreamDetector:
        if uses_boxes:
            return BoxFollower(self._model, self.options, self.detect_interval)
        assert isinstance(self._model, BlazePoseEstimator)
        return RegionFollower(self._model, self.options, self.detect_interval)


def _reject_skeleton(options: Options) -> None:
    if options.skeleton:
        raise ValueError(
            f"skeleton is '{printable(options.skeleton)}'; tracked people have all joints of the "
            'network: leave it empty, and convert them with People.in_convention'
        )


def _detect(
    streams: Sequence[_Stream], views: Sequence[TimedView]
) -> tuple[list[People | Exception], Exception | None]:
    """Return the detections in each image, or an exception, and `Result.batch_error`."""
    batch_error = None
    detected: list[People | Exception]
    if all(isinstance(stream.detector, BoxFollower) for stream in streams):
        detected, batch_error = _detect_together(streams, views)
    else:
        detected = [
            _attempt(lambda stream, view: stream.detector.detect(view, stream.predict(view)), *own)
            for own in zip(streams, views)
        ]
    for stream, own in zip(streams, detected):
        if isinstance(own, Exception):
            # It is not known which part of its state the detector has updated.
            stream.detector.reset()
            stream.detected = None
    return detected, batch_error


def _detect_together(
    streams: Sequence[_Stream], views: Sequence[TimedView]
) -> tuple[list[People | Exception], Exception | None]:
    """
    Detect with one run of the network for the images of all cameras; see `_detect`.

    The boxes are chosen once, as that advances the detection schedule.  Only the run of the
    network is repeated.
    """

    def select_boxes(stream: _Stream, view: TimedView) -> tuple[Any, ...]:
        assert isinstance(stream.detector, BoxFollower)
        boxes = stream.detector.select_boxes(view, stream.predict(view))
        return stream.detector, view, boxes

    requests = [_attempt(select_boxes, *own) for own in zip(streams, views)]
    valid = [request for request in requests if not isinstance(request, Exception)]
    together = _attempt(detect_in_boxes, *zip(*valid)) if valid else []
    batch_error = None
    results: Iterator[People | Exception]
    if not isinstance(together, Exception):
        results = iter(together)
    elif len(valid) == 1:
        results = iter([together])
    else:
        batch_error = together
        results = iter([_attempt(_detect_alone, *request) for request in valid])
    return [
        request if isinstance(request, Exception) else next(results) for request in requests
    ], batch_error


def _detect_alone(follower: BoxFollower, timed_view: TimedView, boxes: Any) -> People:
    return detect_in_boxes([follower], [timed_view], [boxes])[0]


def _attempt(function: Callable[..., Value], *arguments: Any) -> Value | Exception:
    """Return the result of a function, or the exception that it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        return error
