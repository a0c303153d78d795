"""People over time: who is who, where their joints are between the noise, how fast they go."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.people import UNKNOWN_ID, People, in_view
from metrabs_ros.skeleton import Skeleton
from metrabs_ros.tracking.association import (
    OVERLAP_WEIGHT,
    SAME_BOX_IOU,
    Indices,
    Pairs,
    box_overlap,
    near_pairs,
    nearest_first,
    place_std,
)
from metrabs_ros.tracking.bones import BoneLengths
from metrabs_ros.tracking.motion import JointMotion

JUMP_BACK_S = 0.1
"""Stamps that go back by more are of another time: a recording that begins again."""
MAX_LOST_FRAMES = 2.5
"""Who is missed for fewer frames than this may yet be there, however slowly frames come."""
SLOWEST_STEP_S = 5.0
LONGEST_DOUBT_S = 0.4
"""Nobody in view is to stay undiscovered for longer than half a second."""
MISSES_OF_NOBODY = 2
"""Who is missed so often in a row before being confirmed was nobody."""
MISSES_OF_LOST = 3
LOST_GATE, LOST_UNSEEN_S = 1.5, 0.2
"""
Whom so many frames missed is recognised only near by: a false alarm would otherwise lead astray
who is hidden.
"""
BACK_HITS, BACK_STD_MM = 2, 200.0
"""After so many frames, somebody new is taken for who was lost farther off, by how much."""
DOUBT_PENALTY = 4.0
"""What it costs to recognise somebody who is not confirmed."""
SAME_PLACE_MM = 200.0
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
        How long somebody who is not seen is remembered, in seconds.
    min_hits
        In how many frames somebody must have been seen to count; fewer where frames come so
        slowly that this would take too long.  In the first frames everybody counts who was seen
        in all of them.
    smoothing
        From 0 to 1: how calm joints are.  With 0 the poses of those seen stay as they came.
    """

    def __init__(self, max_lost: float = 1.0, min_hits: int = 3, smoothing: float = 0.5) -> None:
        self.max_lost = max_lost
        self.min_hits = min_hits
        self.smoothing = smoothing
        self.ids_of_found = np.zeros(0, np.int64)
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

    def expect(
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
        self._let_pass(stamp_s)
        if self._skeleton is None or not self._frames:
            return None
        return self._people(self._motion.carried_mm, camera, image_shape)

    def update(
        self, people: People, stamp_s: float, camera: Camera, image_shape: tuple[int, ...]
    ) -> People:
        """
        Take in whom a frame shows.

        Parameters
        ----------
        people
            Found in an image, camera frame; those with places that are not finite are ignored.
        stamp_s, camera, image_shape
            As in `expect`.

        Returns
        -------
        People with ids, velocities and ages, camera frame, those carried over included, but
        nobody who is not confirmed.

        Raises
        ------
        ValueError
            If the stamp is not finite.
        """
        self._let_pass(stamp_s)
        self._frames += 1
        if self._skeleton != people.skeleton:
            self._start(people.skeleton)
            self._frames = 1
        finite = people.finite()
        found = people if finite.all() else people.select(finite)
        places_mm = camera.to_world(found.poses3d_mm)
        middles_mm = middle_of_joints(places_mm)
        same = self._recognised(found, middles_mm, camera, image_shape)
        # The depth of somebody half hidden can be far off, the place in the image is not.
        for pair in np.flatnonzero(same.nearing != 1):
            pose_mm = places_mm[same.found[pair]]
            pose_mm += (same.nearing[pair] - 1) * (pose_mm - camera.position_mm)
        source: NDArray[np.int64] = np.full(len(self._tracks), -1)
        source[same.known] = same.found
        self._take_in(found, places_mm, source, camera)
        new = _strangers(same.found, middles_mm)
        if len(new):
            self._add(found.select(new), places_mm[new], camera)
            source = np.append(source, new)
        source = source[self._forget_nobodies()]
        source = source[self._bring_back(camera)]
        self.ids_of_found = np.full(len(people), UNKNOWN_ID)
        of_found = np.flatnonzero(finite)[source[source >= 0]]
        self.ids_of_found[of_found] = self._tracks.ids[source >= 0]
        return self._counted(found, source, camera, image_shape)

    def _let_pass(self, stamp_s: float) -> None:
        """Let time pass until a frame, or begin anew where it went back."""
        if not np.isfinite(stamp_s):
            raise ValueError(f'stamp_s is {stamp_s}; it must be a finite number of seconds')
        step_s = stamp_s - self._stamp_s
        usual_s = self._usual_step_s or min(step_s, SLOWEST_STEP_S)
        longest_s = max(self.max_lost, MAX_LOST_FRAMES * usual_s)
        if step_s < -JUMP_BACK_S or longest_s < step_s < np.inf:
            self.reset()
        elif 0 < step_s < np.inf and self._skeleton is not None:
            self._keep(stamp_s - self._tracks.seen_s <= longest_s)
            self._motion.predict(step_s)
        self._stamp_s = max(stamp_s, self._stamp_s)

    @property
    def _usual_step_s(self) -> float:
        return 0.0 if self._skeleton is None else self._motion.usual_step_s

    def _start(self, skeleton: Skeleton) -> None:
        nobody = People.nobody(skeleton)
        self._skeleton = skeleton
        self._tracks = _Tracks.of(nobody, nobody.ids, 0.0)
        self._motion = JointMotion(skeleton, self.smoothing)
        self._bones = BoneLengths(skeleton)

    def _recognised(
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
        unseen_s = np.where(is_lost, np.minimum(unseen_s, LOST_UNSEEN_S), unseen_s)
        pairs = near_pairs(
            expected_mm, found_mm, camera.position_mm, self._std_mm(expected_mm, camera, unseen_s)
        )
        costs, near = pairs.costs, pairs.near
        possible = ~is_lost[pairs.known] | (costs < LOST_GATE**2)
        # Where there is but one who may be it, boxes say no more.
        unclear = np.flatnonzero(pairs.contested | ~near)
        if len(unclear):
            known, seen = pairs.known[unclear], pairs.found[unclear]
            boxes_px = moved_boxes(tracks, camera.from_world(expected_mm), camera, image_shape)
            overlap = box_overlap(boxes_px[known], found.boxes_px[seen])
            is_doubtful = tracks.hits < self.min_hits
            costs[unclear] += OVERLAP_WEIGHT * (1 - overlap) + DOUBT_PENALTY * is_doubtful[known]
            possible[unclear] &= near[unclear] | (overlap > SAME_BOX_IOU)
        if not possible.all():
            pairs, costs = pairs.select(possible), costs[possible]
        return nearest_first(pairs, costs)

    def _std_mm(self, expected_mm: FloatArray, camera: Camera, unseen_s: FloatArray) -> FloatArray:
        distances_mm = np.linalg.norm(expected_mm - camera.position_mm, axis=-1)
        return place_std(distances_mm, self._motion.noise_mm, unseen_s, self._tracks.hits)

    def _take_in(
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
        self._motion.correct(measured_mm, tracks.joint_std_mm, seen, camera.position_mm)

    def _add(self, people: People, places_mm: FloatArray, camera: Camera) -> None:
        ids = self._next_id + np.arange(len(people))
        self._next_id += len(people)
        self._tracks = self._tracks.joined(_Tracks.of(people, ids, self._stamp_s))
        self._motion.add(places_mm, people.joint_std_mm, camera.position_mm)
        self._bones.add(len(people))

    def _keep(self, which: NDArray[Any]) -> None:
        """Keep the people at an index array or mask, in its order."""
        if which.dtype == bool and which.all():
            return
        self._tracks = self._tracks.select(which)
        self._motion.keep(which)
        self._bones.keep(which)

    def _forget_nobodies(self) -> NDArray[np.bool_]:
        """Forget whom hardly any frame has shown; tell who is left."""
        tracks = self._tracks
        somebody = (tracks.hits >= self.min_hits) | (tracks.misses < MISSES_OF_NOBODY)
        self._keep(somebody)
        return somebody

    def _bring_back(self, camera: Camera) -> Indices:
        """Take new people for those who were lost about there; return who is left."""
        tracks = self._tracks
        everybody = np.arange(len(tracks))
        is_new = tracks.hits == min(BACK_HITS, self.min_hits)
        new = np.flatnonzero(is_new & (tracks.misses == 0))
        lost = np.flatnonzero((tracks.hits > self.min_hits) & (tracks.misses > 0))
        if not len(new) or not len(lost):
            return everybody
        places_mm = self._motion.centres_mm
        std_mm = self._std_mm(places_mm, camera, self._stamp_s - tracks.seen_s) + BACK_STD_MM
        pairs = near_pairs(places_mm[lost], places_mm[new], camera.position_mm, std_mm[:, lost])
        pairs = pairs.select(pairs.near)
        again = nearest_first(pairs, pairs.costs)
        back, gone = lost[again.known], new[again.found]
        tracks.ids = tracks.ids.copy()  # others have been given the array
        tracks.ids[gone], tracks.first_s[gone] = tracks.ids[back], tracks.first_s[back]
        tracks.hits[gone] += tracks.hits[back]
        everybody[back] = gone
        everybody = np.delete(everybody, gone)
        if len(gone):
            self._keep(everybody)
        return everybody

    def _steady(self) -> FloatArray:
        seen = self._tracks.misses == 0
        return self._bones.steady(self._motion.positions_mm, seen, self._usual_step_s)

    def _people(
        self, poses_mm: FloatArray, camera: Camera, image_shape: tuple[int, ...]
    ) -> People:
        """Return the known, with poses [T, J, 3] in the world."""
        tracks = self._tracks
        assert self._skeleton is not None
        poses_mm = camera.from_world(poses_mm)
        poses_px = camera.project(poses_mm)
        unseen_s = self._stamp_s - tracks.seen_s
        boxes_px = tracks.boxes_px.copy()
        moving = np.flatnonzero(unseen_s > 0)
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

    def _counted(
        self,
        found: People,
        source: NDArray[np.int64],
        camera: Camera,
        image_shape: tuple[int, ...],
    ) -> People:
        """Return those people who count, as they are in this frame."""
        now = self._people(self._steady(), camera, image_shape)
        if self.smoothing == 0:
            for name in ('poses3d_mm', 'poses2d_px', 'in_view'):
                getattr(now, name)[now.seen] = getattr(found, name)[source[now.seen]]
        hits = self._tracks.hits
        # Who left the picture is remembered, but nobody can say that this is so.
        counts = (hits >= self.min_hits) & now.in_view.any(axis=1)
        counts |= now.seen & (hits >= self._hits_needed())
        return now if counts.all() else now.select(counts)

    def _hits_needed(self) -> int:
        """Return in how many frames somebody who is seen must have been seen to count."""
        in_time = self.min_hits
        if self._usual_step_s:
            in_time = max(1, int(LONGEST_DOUBT_S / self._usual_step_s))
        return min(self.min_hits, self._frames, in_time)


def _strangers(recognised: Indices, places_mm: FloatArray) -> Indices:
    """Return who of those found at places [N, 3] is neither recognised nor next to one of them."""
    if len(recognised) == len(places_mm):
        return np.zeros(0, np.intp)
    taken = recognised.tolist()
    new = []
    for i in sorted(set(range(len(places_mm))) - set(taken)):
        apart_mm = np.linalg.norm(places_mm[i] - places_mm[taken], axis=-1)
        if (apart_mm > SAME_PLACE_MM).all():
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
