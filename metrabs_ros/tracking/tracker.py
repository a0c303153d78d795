"""People over time: who is who, where their joints are between the noise, how fast they go."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.people import UNKNOWN_ID, People, in_view
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.tracking.association import (
    OVERLAP_WEIGHT,
    SAME_BOX_IOU,
    Indices,
    Pairs,
    assign_nearest_first,
    box_iou,
    gated_pairs,
    position_std,
)
from metrabs_ros.tracking.bone_lengths import BoneLengths
from metrabs_ros.tracking.detection_history import (
    ALL_ATTEMPTED,
    MAX_MISSES,
    Attempts,
    DetectionHistory,
)
from metrabs_ros.tracking.joint_filter import JointMotion

JUMP_BACK_S = 0.1
"""Stamps that go back by more are of another time: a recording that begins again."""
MAX_LOST_FRAMES = 2.5
"""Who is missed for fewer frames than this may yet be there, however slowly frames come."""
SLOWEST_STEP_S = 5.0
MAX_CONFIRMATION_S = 0.4
"""Nobody in view is to stay undiscovered for longer than half a second."""
STEP_TOLERANCE = 1.05
"""By how much frames may come late: 5 frames a second are rarely 0.2 s apart to the last digit."""
MAX_RATE_HZ = 240.0
"""Tracks expire after as many missed frames as fit into their time at this rate."""
MAX_ID = 2**31 - 1
"""Ids are 32 bits wide in messages; false detections use them up as well."""
MAX_PLACE_MM = 1e12
"""Detections farther from the world's origin are ignored: sums and squares must not overflow."""
MISSES_OF_LOST = 3
LOST_GATE, LOST_GROWTH_S = 1.5, 0.2
"""
Whom so many frames missed is recognised only near by: a false alarm would otherwise lead astray
who is hidden.
"""
REIDENTIFICATION_HITS, REIDENTIFICATION_STD_MM = 2, 200.0
"""After so many frames, somebody new is taken for who was lost farther off, by how much."""
TENTATIVE_PENALTY = 4.0
"""What it costs to recognise somebody who is not confirmed."""
DUPLICATE_DISTANCE_MM = 200.0
"""Who is found nearer than this to somebody recognised is the same once more."""
UNSEEN_JOINTS_STD_MM_S = 500.0
"""By how much the joints of people who are not seen become less certain."""


@dataclasses.dataclass
class _Tracks:
    """T people, and what they were like when they were last seen."""

    ids: NDArray[np.int64]
    hits: NDArray[np.int64]
    """[T], in how many frames each was seen."""
    misses: NDArray[np.int64]
    """[T], in how many frames since."""
    first_s: FloatArray
    seen_s: FloatArray
    centres_mm: FloatArray
    """[T, 3], the middle of the joints, in the frame of the camera as it was then."""
    boxes_px: FloatArray
    confidence: FloatArray
    joint_confidence: FloatArray
    joint_std_mm: FloatArray

    @classmethod
    def of(cls, people: People, ids: NDArray[np.int64], stamp_s: float) -> _Tracks:
        """Begin with people as they were found."""
        return cls(
            ids=ids,
            hits=np.ones(len(people), np.int64),
            misses=np.zeros(len(people), np.int64),
            first_s=np.full(len(people), stamp_s),
            seen_s=np.full(len(people), stamp_s),
            centres_mm=middle_of_joints(people.poses3d_mm),
            boxes_px=people.boxes_px,
            confidence=people.confidence,
            joint_confidence=people.joint_confidence,
            joint_std_mm=people.joint_std_mm,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, which: NDArray[Any]) -> _Tracks:
        """Return the people at an index array or mask."""
        return _Tracks(**{name: array[which] for name, array in vars(self).items()})

    def joined(self, other: _Tracks) -> _Tracks:
        """Return these people and others."""
        return _Tracks(
            **{
                name: np.concatenate([array, getattr(other, name)])
                for name, array in vars(self).items()
            }
        )


class Tracker:
    """
    Makes people over time of the people in single frames.

    Parameters
    ----------
    max_lost
        How long tracks that are not detected are kept, in seconds.  Steadily detected ones are
        published meanwhile (carried over).  Others keep their id but are not published, so that
        intermittent false detections are not multiplied.
    min_hits
        Number of detections that confirm a track; fewer where frames come so slowly that this
        would take too long.  In the first frames of a stream, tracks are confirmed if all frames
        detected them.  A track that is not steadily detected and is missed twice in a row has to
        be confirmed again.
    smoothing
        From 0 to 1: how calm joints are.  With 0 the poses of those seen stay as they came.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(self, max_lost: float = 1.0, min_hits: int = 3, smoothing: float = 0.5) -> None:
        if not max_lost >= 0:
            raise ValueError(f'max_lost is {max_lost}; it must be 0 or more seconds')
        if min_hits < 1:
            raise ValueError(f'min_hits is {min_hits}; it must be 1 or more')
        if not 0 <= smoothing <= 1:
            raise ValueError(f'smoothing is {smoothing}; it must be from 0 to 1')
        self.max_lost = max_lost
        self.min_hits = min_hits
        self.smoothing = smoothing
        self.detection_ids = np.zeros(0, np.int64)
        """Of the last frame's people as they were found: who they are, or UNKNOWN_ID."""
        self._next_id = 1
        self._skeleton: Skeleton | None = None
        self.reset()

    def reset(self) -> None:
        """Forget everybody; who is found from now on gets a new id."""
        self._stamp_s = -np.inf
        self._frames = 0
        if self._skeleton is not None:
            self._start(self._skeleton)

    def predict(
        self, stamp_s: float, camera: Camera, image_shape: tuple[int, ...]
    ) -> People | None:
        """
        Say where to look for everybody, those not confirmed included.

        Parameters
        ----------
        stamp_s
            When the image was taken.
        camera
            The camera, with its pose in the world if that is known.
        image_shape
            Height and width of its images, further entries are ignored.

        Returns
        -------
        People, camera frame, as they were last measured and carried on by their velocities;
        `seen` says who was seen in the last frame.  None before the first frame.

        Raises
        ------
        ValueError
            If the stamp is not finite.
        """
        self._advance_time(stamp_s)
        if self._skeleton is None or not self._frames:
            return None
        expected = self._people(self._motion.carried_mm, camera, image_shape)
        return expected.select(expected.finite())

    def update(
        self,
        people: People,
        stamp_s: float,
        camera: Camera,
        image_shape: tuple[int, ...],
        attempts: Attempts = ALL_ATTEMPTED,
    ) -> People:
        """
        Update the tracks with a frame's detections.

        Parameters
        ----------
        people
            Detected in an image, camera frame; those with values that are not finite are ignored.
        stamp_s, camera, image_shape
            As in `predict`.
        attempts
            Which of the expected people would have been detected if visible.  Others are not
            missed if they are not detected.

        Returns
        -------
        Confirmed people with ids, velocities and ages, camera frame.  Those not detected in this
        frame are included (carried over) if they were detected steadily before.

        Raises
        ------
        ValueError
            If the stamp is not finite.
        """
        self._advance_time(stamp_s)
        self._frames += 1
        if self._skeleton != people.skeleton:
            self._start(people.skeleton)
            self._frames = 1
        with np.errstate(over='ignore', invalid='ignore'):
            places_mm = camera.to_world(people.poses3d_mm)
        usable = _usable(people, places_mm)
        found, places_mm = people.select(usable), places_mm[usable]
        middles_mm = middle_of_joints(places_mm)
        same = self._associate(found, middles_mm, camera, image_shape)
        # The depth of somebody half hidden can be far off, the place in the image is not.
        for pair in np.flatnonzero(same.depth_scale != 1):
            pose_mm = places_mm[same.detection_indices[pair]]
            pose_mm += (same.depth_scale[pair] - 1) * (pose_mm - viewpoint_mm(camera))
        source: NDArray[np.int64] = np.full(len(self._tracks), -1)
        source[same.track_indices] = same.detection_indices
        self._correct(found, places_mm, source, camera)
        new = _strangers(same.detection_indices, middles_mm)
        if len(new):
            self._add(found.select(new), places_mm[new], camera)
            source = np.append(source, new)
        source = source[self._reidentify(camera)]
        self.detection_ids = np.full(len(people), UNKNOWN_ID)
        of_found = np.flatnonzero(usable)[source[source >= 0]]
        self.detection_ids[of_found] = self._tracks.ids[source >= 0]
        now = self._people(self._steady(), camera, image_shape)
        followed = now.seen & np.isin(now.ids, attempts.followed_ids)
        self._count_attempts(now, followed, attempts)
        published = self._published(now, followed, found, source)
        self._delete_expired()
        return published

    def _advance_time(self, stamp_s: float) -> None:
        """Let time pass until a frame, or begin anew where it went back."""
        if not np.isfinite(stamp_s):
            raise ValueError(f'stamp_s is {stamp_s}; it must be a finite number of seconds')
        step_s = stamp_s - self._stamp_s
        longest_s = self._longest_lost_s(self._usual_step_s or min(step_s, SLOWEST_STEP_S))
        if step_s < -JUMP_BACK_S or longest_s < step_s:
            self.reset()
        elif step_s > 0 and self._skeleton is not None:
            self._keep(stamp_s - self._tracks.seen_s <= longest_s)
            self._motion.predict(step_s)
        self._stamp_s = max(stamp_s, self._stamp_s)

    def _longest_lost_s(self, usual_step_s: float) -> float:
        """Return how long tracks are kept that are not detected."""
        return max(self.max_lost, MAX_LOST_FRAMES * usual_step_s)

    @property
    def _usual_step_s(self) -> float:
        return 0.0 if self._skeleton is None else self._motion.usual_step_s

    def _start(self, skeleton: Skeleton) -> None:
        empty = People.empty(skeleton)
        self._skeleton = skeleton
        self._tracks = _Tracks.of(empty, empty.ids, 0.0)
        self._history = DetectionHistory.of_new(0, 0.0)
        self._motion = JointMotion(skeleton, self.smoothing)
        self._bones = BoneLengths(skeleton)

    def _associate(
        self,
        found: People,
        found_mm: FloatArray,
        camera: Camera,
        image_shape: tuple[int, ...],
    ) -> Pairs:
        """Return who of the known is who of those found."""
        tracks = self._tracks
        expected_mm = self._motion.centres_mm
        is_lost = tracks.misses >= MISSES_OF_LOST
        unseen_s = self._stamp_s - tracks.seen_s
        unseen_s = np.where(is_lost, np.minimum(unseen_s, LOST_GROWTH_S), unseen_s)
        pairs = gated_pairs(
            expected_mm,
            found_mm,
            viewpoint_mm(camera),
            self._std_mm(expected_mm, camera, unseen_s),
        )
        costs, near = pairs.costs, pairs.is_in_gate
        possible = ~is_lost[pairs.track_indices] | (costs < LOST_GATE**2)
        # Where there is but one who may be it, boxes say no more.
        unclear = np.flatnonzero(pairs.is_ambiguous | ~near)
        if len(unclear):
            known, seen = pairs.track_indices[unclear], pairs.detection_indices[unclear]
            boxes_px = moved_boxes(tracks, camera.from_world(expected_mm), camera, image_shape)
            overlap = box_iou(boxes_px[known], found.boxes_px[seen])
            is_doubtful = tracks.hits < self.min_hits
            costs[unclear] += (
                OVERLAP_WEIGHT * (1 - overlap) + TENTATIVE_PENALTY * is_doubtful[known]
            )
            possible[unclear] &= near[unclear] | (overlap > SAME_BOX_IOU)
        if not possible.all():
            pairs, costs = pairs.select(possible), costs[possible]
        return assign_nearest_first(pairs, costs)

    def _std_mm(self, expected_mm: FloatArray, camera: Camera, unseen_s: FloatArray) -> FloatArray:
        distances_mm = np.linalg.norm(expected_mm - viewpoint_mm(camera), axis=-1)
        return position_std(distances_mm, self._motion.noise_mm, unseen_s, self._tracks.hits)

    def _correct(
        self, found: People, places_mm: FloatArray, source: NDArray[np.int64], camera: Camera
    ) -> None:
        """Take in how those recognised were found: each known one has a source, or -1."""
        tracks = self._tracks
        seen = source >= 0
        rows, columns = np.flatnonzero(seen), source[seen]
        for name in ('boxes_px', 'confidence', 'joint_confidence', 'joint_std_mm'):
            # A copy, as whoever was given the last frame's people has the other one.
            values = getattr(tracks, name).copy()
            values[rows] = getattr(found, name)[columns]
            setattr(tracks, name, values)
        tracks.centres_mm[rows] = middle_of_joints(found.poses3d_mm[columns])
        tracks.hits = tracks.hits + seen
        tracks.misses = np.where(seen, 0, tracks.misses + 1)
        tracks.seen_s = np.where(seen, self._stamp_s, tracks.seen_s)
        measured_mm = self._motion.positions_mm
        measured_mm[rows] = places_mm[columns]
        self._motion.smoothing = self.smoothing
        self._motion.correct(measured_mm, tracks.joint_std_mm, seen, viewpoint_mm(camera))

    def _add(self, people: People, places_mm: FloatArray, camera: Camera) -> None:
        ids = self._new_ids(len(people))
        self._tracks = self._tracks.joined(_Tracks.of(people, ids, self._stamp_s))
        self._history = self._history.joined(DetectionHistory.of_new(len(ids), self._stamp_s))
        self._motion.add(places_mm, people.joint_std_mm, viewpoint_mm(camera))
        self._bones.add(len(people))

    def _new_ids(self, count: int) -> NDArray[np.int64]:
        """Return ids that no track has; they start again at 1 after MAX_ID."""
        candidates = self._next_id - 1 + np.arange(count + len(self._tracks))
        ids: NDArray[np.int64] = candidates % MAX_ID + 1
        ids = ids[~np.isin(ids, self._tracks.ids)][:count]
        self._next_id = int(ids[-1]) % MAX_ID + 1
        return ids

    def _keep(self, which: NDArray[Any]) -> None:
        """Keep the people at an index array or mask, in its order."""
        if which.dtype == bool and which.all():
            return
        self._tracks = self._tracks.select(which)
        self._history = self._history.select(which)
        self._motion.keep(which)
        self._bones.keep(which)

    def _count_attempts(self, now: People, followed: BoolArray, attempts: Attempts) -> None:
        """Update the detection history with the frame whose people are `now`, [T]."""
        # People outside the image cannot be detected, so that the frame says nothing of them.
        missed = ~now.seen & now.in_view.any(axis=1)
        if attempts.ids is not None:
            missed &= np.isin(now.ids, attempts.ids)
        detected = now.seen & ~followed
        self._history.update(detected, missed, followed, self._stamp_s, self.min_hits)

    def _delete_expired(self) -> None:
        """Delete tracks that were never confirmed, or missed by too many frames."""
        tracks, history = self._tracks, self._history
        keep = (tracks.hits >= self.min_hits) | (history.streak > -MAX_MISSES)
        # The stamps may stand still, so that time alone would keep tracks for ever.
        keep &= tracks.misses <= MAX_RATE_HZ * self._longest_lost_s(self._usual_step_s)
        self._keep(keep)

    def _reidentify(self, camera: Camera) -> Indices:
        """Take new people for those who were lost about there; return who is left."""
        tracks = self._tracks
        everybody = np.arange(len(tracks))
        is_new = tracks.hits == min(REIDENTIFICATION_HITS, self.min_hits)
        new = np.flatnonzero(is_new & (tracks.misses == 0))
        lost = np.flatnonzero((tracks.hits > self.min_hits) & (tracks.misses > 0))
        if not len(new) or not len(lost):
            return everybody
        places_mm = self._motion.centres_mm
        std_mm = (
            self._std_mm(places_mm, camera, self._stamp_s - tracks.seen_s)
            + REIDENTIFICATION_STD_MM
        )
        pairs = gated_pairs(places_mm[lost], places_mm[new], viewpoint_mm(camera), std_mm[:, lost])
        pairs = pairs.select(pairs.is_in_gate)
        again = assign_nearest_first(pairs, pairs.costs)
        back, gone = lost[again.track_indices], new[again.detection_indices]
        tracks.ids = tracks.ids.copy()  # others have been given the array
        tracks.ids[gone], tracks.first_s[gone] = tracks.ids[back], tracks.first_s[back]
        tracks.hits[gone] += tracks.hits[back]
        self._history.merge(back, gone)
        everybody[back] = gone
        everybody = np.delete(everybody, gone)
        if len(gone):
            self._keep(everybody)
        return everybody

    def _steady(self) -> FloatArray:
        seen = self._tracks.misses == 0
        return self._bones.update(self._motion.positions_mm, seen, self._usual_step_s)

    def _people(
        self, poses_mm: FloatArray, camera: Camera, image_shape: tuple[int, ...]
    ) -> People:
        """Return the known, with poses [T, J, 3] in the world."""
        tracks = self._tracks
        assert self._skeleton is not None
        unseen_s = self._stamp_s - tracks.seen_s
        boxes_px = tracks.boxes_px.copy()
        moving = np.flatnonzero(unseen_s > 0)
        # The camera may have gone anywhere; places that are not finite are left out later.
        with np.errstate(over='ignore', invalid='ignore'):
            poses_mm = camera.from_world(poses_mm)
            poses_px = camera.project(poses_mm)
            if len(moving):
                boxes_px[moving] = moved_boxes(
                    tracks.select(moving), middle_of_joints(poses_mm[moving]), camera, image_shape
                )
        return People(
            skeleton=self._skeleton,
            boxes_px=boxes_px,
            confidence=tracks.confidence,
            poses3d_mm=poses_mm,
            poses2d_px=poses_px,
            joint_confidence=tracks.joint_confidence,
            in_view=in_view(poses_mm, poses_px, image_shape),
            ids=tracks.ids,
            joint_std_mm=tracks.joint_std_mm + UNSEEN_JOINTS_STD_MM_S * unseen_s[:, None],
            velocities_mm_s=self._motion.velocities_mm_s @ camera.extrinsic_matrix[:3, :3].T,
            ages_s=self._stamp_s - tracks.first_s,
            seen=tracks.misses == 0,
        )

    def _published(
        self, now: People, followed: BoolArray, found: People, source: NDArray[np.int64]
    ) -> People:
        """Return those of the tracked people [T] `now` that are published."""
        if self.smoothing == 0:
            for name in ('poses3d_mm', 'poses2d_px', 'in_view'):
                getattr(now, name)[now.seen] = getattr(found, name)[source[now.seen]]
        history = self._history
        # Nobody can tell whether people outside the image are still there.
        carried_over = history.steady & now.in_view.any(axis=1)
        carried_over &= history.confirming_hits >= self.min_hits
        published = now.seen & (history.confirming_hits >= self._hits_needed())
        published &= ~(followed & history.doubtful)
        published |= carried_over
        published &= now.finite() & np.isfinite(now.velocities_mm_s).all(axis=(1, 2))
        return now if published.all() else now.select(published)

    def _hits_needed(self) -> int:
        """Return how many hits confirm a track that is detected in this frame."""
        in_time = self.min_hits
        if self._usual_step_s:
            in_time = max(1, int(STEP_TOLERANCE * MAX_CONFIRMATION_S / self._usual_step_s))
        return min(self.min_hits, self._frames, in_time)


def viewpoint_mm(camera: Camera) -> FloatArray:
    """Return where the camera is in the world, [3], within the range of places."""
    return np.clip(np.nan_to_num(camera.position_mm), -MAX_PLACE_MM, MAX_PLACE_MM)


def _usable(people: People, places_mm: FloatArray) -> NDArray[np.bool_]:
    """Return which detections [N], in the world at places [N, J, 3], have only finite values."""
    inside: NDArray[np.bool_] = np.abs(places_mm).max(axis=(1, 2), initial=0) < MAX_PLACE_MM
    return inside & people.finite() & np.isfinite(people.confidence)


def _strangers(recognised: Indices, places_mm: FloatArray) -> Indices:
    """Return who of those found at places [N, 3] is neither recognised nor next to one of them."""
    if len(recognised) == len(places_mm):
        return np.zeros(0, np.intp)
    taken = recognised.tolist()
    new = []
    for i in sorted(set(range(len(places_mm))) - set(taken)):
        apart_mm = np.linalg.norm(places_mm[i] - places_mm[taken], axis=-1)
        if (apart_mm > DUPLICATE_DISTANCE_MM).all():
            taken.append(i)
            new.append(i)
    return np.array(new, np.intp)


def moved_boxes(
    tracks: _Tracks, centres_mm: FloatArray, camera: Camera, image_shape: tuple[int, ...]
) -> FloatArray:
    """
    Return the boxes [T, 4] of people, moved with them.

    Parameters
    ----------
    tracks
        With the boxes, and where they belonged to.
    centres_mm
        [T, 3], the middle of their joints now, camera frame.
    camera
        Its lens.
    image_shape
        Height and width; boxes end at the image's edges.
    """
    shift_px = camera.project(centres_mm) - camera.project(tracks.centres_mm)
    nearer = tracks.centres_mm[:, 2:] / np.maximum(centres_mm[:, 2:], 1.0)
    half_px = tracks.boxes_px[:, 2:] / 2
    middle_px = tracks.boxes_px[:, :2] + half_px + shift_px
    half_px = np.clip(nearer, 0.5, 2.0) * half_px
    limit_px = np.array(image_shape[1::-1], np.float64)
    start_px = np.clip(middle_px - half_px, 0, limit_px)
    return np.concatenate([start_px, np.clip(middle_px + half_px, 0, limit_px) - start_px], axis=1)


def middle_of_joints(poses: FloatArray) -> FloatArray:
    """Return the mean [N, C] of each person's joints [N, J, C]."""
    joints = poses.shape[1]
    # Several times quicker than NumPy's mean along an inner axis.
    middle: FloatArray = np.full(joints, 1 / joints) @ poses
    return middle
