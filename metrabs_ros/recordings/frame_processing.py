"""Detection and tracking in the frames of a recording, with entries for the resume log."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.foreign_text import printable
from metrabs_ros.options import Options
from metrabs_ros.people import MM_PER_M, People
from metrabs_ros.placement.person_scale import ScaleEstimates
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.recordings.options import MAX_EXAMPLE_CHARS, AnnotateOptions
from metrabs_ros.recordings.resume_log import Entry, Failure, from_numbers, to_numbers
from metrabs_ros.skeletons.conventions import Convention
from metrabs_ros.tracking.box_following import to_people
from metrabs_ros.tracking.person_tracker import PersonTracker, Result
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import Tracker, with_scales

MIN_HITS = 1
"""All detections in a recording are written, from the first frame on."""
TRACK_STATES = (
    *('poses3d_mm', 'poses2d_px', 'in_view', 'velocities_mm_s', 'ages_s'),
    *('axis_std_mm', 'estimated_statures_mm', 'scale_cues'),
)
"""Arrays of `People` that are those of the track in the results."""


class ProcessedFrame(NamedTuple):
    """
    Result of a frame.

    Parameters
    ----------
    entry
        Entry of the resume log.
    people
        Detected people with track ids, camera frame; None if the network failed.
    """

    entry: Entry | Failure
    people: People | None


class FrameProcessor(Protocol):
    """Detects and tracks the people in the frames of a recording."""

    def process(self, views: Sequence[TimedView]) -> list[ProcessedFrame]:
        """Process successive frames of any cameras."""
        ...

    def replay(self, view: TimedView, entry: Entry | Failure) -> People | None:
        """Return the people of a logged frame, without running the network."""
        ...


class IndependentFrames:
    """
    Detects the people in each frame on its own, in batches, and tracks them for their ids.

    Parameters
    ----------
    model
        Detects people and estimates their poses.
    convention
        Joint convention of the results.
    options
        Options of the run.
    """

    def __init__(
        self, model: PoseEstimator, convention: Convention, options: AnnotateOptions
    ) -> None:
        self._model = model
        self._convention = convention
        # Joints of the network are tracked on their own.  Combinations of them are computed from
        # the tracked joints, as the tracker needs those of the body, and so are deviations, as
        # the tracker replaces those of its input.
        is_selection = convention.weights is None and convention.deviations_mm is None
        self._tracked = convention if is_selection else model.convention('')
        self._options = _estimation_options(options)
        model.check(self._options)
        self._parameters = (
            *(options.max_lost, MIN_HITS, options.smoothing or 0.0),
            *(self._options.stature, model.stature_bias),
        )
        self._trackers: dict[str, Tracker] = {}

    def process(self, views: Sequence[TimedView]) -> list[ProcessedFrame]:
        """Process frames in one batch; see `FrameProcessor`."""
        return [
            ProcessedFrame(entry, self.replay(view, entry))
            for view, entry in zip(views, self._detect(views))
        ]

    def replay(self, view: TimedView, entry: Entry | Failure) -> People | None:
        """Update the tracks with logged detections; see `FrameProcessor`."""
        if isinstance(entry, Failure):
            return None
        image, camera = view.view
        detected = from_numbers(entry.people, self._tracked.skeleton, image.shape)
        tracker = self._trackers.setdefault(view.camera_name, Tracker(*self._parameters))
        tracked = tracker.update(
            detected, view.stamp_s, camera, image.shape, ground=view.ground, depth=view.depth
        )
        people = with_track_states(
            detected, tracked, tracker.detection_ids, tracker.detection_scales
        )
        if self._tracked is self._convention:
            return people
        return people.select(people.finite()).in_convention(self._convention)

    def _detect(self, views: Sequence[TimedView]) -> list[Entry | Failure]:
        try:
            poses = self._model.find_people([own.view for own in views], self._options)
        except Exception as error:
            # The other frames of the batch may be processed without this one.
            if len(views) > 1:
                return [entry for view in views for entry in self._detect([view])]
            return [_failure(error)]
        entries: list[Entry | Failure] = []
        for own, view in zip(poses, views):
            people = to_people(own, self._model.skeleton, view.view.image.shape)
            people = people.select(people.finite()).in_convention(self._tracked)
            entries.append(Entry(to_numbers(people), np.zeros(0)))
        return entries


class TrackedFrames:
    """
    Detects and tracks people as the node does: in one run of the networks for all cameras.

    Parameters
    ----------
    model, convention, options
        As for `IndependentFrames`.
    """

    def __init__(
        self, model: PoseEstimator, convention: Convention, options: AnnotateOptions
    ) -> None:
        self._skeleton = model.skeleton
        self._convention = convention
        self._tracker = PersonTracker(
            model,
            _estimation_options(options),
            max_lost=options.max_lost,
            min_hits=MIN_HITS,
            smoothing=options.smoothing or 0.0,
        )

    def process(self, views: Sequence[TimedView]) -> list[ProcessedFrame]:
        """Process frames, those of different cameras together; see `FrameProcessor`."""
        return [
            processed
            for group in _groups_of_cameras(views)
            for processed in self._process_together(group)
        ]

    def replay(self, view: TimedView, entry: Entry | Failure) -> People | None:
        """Update the tracks and the detection schedule; see `FrameProcessor`."""
        if isinstance(entry, Failure):
            self._tracker.replay_failure(view)
            return None
        detected = from_numbers(entry.people, self._skeleton, view.view.image.shape)
        tracked = self._tracker.replay(view, detected, entry.state)
        return self._results(view, tracked)

    def _process_together(self, views: Sequence[TimedView]) -> list[ProcessedFrame]:
        """Process frames of different cameras."""
        return [self._processed(*own) for own in zip(views, self._tracker.process_each(views))]

    def _processed(self, view: TimedView, result: Result) -> ProcessedFrame:
        if isinstance(result.people, Exception):
            if result.is_detected:
                # The tracker failed, not the network.
                raise result.people
            return ProcessedFrame(_failure(result.people), None)
        detected = self._tracker.detections(view.camera_name)
        assert detected is not None
        entry = Entry(to_numbers(detected.people), detected.state)
        return ProcessedFrame(entry, self._results(view, result.people))

    def _results(self, view: TimedView, tracked: People) -> People:
        detected = self._tracker.detections(view.camera_name)
        assert detected is not None
        people = with_track_states(detected.people, tracked, detected.ids, detected.scales)
        return people.select(people.finite()).in_convention(self._convention)


def _groups_of_cameras(views: Sequence[TimedView]) -> list[list[TimedView]]:
    """Split frames into groups of consecutive ones that have at most one of each camera."""
    groups: list[list[TimedView]] = []
    for view in views:
        if not groups or view.camera_name in {own.camera_name for own in groups[-1]}:
            groups.append([])
        groups[-1].append(view)
    return groups


def with_track_states(
    detected: People, tracked: People, ids: NDArray[np.int64], scales: ScaleEstimates
) -> People:
    """
    Return detections with the ids, filtered poses, velocities and ages of their tracks.

    Parameters
    ----------
    detected
        N detections, before scaling.
    tracked
        Published tracks of the same frame.
    ids
        Track ids of the detections, [N]; UNKNOWN_ID for duplicates of another detection.
    scales
        Scales of the detections.

    Returns
    -------
    N people in the order of the detections.  Detections of unpublished tracks keep the detected
    pose, which is scaled.
    """
    rows = {int(track_id): i for i, track_id in enumerate(tracked.ids)}
    published = np.array([i for i, track_id in enumerate(ids) if int(track_id) in rows], int)
    row = np.array([rows[int(ids[i])] for i in published], int)
    people = with_scales(detected, scales, np.zeros(3))
    arrays: dict[str, Any] = {'ids': ids.copy()}
    for name in TRACK_STATES:
        arrays[name] = getattr(people, name).copy()
        arrays[name][published] = getattr(tracked, name)[row]
    return dataclasses.replace(people, **arrays)


def _estimation_options(options: AnnotateOptions) -> Options:
    return Options(
        num_aug=options.num_aug,
        detector_threshold=options.detector_threshold,
        stature=None if options.stature is None else MM_PER_M * options.stature,
    )


def _failure(error: Exception) -> Failure:
    return Failure(f'failed: {type(error).__name__}', printable(error, MAX_EXAMPLE_CHARS))
