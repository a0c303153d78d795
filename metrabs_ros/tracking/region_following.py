"""BlazePose in streams: tracks are followed in predicted regions, MoveNet detects new people."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.blazepose.agreement import (
    COCO_JOINTS,
    keypoint_disagreement,
    pose_distance_mm,
    replace_better,
)
from metrabs_ros.blazepose.estimator import BlazePoseEstimator, Sampling, scaled
from metrabs_ros.blazepose.regions import Regions
from metrabs_ros.box_overlap import box_iou
from metrabs_ros.movenet.decoding import Keypoints
from metrabs_ros.movenet.detector import BOTH_SIDES_PX, THRESHOLD
from metrabs_ros.options import Options, View
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.plausibility import has_plausible_size, suppress_duplicates
from metrabs_ros.tracking.detection_history import ALL_ATTEMPTED, Attempts
from metrabs_ros.tracking.timed_view import TimedView

MIN_CONFIDENCE = 0.5
"""Minimum presence score of a followed person."""
MAX_PUBLICATION_S = 0.3
"""Maximum time from the first image of a person to its publication, at 10 images per second or
more: until the detector runs at the right input size, and then until the track is confirmed."""
MIN_RADIUS_SHARE = 0.75
"""Minimum radius of a followed person's crop, relative to that of the detected keypoints."""
CONFIRMATION_STEPS, MAX_CONFIRMATION_S = 2, 0.1
"""Number of frames from the detection to the publication of a new track, and the maximum time; see
`Tracker`."""
STEP_TOLERANCE = 1.05
"""Tolerance factor of times, because frame periods are not exact."""
MAX_EXTRA_RUNS = 2
"""Number of consecutive frames in which the detector runs because a track is lost or doubtful."""
MAX_CHANGE_MM = 150.0
"""Maximum mean distance of the joints from the predicted ones.  If the front of a person is
mistaken for the back, the distance is several times as large."""
MIN_LEANING_RAD = np.radians(10)
"""Minimum angle between the upright directions of a person and of the camera from which crops with
both are tried.  At smaller angles, they hardly differ."""
MAX_CORRECTED_SHARE = 0.5
"""Maximum disagreement of a corrected estimate, as a share of that of the followed one."""
MIN_CHECKED_PX = 128.0
"""Minimum size of a person whose changed pose is checked by the detector at once.  The poses of
smaller people are so noisy that this would happen in most frames."""
MAX_FOLLOW_MISSES = 2
"""Number of frames for which lost tracks are followed."""
SUPPORT_THRESHOLD = 0.15
"""Minimum score of a detection that supports a followed person."""
SUPPORT_DISTANCE, SUPPORT_IOU = 0.2, 0.4
"""Maximum median distance of keypoints and joints, as a share of the size of the box, and minimum
IoU of the boxes, of a detection that supports a followed person."""
CORRECTED_DISAGREEMENT, CORRECTED_DISAGREEMENT_SMALL = 0.06, 0.15
"""Disagreement with the keypoints from which followed people are estimated again, and that of
people smaller than `MIN_CHECKED_PX`, which disagree more by noise."""
MAX_UNSUPPORTED_PASSES = 4
"""Number of passes of the detector without support after which a followed person is rejected."""
SUPPORT_VALUES = 3
"""Number of values of a support that the resume log contains."""
DEFAULT_OPTIONS = Options()


@dataclasses.dataclass(frozen=True)
class Support:
    """
    How recently a track was detected.

    Parameters
    ----------
    misses
        Number of frames since the track was last detected or followed.
    passes
        Number of passes of the detector since it last detected the person.
    radius_px
        Radius of the region around the keypoints that the detector found last.
    score
        Score of that detection.
    """

    misses: int
    passes: int
    radius_px: float
    score: float

    @property
    def is_recent(self) -> bool:
        """Whether to follow the track."""
        # A track that was missed after that many passes was rejected: it must be detected again.
        limit = MAX_UNSUPPORTED_PASSES - 1 if self.misses else MAX_UNSUPPORTED_PASSES
        return self.misses <= MAX_FOLLOW_MISSES and self.passes <= limit


class RegionFollower:
    """
    Detects people in the images of one camera; see `StreamDetector`.

    Poses of tracks are estimated in the regions around their predicted joints, with a single run
    of the network.  MoveNet runs every few frames, and at once if a track is lost.  It finds new
    people, confirms the followed ones, and corrects their poses.

    Parameters
    ----------
    estimator
        Detects people and estimates poses in single images.
    options
        Options of detection and pose estimation; may be replaced between two images.  Duplicates
        are suppressed in any case, so that no two tracks follow the same person.
    detect_interval
        Number of frames between two complete passes of the detector; 0: passes for large and small
        people in turn, so often that new people are published within `MAX_PUBLICATION_S`.
    """

    def __init__(
        self,
        estimator: BlazePoseEstimator,
        options: Options = DEFAULT_OPTIONS,
        detect_interval: int = 0,
    ) -> None:
        self.options = options
        self.detect_interval = detect_interval
        self._estimator = estimator
        self._detection = concurrent.futures.ThreadPoolExecutor(1, 'detection')
        self.reset()

    def reset(self) -> None:
        """Run the complete detection in the next image."""
        self.attempts = ALL_ATTEMPTED
        self._supports: dict[int, Support] = {}
        self._detected_supports: FloatArray | None = None
        self._stamp_s = -np.inf
        self._detected_s: FloatArray = np.zeros(len(BOTH_SIDES_PX))
        self._frames = self._passes = self._extra_runs = 0
        self._is_doubtful = False
        self._image_shape: tuple[int, ...] = ()

    def detect(self, timed_view: TimedView, predicted: People | None) -> People:
        """Detect the people in the next image; see `StreamDetector`."""
        view = timed_view.view
        predicted = self._unless_resized(view, predicted)
        sides_px = self._sides_to_detect(timed_view.stamp_s, predicted)
        tracks = self._tracks_to_follow(predicted)
        self._note_attempts(tracks.ids)
        if not sides_px:
            followed = self._follow(view, tracks)
            self._detected_supports = self._supports_of(followed.ids)
            return scaled(followed, self._detected_supports[:, 2])
        # The two networks run in parallel.
        detection = self._detection.submit(
            self._estimator.detect,
            view,
            # Known people need a lower score than new ones; see `_combine`.
            dataclasses.replace(
                self.options,
                detector_threshold=min(
                    SUPPORT_THRESHOLD, self.options.detector_threshold_or(THRESHOLD)
                ),
            ),
            sides_px=sides_px,
        )
        try:
            followed = self._follow(view, tracks)
        finally:
            # A detection that continues after a failure would share the network with the next
            # image.
            concurrent.futures.wait([detection])
        return self._combine(view, followed, detection.result())

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Store which tracks were detected; see `StreamDetector`."""
        assert self._detected_supports is not None
        self._supports = {
            track_id: dataclasses.replace(support, misses=support.misses + 1)
            for track_id, support in self._supports.items()
        }
        for track_id, (passes, *rest) in zip(ids.tolist(), self._detected_supports.tolist()):
            if track_id != UNKNOWN_ID:
                self._supports[track_id] = Support(0, int(passes), *rest)

    def state(self) -> FloatArray:
        """Return the schedule, and passes, radius and score of all N supports, [6 + 3 N]."""
        assert self._detected_supports is not None, 'no image has been processed'
        schedule = [*self._detected_s, self._frames, self._passes, self._extra_runs]
        supports = self._detected_supports.reshape(-1)
        return np.array([*schedule, float(self._is_doubtful), *supports], np.float64)

    def replay(
        self, timed_view: TimedView, predicted: People | None, detected: People, state: FloatArray
    ) -> None:
        """Update the detection schedule and the support; see `StreamDetector`."""
        predicted = self._unless_resized(timed_view.view, predicted)
        self._sides_to_detect(timed_view.stamp_s, predicted)
        self._note_attempts(self._tracks_to_follow(predicted).ids)
        self._detected_s = state[:2].copy()
        self._frames, self._passes, self._extra_runs = (int(value) for value in state[2:5])
        self._is_doubtful = bool(state[5])
        self._detected_supports = state[6:].reshape(-1, SUPPORT_VALUES).copy()

    def _unless_resized(self, view: View, predicted: People | None) -> People | None:
        """Return the predicted people; reset and return None if the image size has changed."""
        if view.image.shape == self._image_shape:
            return predicted
        self.reset()
        self._image_shape = view.image.shape
        return None

    def _sides_to_detect(self, stamp_s: float, predicted: People | None) -> Sequence[int]:
        """Return the input sizes of the detector for this frame, and advance the schedule."""
        self._frames += 1
        step_s, self._stamp_s = stamp_s - self._stamp_s, stamp_s
        turn = self._passes % len(BOTH_SIDES_PX)
        self._extra_runs = self._extra_runs + 1 if self._is_doubtful else 0
        is_doubtful = 0 < self._extra_runs <= MAX_EXTRA_RUNS
        sides_px: Sequence[int] = ()
        if predicted is None or is_doubtful or self._was_lost_recently(predicted):
            sides_px = BOTH_SIDES_PX
        elif self.detect_interval:
            sides_px = BOTH_SIDES_PX if self._frames >= self.detect_interval else ()
        elif is_due(stamp_s - self._detected_s[turn], stamp_s - max(self._detected_s), step_s):
            sides_px = (BOTH_SIDES_PX[turn],)
        if sides_px:
            self._detected_s[np.isin(BOTH_SIDES_PX, sides_px)] = stamp_s
            self._frames = 0
            self._passes += 1
        return sides_px

    def _was_lost_recently(self, predicted: People) -> bool:
        """Return whether a track was lost in one of the last `MAX_EXTRA_RUNS` frames."""
        is_missed = ~predicted.seen & predicted.in_view.any(axis=1)
        supports = (self._supports.get(i) for i in predicted.ids[is_missed].tolist())
        return any(own is not None and 0 < own.misses <= MAX_EXTRA_RUNS for own in supports)

    def _note_attempts(self, ids: NDArray[np.int64]) -> None:
        """Store which tracks would be detected if visible: those followed, or all."""
        self.attempts = ALL_ATTEMPTED if self.detect_interval == 1 else Attempts(ids)

    def _tracks_to_follow(self, predicted: People | None) -> People:
        """Return the predicted state of the tracks that were seen recently."""
        if predicted is None:
            self._supports = {}
            return People.empty(self._estimator.skeleton)
        ids = predicted.ids.tolist()
        # The other tracks were deleted.
        self._supports = {
            track_id: self._supports[track_id] for track_id in ids if track_id in self._supports
        }
        is_followed = np.array(
            [
                track_id in self._supports and self._supports[track_id].is_recent
                for track_id in ids
            ],
            bool,
        )
        tracks = predicted.select(is_followed & predicted.in_view.any(axis=1))
        # Older tracks take precedence over newer ones.
        oldest = np.argsort(tracks.ids, kind='stable')[: self._room_for(0)]
        return tracks.select(np.sort(oldest))

    def _room_for(self, count: int) -> int | None:
        """Return how many people may be added to `count` people; None: any number."""
        limit = self.options.max_detections
        return None if limit < 0 else max(limit - count, 0)

    def _supports_of(self, ids: NDArray[np.int64]) -> FloatArray:
        """Return passes, radius and score of the support of tracks [N], [N, 3]."""
        supports = [self._supports[track_id] for track_id in ids.tolist()]
        rows = [[support.passes, support.radius_px, support.score] for support in supports]
        return np.array(rows, np.float64).reshape(-1, SUPPORT_VALUES)

    def _follow(self, view: View, tracks: People) -> People:
        """Return the tracks that the network finds in the regions around the predicted joints."""
        people = self._estimate_near(view, tracks)
        # The front of a person can be mistaken for the back, other than in the frame before.
        has_changed = pose_distance_mm(people.poses3d_mm, tracks.poses3d_mm) > MAX_CHANGE_MM
        size_px = tracks.boxes_px[has_changed, 2:].max(axis=1, initial=0)
        self._is_doubtful = bool((size_px > MIN_CHECKED_PX).any())
        people = dataclasses.replace(people, ids=tracks.ids)
        is_plausible = (
            has_plausible_size(people)
            if self.options.suppress_implausible_poses
            else people.finite()
        )
        people = people.select((people.confidence > MIN_CONFIDENCE) & is_plausible)
        # Two tracks can follow the same person after an occlusion; the older one is kept.
        return people.select(suppress_duplicates(people, -people.ids.astype(np.float64)))

    def _estimate_near(self, view: View, tracks: People) -> People:
        """
        Return an estimate of each track [N] that is near its predicted pose, if there is one.

        The network mistakes the front of some people for the back, or does not recognise them, in
        one crop and not in its mirror image; and of leaning people, in crops that are upright with
        the body and not in those that are upright with the camera, or the other way round.  Such
        mistakes last for many frames.  The other crops are used only for these people.
        """
        regions = Regions.around_keypoints(as_keypoints(tracks, tracks.confidence), view.camera)
        # Joints that are not visible are estimated inside the crop, and the crop follows the
        # joints, so that the crop of a partly hidden person would become smaller in every frame.
        regions = regions.enlarged_to(MIN_RADIUS_SHARE * self._supports_of(tracks.ids)[:, 1])
        sampling = Sampling.from_options(self.options)
        people = self._estimator.estimate(*view, regions, sampling).people
        upright = regions.turned_upright(view.camera)
        is_leaning = regions.angle_to(upright) > MIN_LEANING_RAD
        everyone = np.ones(len(tracks), bool)
        for other_regions, is_other, mirrored in (
            (regions, everyone, True),
            (upright, is_leaning, False),
            (upright, is_leaning, True),
        ):
            apart_mm = pose_distance_mm(people.poses3d_mm, tracks.poses3d_mm)
            is_absent = people.confidence <= MIN_CONFIDENCE
            doubtful = np.flatnonzero(is_other & ((apart_mm > MAX_CHANGE_MM) | is_absent))
            if not len(doubtful):
                continue
            others = self._estimator.estimate(
                *view,
                other_regions.select(doubtful),
                sampling,
                np.full(len(doubtful), mirrored),
            ).people
            other_apart_mm = pose_distance_mm(others.poses3d_mm, tracks.poses3d_mm[doubtful])
            is_better = (other_apart_mm < apart_mm[doubtful]) | is_absent[doubtful]
            is_better &= others.confidence > MIN_CONFIDENCE
            people = replace_better(people, doubtful, others, is_better)
        return people

    def _combine(self, view: View, followed: People, keypoints: Keypoints) -> People:
        """Return the followed people that the detector supports, corrected, and new people."""
        match = match_keypoints(followed, keypoints)
        supports = self._supports_of(followed.ids)
        supports[:, 0] += 1
        is_supported = match >= 0
        supports[is_supported] = supports_by(view, keypoints.select(match[is_supported]))
        corrected = self._correct(view, followed, keypoints, match)
        is_new = keypoints.scores >= self.options.detector_threshold_or(THRESHOLD)
        is_new[match[match >= 0]] = False
        new, new_keypoints = self._estimator.pose_detected(
            view, keypoints.select(is_new), self.options, self._room_for(len(followed))
        )
        new_supports = supports_by(view, as_keypoints(new, new_keypoints.scores))
        together = People.concatenate([corrected, new])
        scores = np.concatenate([supports[:, 2], np.ones(len(new))])
        supports = np.concatenate([supports, new_supports])
        # Followed people take precedence over new ones, and older tracks over newer ones.
        negative_ids = -corrected.ids.astype(np.float64)
        seniority = np.concatenate(
            [negative_ids, new.confidence + negative_ids.min(initial=0) - 2]
        )
        kept = suppress_duplicates(together, seniority)
        kept &= supports[:, 0] <= MAX_UNSUPPORTED_PASSES
        self._detected_supports = supports[kept]
        # The confidence of new people includes the score.
        return scaled(together, scores).select(kept)

    def _correct(
        self, view: View, followed: People, keypoints: Keypoints, match: NDArray[np.int64]
    ) -> People:
        """Estimate followed people again who disagree with their keypoints."""
        matched = np.flatnonzero(match >= 0)
        own_keypoints = keypoints.select(match[matched])
        disagreement = keypoint_disagreement(followed.select(matched), own_keypoints)
        is_small = own_keypoints.boxes_px[:, 2:].max(axis=1, initial=0) < MIN_CHECKED_PX
        is_doubtful = disagreement > np.where(
            is_small, CORRECTED_DISAGREEMENT_SMALL, CORRECTED_DISAGREEMENT
        )
        if not is_doubtful.any():
            return followed
        doubtful, own_keypoints = matched[is_doubtful], own_keypoints.select(is_doubtful)
        again = self._estimator.pose_keypoints(
            view, own_keypoints, Sampling.from_options(self.options)
        )
        # If neither estimate agrees with the keypoints, a change would only move the person.
        is_better = (
            keypoint_disagreement(again, own_keypoints)
            < MAX_CORRECTED_SHARE * disagreement[is_doubtful]
        )
        is_better &= again.confidence > MIN_CONFIDENCE
        again = dataclasses.replace(again, ids=followed.ids[doubtful])
        return replace_better(followed, doubtful, again, is_better)


def is_due(waited_s: float, since_any_s: float, step_s: float) -> bool:
    """
    Return whether the detector must run at an input size.

    Parameters
    ----------
    waited_s
        Time since the last pass at this size.  If the pass is left to the next frame, a person who
        entered after the last pass is detected that long after the first image of it.
    since_any_s
        Time since the last pass at any size.
    step_s
        Time since the last frame.
    """
    # Equal stamps do not measure time.
    if step_s <= 0 or waited_s < 0 or since_any_s < 0:
        return True
    limit_s = MAX_PUBLICATION_S - min(CONFIRMATION_STEPS * step_s, MAX_CONFIRMATION_S)
    # The passes of the sizes are distributed over time.
    return max(waited_s, len(BOTH_SIDES_PX) * since_any_s) > STEP_TOLERANCE * limit_s


def supports_by(view: View, keypoints: Keypoints) -> FloatArray:
    """Return passes, radius and score of the support by detections of N people, [N, 3]."""
    radius_px = Regions.around_keypoints(keypoints, view.camera).radius_px
    return np.stack([np.zeros(len(keypoints)), radius_px, keypoints.scores], axis=1)


def as_keypoints(people: People, scores: FloatArray) -> Keypoints:
    """Return N people with scores as keypoints of COCO, all of them visible."""
    return Keypoints(
        people.boxes_px,
        scores,
        people.poses2d_px[:, COCO_JOINTS],
        np.ones((len(people), len(COCO_JOINTS))),
    )


def match_keypoints(people: People, keypoints: Keypoints) -> NDArray[np.int64]:
    """
    Match people with the detections of the same people.

    Parameters
    ----------
    people
        N people in the skeleton of BlazePose.
    keypoints
        M detected people.

    Returns
    -------
    [N], index of the detection, or -1.
    """
    match = np.full(len(people), -1)
    if not len(people) or not len(keypoints):
        return match
    joints_px = people.poses2d_px[:, COCO_JOINTS]
    apart_px = np.linalg.norm(joints_px[:, None] - keypoints.points_px[None], axis=-1)
    size_px = np.linalg.norm(keypoints.boxes_px[:, 2:], axis=1)
    distance = np.median(apart_px, axis=-1) / np.maximum(size_px, 1e-6)
    overlap = box_iou(people.boxes_px[:, None], keypoints.boxes_px[None])
    possible = (distance < SUPPORT_DISTANCE) | (overlap > SUPPORT_IOU)
    # Greedy: the nearest pair first.
    for flat in np.argsort(distance, axis=None, kind='stable').tolist():
        i, j = divmod(flat, len(keypoints))
        if possible[i, j] and match[i] < 0 and not (match == j).any():
            match[i] = j
    return match
