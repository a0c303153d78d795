"""Tracking of people in a stream of frames: ids, filtered joints, velocities."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.box_overlap import box_iou
from metrabs_ros.camera import Camera
from metrabs_ros.options import MAX_STATURE_MM, MIN_STATURE_MM
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.placement.depth_image import DepthImage, observe_depth
from metrabs_ros.placement.ground_plane import GroundPlane, observe_ground
from metrabs_ros.placement.person_scale import ScaleEstimates, ScaleObservations
from metrabs_ros.placement.stature import has_whole_body, observe_stature
from metrabs_ros.placement.uncertainty import with_axis_std
from metrabs_ros.tracking.association import (
    OVERLAP_WEIGHT,
    SAME_BOX_IOU,
    Indices,
    Pairs,
    assign_nearest_first,
    gated_pairs,
    position_std,
)
from metrabs_ros.tracking.detection_history import ALL_ATTEMPTED, TENTATIVE_MISSES, Attempts
from metrabs_ros.tracking.reidentification import match_lost_tracks, reidentification_candidates
from metrabs_ros.tracking.tracks import (
    MAX_ID,
    UNSEEN_JOINT_STD_MM_S,
    TrackerInput,
    Tracks,
    mean_of_joints,
    moved_boxes,
    unused_ids,
)

JUMP_BACK_S = 0.1
"""Tracking restarts if a stamp is earlier than the last one by more, in seconds."""
MIN_LOST_FRAMES = 2.5
"""Lower bound of the time that lost tracks are kept, in mean frame periods."""
MAX_INITIAL_STEP_S = 5.0
"""Upper bound of the frame period that the first step of a stream is taken for, in seconds."""
MAX_HIT_PERIOD_S = 0.05
"""Frame period from which fewer hits confirm a track, in the same time, in seconds."""
MAX_SECOND_HIT_S = 0.2
"""Maximum frame period at which a second hit is required, in seconds."""
STEP_TOLERANCE = 1.05
"""Tolerance factor of these periods, because frame periods are not exact."""
MAX_RATE_HZ = 240.0
"""Frame rate that converts the maximum lost time to a maximum number of misses."""
MAX_COORDINATE_MM = 1e12
"""Detections with larger world coordinates are ignored: sums and squares must not overflow."""
LOST_MISSES = 3
"""A track is lost after this many consecutive misses."""
LOST_GATE, LOST_GROWTH_S = 1.5, 0.2
"""
Gate of lost tracks, in standard deviations, and maximum time that the deviations grow for.

A larger gate would let false detections capture the tracks of hidden people.
"""
TENTATIVE_PENALTY = 4.0
"""Additional association cost of tentative tracks."""
MIN_CAMERA_STEP_S = 1e-3
"""Minimum time between two frames for the velocity of the camera."""
MAX_CAMERA_SPEED_MM_S = 1e4
"""Faster changes of the camera pose are corrections of the localisation, not a motion."""
DUPLICATE_DISTANCE_MM = 200.0
"""Detections closer than this to an associated detection are duplicates."""


class Tracker:
    """
    Tracks people over the frames of a stream.

    Parameters
    ----------
    max_lost
        Time for which undetected tracks are kept, in seconds.  Steadily detected tracks are
        published with extrapolated poses meanwhile.  Other tracks keep their id but are not
        published, so that intermittent false detections are not multiplied.
    min_hits
        Number of detections that confirm a track; fewer at frame rates below 20 Hz, so that this
        takes no longer.  In the first frames of a stream, tracks are confirmed if all frames
        detected them.  A track that is not steadily detected becomes tentative after two
        consecutive misses.
    smoothing
        From 0 to 1, strength of the joint filter.  With 0 the poses of detected people are
        returned unfiltered.
    stature_mm
        Stature of all people in millimetres; None if it is not known.
    stature_bias
        See `PoseEstimator.stature_bias`.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(
        self,
        max_lost: float = 1.0,
        min_hits: int = 3,
        smoothing: float = 0.5,
        stature_mm: float | None = None,
        stature_bias: float = 1.0,
    ) -> None:
        if not max_lost >= 0:
            raise ValueError(f'max_lost is {max_lost}; it must be 0 or more seconds')
        # The condition also rejects NaN.
        if not min_hits >= 1:
            raise ValueError(f'min_hits is {min_hits}; it must be 1 or more')
        if not 0 <= smoothing <= 1:
            raise ValueError(f'smoothing is {smoothing}; it must be from 0 to 1')
        if not (stature_mm is None or MIN_STATURE_MM <= stature_mm <= MAX_STATURE_MM):
            raise ValueError(
                f'stature_mm is {stature_mm}; it must be None or from {MIN_STATURE_MM:g} to '
                f'{MAX_STATURE_MM:g} millimetres'
            )
        if not 0 < stature_bias < np.inf:
            raise ValueError(f'stature_bias is {stature_bias}; it must be a positive number')
        self.max_lost = max_lost
        self.min_hits = min_hits
        self.smoothing = smoothing
        self.stature_mm = stature_mm
        self.stature_bias = stature_bias
        self.detection_ids = np.zeros(0, np.int64)
        """[N], ids of the detections passed to the last `update`; UNKNOWN_ID: ignored."""
        self.detection_scales = ScaleEstimates.unknown(0)
        """
        Scales of the N detections passed to the last `update`.

        Duplicates of another detection have its scale.
        """
        self._next_id = 1
        self.reset()

    def reset(self) -> None:
        """Delete all tracks; ids are not reused."""
        self._stamp_s = -np.inf
        self._frames = 0
        self._tracks: Tracks | None = None
        self._scaled_s = -np.inf
        self._viewpoint_mm: FloatArray | None = None

    def predict(
        self, stamp_s: float, camera: Camera, image_shape: tuple[int, ...]
    ) -> People | None:
        """
        Predict where the people of all tracks are, including tentative tracks.

        Parameters
        ----------
        stamp_s
            Stamp of the image, in seconds.
        camera
            The camera, with its pose in the world if that is known.
        image_shape
            Height and width of the image in pixels; further entries are ignored.

        Returns
        -------
        People with their last detected poses, extrapolated by their velocities, camera frame, not
        scaled.  `seen` states whether the last frame detected the track.  None before the first
        frame.

        Raises
        ------
        ValueError
            If the stamp is not finite.
        """
        self._advance_to(stamp_s)
        if self._tracks is None:
            return None
        poses_mm = self._tracks.motion.extrapolated_mm
        predicted = self._tracks.people(poses_mm, self._stamp_s, camera, image_shape)
        return predicted.select(predicted.finite())

    def update(
        self,
        people: People,
        stamp_s: float,
        camera: Camera,
        image_shape: tuple[int, ...],
        attempts: Attempts = ALL_ATTEMPTED,
        ground: GroundPlane | None = None,
        depth: DepthImage | None = None,
    ) -> People:
        """
        Update the tracks with the detections of a frame.

        Parameters
        ----------
        people
            N detected people, camera frame; those with values that are not finite are ignored.
        stamp_s, camera, image_shape
            As in `predict`.
        attempts
            Which tracks the frame would have detected if they were visible.  Other tracks are not
            missed if they are not detected.
        ground
            The floor, camera frame; None if it is not known.
        depth
            Depth image of the same time; None if there is none.

        Returns
        -------
        People of the confirmed tracks with ids, velocities and ages, camera frame, scaled to their
        estimated statures.  Tracks that this frame did not detect are included with extrapolated
        poses if they were detected steadily before.

        Raises
        ------
        ValueError
            If the stamp is not finite.
        """
        self._advance_to(stamp_s)
        if self._tracks is None or self._tracks.skeleton != people.skeleton:
            self._tracks, self._frames = Tracks.empty(people.skeleton, self.smoothing), 0
        self._frames += 1
        tracks = self._tracks
        usable, positions_mm = _usable_detections(people, camera)
        detections, viewpoint_mm = people.select(usable), _viewpoint_mm(camera)
        frame = TrackerInput(
            detections, positions_mm, self._stamp_s, camera, image_shape, viewpoint_mm
        )
        centres_mm = mean_of_joints(positions_mm)

        pairs = self._associate(tracks, frame, centres_mm)
        # The index of each track's detection, or -1.
        matches: NDArray[np.int64] = np.full(len(tracks), -1)
        matches[pairs.track_indices] = pairs.detection_indices

        _correct_depths(positions_mm, pairs, viewpoint_mm)
        tracks.motion.smoothing = self.smoothing
        tracks.correct(frame, matches)

        new = _new_people(pairs.detection_indices, centres_mm)
        if len(new):
            tracks.add(frame, new, self._new_ids(tracks, len(new)))
        matches = np.append(matches, new)[self._reidentify(tracks, viewpoint_mm)]
        self.detection_ids = np.full(len(people), UNKNOWN_ID)
        self.detection_ids[np.flatnonzero(usable)[matches[tracks.seen]]] = tracks.ids[tracks.seen]

        current = self._current_people(tracks, frame, matches)
        followed = current.seen & np.isin(current.ids, attempts.followed_ids)
        self._update_history(tracks, current, followed, attempts)
        scaled = self._scale(tracks, current, frame, ground, depth)
        seen = np.flatnonzero(current.seen)
        rows = _tracks_of_detections(matches[seen], seen, centres_mm)
        self.detection_scales = ScaleEstimates.unknown(len(people))
        for own, of_tracks in zip(self.detection_scales, tracks.scales.estimates):
            own[usable] = of_tracks[rows]
        published = scaled.select(self._is_published(tracks, current, followed))
        self._delete_expired(tracks)
        return published

    def _scale(
        self,
        tracks: Tracks,
        current: People,
        frame: TrackerInput,
        ground: GroundPlane | None,
        depth: DepthImage | None,
    ) -> People:
        """Update the person scales, and return the current people [T] with their true size."""
        step_s = 0.0 if np.isinf(self._scaled_s) else frame.stamp_s - self._scaled_s
        scales = tracks.scales
        scales.update_statures(
            current.statures_mm / self.stature_bias,
            current.seen & has_whole_body(current),
            step_s,
        )
        observations: list[ScaleObservations] = []
        if ground is not None:
            observations.append(observe_ground(current, ground))
        if depth is not None:
            observations.append(observe_depth(current, depth))
        if self.stature_mm is not None:
            observations.append(observe_stature(scales.implied_statures_mm, self.stature_mm))
        scales.update(observations, step_s)
        velocity_mm_s = self._camera_velocity_mm_s(frame, step_s)
        self._scaled_s, self._viewpoint_mm = frame.stamp_s, frame.viewpoint_mm
        motion_std_mm = UNSEEN_JOINT_STD_MM_S * (frame.stamp_s - tracks.last_seen_s)
        return with_scales(current, scales.estimates, velocity_mm_s, motion_std_mm)

    def _camera_velocity_mm_s(self, frame: TrackerInput, step_s: float) -> FloatArray:
        """Return the velocity of the camera since the last frame, [3], camera axes."""
        if self._viewpoint_mm is None or step_s < MIN_CAMERA_STEP_S:
            return np.zeros(3)
        moved_mm = frame.viewpoint_mm - self._viewpoint_mm
        velocity_mm_s: FloatArray = frame.camera.extrinsic_matrix[:3, :3] @ moved_mm / step_s
        is_jump = np.linalg.norm(velocity_mm_s) > MAX_CAMERA_SPEED_MM_S
        return np.zeros(3) if is_jump else velocity_mm_s

    def _advance_to(self, stamp_s: float) -> None:
        """Predict the state of the tracks at a stamp; reset if the stamps jump."""
        if not np.isfinite(stamp_s):
            raise ValueError(f'stamp_s is {stamp_s}; it must be a finite number of seconds')
        step_s = stamp_s - self._stamp_s
        max_lost_s = self._max_lost_s(self._mean_step_s or min(step_s, MAX_INITIAL_STEP_S))
        if step_s < -JUMP_BACK_S or max_lost_s < step_s:
            self.reset()
        elif step_s > 0 and self._tracks is not None:
            self._tracks.keep(stamp_s - self._tracks.last_seen_s <= max_lost_s)
            self._tracks.motion.predict(step_s)
        self._stamp_s = max(stamp_s, self._stamp_s)

    def _max_lost_s(self, step_s: float) -> float:
        """Return how long undetected tracks are kept at a frame period."""
        return max(self.max_lost, MIN_LOST_FRAMES * step_s)

    @property
    def _mean_step_s(self) -> float:
        return 0.0 if self._tracks is None else self._tracks.motion.mean_step_s

    def _associate(self, tracks: Tracks, frame: TrackerInput, centres_mm: FloatArray) -> Pairs:
        """Assign detections with centres [N, 3] in the world to tracks."""
        viewpoint_mm, expected_mm = frame.viewpoint_mm, tracks.motion.centres_mm
        is_lost = tracks.misses >= LOST_MISSES
        unseen_s = self._stamp_s - tracks.last_seen_s
        unseen_s = np.where(is_lost, np.minimum(unseen_s, LOST_GROWTH_S), unseen_s)
        std_mm = _innovation_std(tracks, expected_mm, viewpoint_mm, unseen_s)
        pairs = gated_pairs(expected_mm, centres_mm, viewpoint_mm, std_mm)
        costs, is_in_gate = pairs.costs, pairs.is_in_gate
        is_possible = ~is_lost[pairs.track_indices] | (costs < LOST_GATE**2)
        # Unambiguous pairs inside the gate do not need the boxes.
        unclear = np.flatnonzero(pairs.is_ambiguous | ~is_in_gate)
        if len(unclear):
            rows, columns = pairs.track_indices[unclear], pairs.detection_indices[unclear]
            boxes_px = moved_boxes(
                tracks.boxes_px,
                tracks.centres_mm,
                frame.camera.from_world(expected_mm),
                frame.camera,
                frame.image_shape,
            )
            iou = box_iou(boxes_px[rows], frame.detections.boxes_px[columns])
            is_tentative = tracks.hits < self.min_hits
            costs[unclear] += OVERLAP_WEIGHT * (1 - iou) + TENTATIVE_PENALTY * is_tentative[rows]
            is_possible[unclear] &= is_in_gate[unclear] | (iou > SAME_BOX_IOU)
        return assign_nearest_first(pairs.select(is_possible), costs[is_possible])

    def _new_ids(self, tracks: Tracks, count: int) -> NDArray[np.int64]:
        ids = unused_ids(self._next_id, count, tracks.ids)
        self._next_id = int(ids[-1]) % MAX_ID + 1
        return ids

    def _reidentify(self, tracks: Tracks, viewpoint_mm: FloatArray) -> Indices:
        """Merge new tracks with lost ones; return the former indices of the remaining tracks."""
        lost, new = reidentification_candidates(tracks.hits, tracks.misses, self.min_hits)
        if len(lost) and len(new):
            expected_mm, unseen_s = tracks.motion.centres_mm, self._stamp_s - tracks.last_seen_s
            std_mm = _innovation_std(tracks, expected_mm, viewpoint_mm, unseen_s)
            rows, columns = match_lost_tracks(
                expected_mm[lost], expected_mm[new], viewpoint_mm, std_mm[:, lost]
            )
            if len(rows):
                return tracks.merge(lost[rows], new[columns])
        return np.arange(len(tracks))

    def _current_people(
        self, tracks: Tracks, frame: TrackerInput, matches: NDArray[np.int64]
    ) -> People:
        """Return the people of all tracks [T], with filtered poses unless `smoothing` is 0."""
        poses_mm = tracks.bones.update(tracks.motion.positions_mm, tracks.seen, self._mean_step_s)
        current = tracks.people(poses_mm, frame.stamp_s, frame.camera, frame.image_shape)
        columns = matches[current.seen]
        points_px = current.poses2d_px.copy()
        points_px[current.seen] = frame.detections.network_poses2d_px[columns]
        current = dataclasses.replace(current, network_poses2d_px=points_px)
        if self.smoothing == 0:
            for name in ('poses3d_mm', 'poses2d_px', 'in_view'):
                getattr(current, name)[current.seen] = getattr(frame.detections, name)[columns]
        return current

    def _update_history(
        self, tracks: Tracks, current: People, followed: BoolArray, attempts: Attempts
    ) -> None:
        """Count hits and misses of the tracks, given their current people [T]."""
        # People outside the image cannot be detected, so that they are not missed.
        missed = ~current.seen & current.in_view.any(axis=1)
        if attempts.ids is not None:
            missed &= np.isin(current.ids, attempts.ids)
        hit = current.seen & ~followed
        tracks.history.update(hit, missed, followed, self._stamp_s, self.min_hits)

    def _is_published(self, tracks: Tracks, current: People, followed: BoolArray) -> BoolArray:
        """Return which tracks are published, [T], given their current people [T]."""
        history = tracks.history
        # People outside the image cannot be verified, so that they are not extrapolated.
        is_extrapolated = history.steady & current.in_view.any(axis=1)
        is_extrapolated &= history.confirming_hits >= self.min_hits
        is_published = current.seen & (history.confirming_hits >= self._hits_needed())
        is_published &= ~(followed & history.intermittent)
        is_published |= is_extrapolated
        is_finite = current.finite() & np.isfinite(current.velocities_mm_s).all(axis=(1, 2))
        return is_published & is_finite

    def _hits_needed(self) -> int:
        """Return the number of hits that confirms a track that this frame detected."""
        hits_in_time = self.min_hits
        if self._mean_step_s:
            steps_per_hit = STEP_TOLERANCE * MAX_HIT_PERIOD_S / self._mean_step_s
            hits_in_time = 1 + int((self.min_hits - 1) * steps_per_hit)
            if self._mean_step_s <= STEP_TOLERANCE * MAX_SECOND_HIT_S:
                hits_in_time = max(hits_in_time, 2)
        return min(self.min_hits, self._frames, hits_in_time)

    def _delete_expired(self, tracks: Tracks) -> None:
        """Delete unconfirmed tracks that were missed, and tracks with too many misses."""
        keep = (tracks.hits >= self.min_hits) | (tracks.history.streak > -TENTATIVE_MISSES)
        # If stamps do not advance, tracks do not expire by time.
        keep &= tracks.misses <= MAX_RATE_HZ * self._max_lost_s(self._mean_step_s)
        tracks.keep(keep)


def with_scales(
    people: People,
    scales: ScaleEstimates,
    camera_velocity_mm_s: FloatArray,
    motion_std_mm: FloatArray | float = 0.0,
) -> People:
    """
    Return people with their estimated size, and with the standard deviations of their joints.

    Parameters
    ----------
    people
        N people, camera frame, before scaling.
    scales
        Their scales.
    camera_velocity_mm_s
        As in `People.scaled`.
    motion_std_mm
        As in `with_axis_std`.
    """
    scaled = dataclasses.replace(
        people.scaled(scales.factors, camera_velocity_mm_s),
        estimated_statures_mm=scales.statures_mm,
        scale_cues=scales.cues,
    )
    return with_axis_std(scaled, scales.relative_std, motion_std_mm, scales.factors)


def _viewpoint_mm(camera: Camera) -> FloatArray:
    """Return the position of the camera in the world, [3], clipped to the range of coordinates."""
    return np.clip(np.nan_to_num(camera.position_mm), -MAX_COORDINATE_MM, MAX_COORDINATE_MM)


def _usable_detections(people: People, camera: Camera) -> tuple[BoolArray, FloatArray]:
    """Return which detections [N] have only finite values, and their joints in the world."""
    with np.errstate(over='ignore', invalid='ignore'):
        positions_mm = camera.to_world(people.poses3d_mm)
    usable: BoolArray = np.abs(positions_mm).max(axis=(1, 2), initial=0) < MAX_COORDINATE_MM
    usable = usable & people.finite() & np.isfinite(people.confidence)
    return usable, positions_mm[usable]


def _innovation_std(
    tracks: Tracks, expected_mm: FloatArray, viewpoint_mm: FloatArray, unseen_s: FloatArray
) -> FloatArray:
    """Return `position_std` [2, T] of tracks that are expected at positions [T, 3]."""
    distances_mm = np.linalg.norm(expected_mm - viewpoint_mm, axis=-1)
    return position_std(distances_mm, tracks.motion.noise_mm, unseen_s, tracks.hits)


def _correct_depths(positions_mm: FloatArray, pairs: Pairs, viewpoint_mm: FloatArray) -> None:
    """Move associated detections [N, J, 3] along the line of sight into the gate, in place."""
    # The depth of a partly hidden person can be wrong although the image position is right.
    outside = np.flatnonzero(pairs.depth_scale != 1)
    rows, scale = pairs.detection_indices[outside], pairs.depth_scale[outside, None, None]
    positions_mm[rows] += (scale - 1) * (positions_mm[rows] - viewpoint_mm)


def _tracks_of_detections(
    detections: NDArray[np.int64], tracks: Indices, centres_mm: FloatArray
) -> Indices:
    """
    Return the track of each detection, [N]; of duplicates that of the nearest detection.

    Parameters
    ----------
    detections, tracks
        [K], indices of the detections that have a track, and of their tracks.
    centres_mm
        [N, 3], means of the joints of all detections.
    """
    nearest = np.arange(len(centres_mm))
    for i in sorted(set(nearest.tolist()) - set(detections.tolist())):
        distances_mm = np.linalg.norm(centres_mm[detections] - centres_mm[i], axis=-1)
        nearest[i] = detections[distances_mm.argmin()]
    rows: Indices = np.zeros(len(centres_mm), np.intp)
    rows[detections] = tracks
    return rows[nearest]


def _new_people(associated: Indices, centres_mm: FloatArray) -> Indices:
    """Return which detections, with centres [N, 3], are new: not associated and no duplicates."""
    if len(associated) == len(centres_mm):
        return np.zeros(0, np.intp)
    kept = associated.tolist()
    new = []
    for i in sorted(set(range(len(centres_mm))) - set(kept)):
        distances_mm = np.linalg.norm(centres_mm[i] - centres_mm[kept], axis=-1)
        if (distances_mm > DUPLICATE_DISTANCE_MM).all():
            kept.append(i)
            new.append(i)
    return np.array(new, np.intp)
