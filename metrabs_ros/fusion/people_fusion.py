"""
Fusion of several cameras: tracks of people in the world frame.

Cameras are neither synchronised nor equally fast.  The fusion therefore updates its tracks
sequentially, with each frame set when it arrives, instead of extrapolating the people of all
cameras to a common time.  Each image point then counts once, with its own stamp and its own
uncertainty, and a camera that stops simply contributes nothing.  The images of one set, which
differ by less than a frame period, are used together, because outliers are found by comparing
views: the rays of the earlier ones are moved by the predicted velocity to the stamp of the set.
Extrapolating the cameras' people instead would use velocities that single cameras estimate, which
are unreliable along the line of sight, and would count old frames of slow cameras again and again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.fusion import estimation, matching, track_merging
from metrabs_ros.fusion.camera_states import CameraStates
from metrabs_ros.fusion.camera_status import CameraStatus
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.person_sizes import learn_sizes, with_learned_sizes
from metrabs_ros.fusion.rays import MIN_DISTANCE_MM, Rays, rays_of
from metrabs_ros.fusion.world_tracks import WorldTracks, acceleration_noise, trunk_joints
from metrabs_ros.people import inside_image
from metrabs_ros.skeletons.conventions import Skeleton

JUMP_BACK_S = 1.0
"""All tracks are deleted if the time goes back by more."""
MAX_STEP_S = 1.0
"""Longest time over which tracks are extrapolated with their velocity."""
TENTATIVE_LOST_S = 0.15
"""Time after which tentative tracks are deleted, if it is longer than two frame sets."""
TENTATIVE_PENALTY, LOST_PENALTY = 1.0, 1.0
"""Additional losses of tentative tracks, and of tracks that were not seen for `LOST_S`."""
LOST_S = 0.3
LOST_STD_MM = 100.0
"""
Limit of the standard deviation of tracks that were not seen for `LOST_S`, for the match with a
single detection.  Farther people are recognised when their new track is confirmed: otherwise each
false person could take the identity of a lost one.
"""
SINGLE_VIEW_HANDICAP = 2.5
"""
Loss in the competition for detections of tracks that one camera sees, with those that several do.

A track of one camera fits the detections of this camera too well: without a handicap, it could
remain next to the true track of the person.
"""
CONFIRMING_SHARE, TENTATIVE_LOSS = 0.5, 0.5
"""
A frame set is full evidence of a person if this share of the cameras that should see it do; a set
in which none does takes evidence of tentative tracks away.
"""
RECENT_S = 0.25
"""Time in which cameras have seen a person `recently`; longer than the period of 5 Hz."""
UNEXPECTED_MM = 150.0
"""Standard deviation of the motion of tracks that match nothing within their gate."""
UNSEEN_STD_MM = 300.0
"""Standard deviation of joints that no camera has seen."""
JOINT_MEMORY_S = 0.5
"""Time constant of the confidence of joints that are not seen."""


class PeopleFusion:
    """
    Tracks people in the world frame over the frames of several cameras.

    Parameters
    ----------
    skeleton
        Skeleton of the fused people.  Cameras may have others; joints are compared by name.
    max_lost
        Time for which people that no camera sees keep their id, in seconds.
    min_hits
        Number of frame sets that confirm a person; more if most of the cameras that the person is
        in the image of do not see it.
    smoothing
        From 0 to 1, strength of the joint filter; 0.5 is the statistical optimum.
    first_id
        Id of the first person: the `next_id` of the fusion that this one replaces.

    Raises
    ------
    ValueError
        If an argument is out of range, or the skeleton has no joints.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        max_lost: float = 1.0,
        min_hits: int = 3,
        smoothing: float = 0.5,
        first_id: int = 1,
    ) -> None:
        if not len(skeleton):
            raise ValueError(
                f'the skeleton {skeleton.name} has no joints; people are fused by their joints'
            )
        if not max_lost >= 0:
            raise ValueError(f'max_lost is {max_lost}; it must be 0 or more seconds')
        if min_hits < 1:
            raise ValueError(f'min_hits is {min_hits}; it must be 1 or more')
        if not 0 <= smoothing <= 1:
            raise ValueError(f'smoothing is {smoothing}; it must be from 0 to 1')
        self.skeleton = skeleton
        self.max_lost = max_lost
        self.min_hits = min_hits
        self.smoothing = smoothing
        self._trunk = trunk_joints(skeleton)
        self._noise = acceleration_noise(skeleton, self._trunk)
        self.next_id = first_id
        self.reset()

    def reset(self) -> None:
        """Delete all people and the statistics of the cameras; ids are not used again."""
        self._tracks = WorldTracks.empty(len(self.skeleton))
        self._cameras = CameraStates()
        self._stamp_s = -np.inf
        self._step_s = 0.0

    def update(self, frames: Sequence[CameraPeople]) -> FusedPeople:
        """
        Update the people with a frame set, for example of `FrameSets`.

        Frames of cameras that `camera_statuses` reports as excluded do not change the people.

        Parameters
        ----------
        frames
            At most one frame of each camera; of more, the last one counts.  Their stamps may
            differ; each image point counts at the stamp of its frame.

        Returns
        -------
        The confirmed people at the latest stamp of the set.
        """
        for frame in frames:
            self._cameras.add(frame)
        new_cameras = len(self._cameras) - self._tracks.camera_seen_s.shape[1]
        if new_cameras:
            self._tracks.add_cameras(new_cameras)
        by_name = {frame.camera_name: frame.in_skeleton(self.skeleton) for frame in frames}
        in_time = [own for own in by_name.values() if not self._cameras.rejection(own.camera_name)]
        if not in_time:
            return self._confirmed()
        stamp_s = max(frame.stamp_s for frame in in_time)
        if stamp_s < self._stamp_s - JUMP_BACK_S:
            self.reset()
            # Also with rejected frames: the state of their cameras was deleted.
            return self.update(frames)
        self._predict(max(stamp_s, self._stamp_s))
        is_excluded = self._cameras.are_inconsistent()[self._cameras.columns_of(in_time)]
        used = [frame for frame, own in zip(in_time, is_excluded) if not own]
        excluded = [frame for frame, own in zip(in_time, is_excluded) if own]
        if used:
            self._fuse(used)
        if excluded:
            self._check_excluded(excluded)
        self._cameras.update_inconsistent()
        self._delete()
        return self._confirmed()

    def _fuse(self, frames: Sequence[CameraPeople]) -> None:
        """Correct and start tracks with the frames of a set."""
        columns = self._cameras.columns_of(frames)
        rays = rays_of(frames, self._stamp_s, self._cameras.noise_ratio[columns])
        matches = self._match(rays, columns)
        self._correct(rays, matches, columns)
        taken = np.zeros(len(rays), bool)
        taken[matches[matches >= 0]] = True
        self._start(rays.select(~taken), columns)
        if not len(self._tracks):
            return
        inside = self._are_in_images(frames)
        self._check_matches(frames, matches, inside)
        before = self._is_confirmed()
        self._add_evidence(inside, columns)
        self._recognise(self._is_confirmed() & ~before)

    def _are_in_images(self, frames: Sequence[CameraPeople]) -> BoolArray:
        """Return which tracks are well inside the image of each frame, [T, V]."""
        middle_mm = self._tracks.position_mm.mean(axis=1)
        return np.stack([_are_in_image(frame, middle_mm) for frame in frames], axis=1)

    def _add_evidence(self, inside: BoolArray, columns: NDArray[np.intp]) -> None:
        """Note for each track how many of the cameras that should see it do."""
        tracks = self._tracks
        seen = tracks.camera_seen_s[:, columns] >= self._stamp_s
        views, expected = seen.sum(axis=1), (seen | inside).sum(axis=1)
        gain = np.minimum(views / np.maximum(CONFIRMING_SHARE * expected, 1), 1)
        # Confirmed people may be hidden; false people are not seen again.
        loss = TENTATIVE_LOSS * ((views == 0) & (expected > 0) & ~self._is_confirmed())
        tracks.evidence = np.maximum(tracks.evidence + gain - loss, 0)

    def _recognise(self, is_new: BoolArray) -> None:
        """Give newly confirmed tracks the identity of people who were lost."""
        if not is_new.any():
            return
        lost = self._is_confirmed() & (self._tracks.unseen_s(self._stamp_s) > LOST_S)
        pairs = track_merging.find_returned(self._tracks, is_new, lost, self._stamp_s)
        self._tracks.keep(track_merging.hand_over(self._tracks, pairs))

    def _check_matches(
        self, frames: Sequence[CameraPeople], matches: NDArray[np.intp], inside: BoolArray
    ) -> None:
        """
        Note how many of the people that the other cameras see each camera sees, too.

        Parameters
        ----------
        frames
            V frames.
        matches
            [T, V], of the first T tracks.
        inside
            [T or more, V], which tracks are in the images.
        """
        count = len(matches)
        recent = self._tracks.camera_seen_s[:count] >= self._stamp_s - RECENT_S
        columns = self._cameras.columns_of(frames)
        others = recent.sum(axis=1)[:, None] - recent[:, columns]
        expected = (others > 1) & self._is_confirmed()[:count, None] & inside[:count]
        found = (expected & (matches >= 0)).sum(axis=0).tolist()
        for v, own in enumerate(expected.sum(axis=0).tolist()):
            most = min(own, len(frames[v]))
            if most:
                share = min(found[v] / most, 1.0)
                self._cameras.checks.add_matches(int(columns[v]), share, self._step_s)

    def _check_excluded(self, frames: Sequence[CameraPeople]) -> None:
        """Compare the frames of excluded cameras with the tracks, which do not change."""
        columns = self._cameras.columns_of(frames)
        rays = rays_of(frames, self._stamp_s, self._cameras.noise_ratio[columns])
        tracks = self._tracks
        if not len(rays) or not len(tracks):
            return
        losses = self._losses(np.arange(len(tracks)), rays, columns, 0.0)
        matches = matching.assign(losses, self._handicap(), rays.camera_index, len(columns))
        self._check_matches(frames, matches, self._are_in_images(frames))
        views = estimation.views_of(rays, matches, np.zeros(matches.shape))
        agreement = estimation.agreement_of(tracks, views)
        recent = tracks.camera_seen_s >= self._stamp_s - RECENT_S
        several = recent.sum(axis=1)[:, None] - recent[:, columns] > 1
        self._add_offsets(agreement, (matches >= 0) & several, columns)

    def _add_offsets(
        self, agreement: estimation.Agreement, which: BoolArray, columns: NDArray[np.intp]
    ) -> None:
        """Note how well cameras agree with the tracks; for a mask [T, V] of views."""
        t, v = np.nonzero(which)
        self._cameras.checks.add_offsets(
            columns[v], agreement.offset_mm[t, v], agreement.reprojection_px[t, v], self._step_s
        )

    def camera_statuses(self) -> list[CameraStatus]:
        """Return the state of each camera that frames were given of, in order of their names."""
        return self._cameras.statuses()

    def _predict(self, stamp_s: float) -> None:
        step_s = stamp_s - self._stamp_s if np.isfinite(self._stamp_s) else 0.0
        if step_s > 0:
            self._step_s += (0.1 if self._step_s else 1.0) * (min(step_s, 1.0) - self._step_s)
            self._tracks.predict(min(step_s, MAX_STEP_S), stamp_s, self._noise, self._trunk)
        self._stamp_s = stamp_s

    def _is_confirmed(self) -> BoolArray:
        return self._tracks.evidence >= self.min_hits

    def _match(self, rays: Rays, columns: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the detection of each track in each camera of the set, [T, V]; -1 for none."""
        tracks = self._tracks
        if not len(tracks) or not len(rays):
            return np.full((len(tracks), len(columns)), -1)
        matches = np.full((len(tracks), len(columns)), -1)
        # Tracks that match nothing may have moved in an unexpected way: they get a wider gate.
        may_move = self._is_confirmed() & (tracks.unseen_s(self._stamp_s) <= LOST_S)
        handicap = self._handicap()
        for margin_mm in (0.0, UNEXPECTED_MM):
            t = np.flatnonzero((matches < 0).all(axis=1) & (may_move | (margin_mm == 0)))
            free = np.ones(len(rays), bool)
            free[matches[matches >= 0]] = False
            d = np.flatnonzero(free)
            if not len(t) or not len(d):
                break
            losses = self._losses(t, rays.select(d), columns, margin_mm)
            found = matching.assign(losses, handicap[t], rays.camera_index[d], len(columns))
            matches[t] = np.where(found >= 0, d[found], -1)
            if margin_mm:
                moved = t[(found >= 0).any(axis=1)]
                tracks.shared_mm2[moved] += margin_mm**2 * np.eye(3)
                tracks.position_mm2[moved] += margin_mm**2 * np.eye(3)
        return matches

    def _handicap(self) -> FloatArray:
        """Return the additional loss of each track in the competition for detections, [T]."""
        recent = self._tracks.camera_seen_s >= self._stamp_s - RECENT_S
        return SINGLE_VIEW_HANDICAP * (recent.sum(axis=1) < 2)

    def _losses(
        self,
        which: NDArray[np.intp],
        rays: Rays,
        columns: NDArray[np.intp],
        margin_mm: float,
    ) -> FloatArray:
        """Return the losses of detections for some tracks, [T, D]."""
        tracks = self._tracks
        penalty: FloatArray = TENTATIVE_PENALTY * ~self._is_confirmed()
        lost = tracks.unseen_s(self._stamp_s) > LOST_S
        penalty = penalty + LOST_PENALTY * lost
        shared_mm2 = tracks.shared_mm2[which] + margin_mm**2 * np.eye(3)
        variance_mm2 = np.trace(shared_mm2, axis1=1, axis2=2) / 3
        limit = np.minimum(LOST_STD_MM**2 / variance_mm2, 1)
        shared_mm2 *= np.where(lost[which], limit, 1)[:, None, None]
        predictions = matching.Predictions(
            tracks.position_mm[which],
            tracks.velocity_mm_s[which],
            np.trace(tracks.position_mm2[which], axis1=-2, axis2=-1) / 3 + margin_mm**2,
            shared_mm2,
            np.linalg.inv(shared_mm2),
            penalty[which],
        )
        losses = matching.match_losses(predictions, rays, self.skeleton.mirror)
        same = tracks.camera_ids[which][:, columns[rays.camera_index]] == rays.track_ids
        return losses - matching.CAMERA_TRACK_BONUS * (same & (rays.track_ids >= 0))

    def _correct(self, rays: Rays, matches: NDArray[np.intp], columns: NDArray[np.intp]) -> None:
        """Correct the tracks with their detections."""
        seen: BoolArray = np.asarray((matches >= 0).any(axis=1))
        if not seen.any():
            return
        tracks, matches = self._tracks.select(seen), matches[seen]
        since_s = self._stamp_s - tracks.camera_seen_s[:, columns]
        measured = estimation.views_of(rays, matches, since_s)
        views = with_learned_sizes(measured, tracks)
        tracks.shift(*estimation.estimate_shift(tracks, views))
        views = self._estimate(tracks, views)
        learn_sizes(tracks, measured)
        self._note_agreement(tracks, matches, columns, views)
        self._note(tracks, rays, matches, columns)
        self._tracks.replace(seen, tracks)

    def _unmirrored(
        self, tracks: WorldTracks, views: estimation.Views, mirrored: BoolArray
    ) -> estimation.Views:
        """Exchange left and right in the views that confuse them, or in the tracks."""
        mirror = self.skeleton.mirror
        # If most of several views disagree with the track, the track is wrong.
        votes, count = mirrored.sum(axis=0), views.seen.sum(axis=0)
        wrong = (votes > count / 2) & (votes > 1)
        tracks.set_joints(wrong, mirror)
        return estimation.mirrored_views(views, mirrored ^ wrong, mirror)

    def _estimate(self, tracks: WorldTracks, views: estimation.Views) -> estimation.Views:
        """Correct the joints of tracks; return the views with left and right as in the tracks."""
        residuals = estimation.residuals(tracks, views)
        mirrored = estimation.find_mirrored(tracks, views, residuals, self.skeleton.mirror)
        if mirrored.any():
            views = self._unmirrored(tracks, views, mirrored)
            residuals = estimation.residuals(tracks, views)
        information = np.linalg.inv(tracks.position_mm2)
        found = estimation.estimate_joints(
            tracks, views, residuals, information, max(2 * self.smoothing, 0.1)
        )
        count, joints = tracks.joint_confidence.shape
        tracks.correct(
            found.points_mm.reshape(count, joints, 3),
            information,
            found.information.reshape(count, joints, 3, 3),
            found.prior_weight.reshape(count, joints),
        )
        agreement = found.agreement.reshape(-1, count, joints)
        confidence = (agreement * views.confidence).max(axis=0)
        accepted = agreement.max(axis=0) > 0.25
        tracks.joint_seen_s[accepted] = self._stamp_s
        tracks.joint_confidence = np.where(
            accepted,
            confidence,
            tracks.joint_confidence * np.exp(-self._step_s / JOINT_MEMORY_S),
        )
        return views

    def _note(
        self,
        tracks: WorldTracks,
        rays: Rays,
        matches: NDArray[np.intp],
        columns: NDArray[np.intp],
    ) -> None:
        """Store which cameras saw the tracks."""
        tracks.hits += 1
        tracks.last_seen_s[:] = self._stamp_s
        found = matches >= 0
        for stored, values in (
            (tracks.camera_seen_s, self._stamp_s),
            (tracks.camera_ids, rays.track_ids[matches]),
        ):
            stored[:, columns] = np.where(found, values, stored[:, columns])

    def _note_agreement(
        self,
        tracks: WorldTracks,
        matches: NDArray[np.intp],
        columns: NDArray[np.intp],
        views: estimation.Views,
    ) -> None:
        """Store how well the detections agree with the tracks that they were used for."""
        found = matches >= 0
        agreement = estimation.agreement_of(tracks, views)
        self._cameras.update_noise(
            agreement.noise,
            found & (found.sum(axis=1) > 1)[:, None],
            columns,
            self._step_s,
        )
        recent = tracks.camera_seen_s >= self._stamp_s - RECENT_S
        others = recent.sum(axis=1)[:, None] - recent[:, columns]
        self._add_offsets(agreement, found & (others > 1), columns)
        tracks.reprojection_px[:, columns] = np.where(
            found, agreement.reprojection_px, tracks.reprojection_px[:, columns]
        )

    def _start(self, rays: Rays, columns: NDArray[np.intp]) -> None:
        """Start tracks for detections that match no track."""
        if not len(rays):
            return
        groups = matching.group_detections(rays)
        grouped = np.concatenate([*groups, np.zeros(0, np.intp)]).astype(np.intp)
        for group in groups:
            matches = np.full((1, len(columns)), -1)
            matches[0, rays.camera_index[group]] = group
            self._start_tracks(rays, matches, columns)
        alone = np.setdiff1d(np.arange(len(rays)), grouped)
        alone = alone[(rays.distances_mm[alone] > 0).any(axis=1)]
        if len(alone):
            matches = np.full((len(alone), len(columns)), -1)
            matches[np.arange(len(alone)), rays.camera_index[alone]] = alone
            self._start_tracks(rays, matches, columns)

    def _start_tracks(
        self, rays: Rays, matches: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> None:
        """Start tracks of people, from their detections [T, V] in the cameras of the set."""
        views = estimation.views_of(rays, matches, np.full(matches.shape, np.inf))
        start = estimation.starts_of(views, matches.T >= 0)
        usable = start.usable
        if not usable.all():
            if usable.any():
                self._start_tracks(rays, matches[usable], columns)
            return
        count = len(matches)
        new = WorldTracks.started(
            self.next_id + np.arange(count),
            self._stamp_s,
            start.position_mm,
            start.position_mm2,
            start.shared_mm2,
            len(self._cameras),
        )
        self.next_id += count
        seen = views.seen.any(axis=0)
        new.joint_seen_s[seen] = self._stamp_s
        new.joint_confidence[:] = np.where(views.seen, views.confidence, 0).max(axis=0)
        # A single detection agrees with the track that it starts.
        if (matches >= 0).sum(axis=1).max() > 1:
            self._note_agreement(new, matches, columns, views)
        self._note(new, rays, matches, columns)
        self._tracks.append(new)

    def _delete(self) -> None:
        """Delete tracks that were lost for too long, and duplicates."""
        tracks = self._tracks
        patience_s = np.where(
            self._is_confirmed(), self.max_lost, max(TENTATIVE_LOST_S, 2.5 * self._step_s)
        )
        tracks.keep(tracks.unseen_s(self._stamp_s) <= patience_s)
        excluded = self._cameras.are_inconsistent()
        if excluded.any():
            # People that only excluded cameras have seen recently.
            recent = tracks.camera_seen_s >= self._stamp_s - self.max_lost
            is_trusted = (recent & ~excluded).any(axis=1)
            tracks.keep(np.asarray(is_trusted | ~(recent & excluded).any(axis=1)))
        recent = tracks.unseen_s(self._stamp_s) <= LOST_S
        pairs = track_merging.find_duplicates(tracks, recent, self._stamp_s)
        if pairs:
            tracks.keep(track_merging.merge(tracks, pairs))

    def _confirmed(self) -> FusedPeople:
        tracks, stamp_s = self._tracks, self._stamp_s
        names = self._cameras.names
        if not len(tracks):
            return FusedPeople.empty(self.skeleton, stamp_s, names)
        which = np.flatnonzero(self._is_confirmed())
        seen_by = tracks.camera_seen_s[which] >= stamp_s - RECENT_S
        return FusedPeople(
            self.skeleton,
            stamp_s,
            names,
            tracks.ids[which],
            tracks.position_mm[which],
            tracks.velocity_mm_s[which],
            tracks.position_mm2[which] + tracks.shared_mm2[which][:, None],
            tracks.joint_confidence[which].mean(axis=1),
            tracks.joint_confidence[which],
            stamp_s - tracks.first_seen_s[which],
            tracks.last_seen_s[which] == stamp_s,
            seen_by,
            tracks.reprojection_px[which] * seen_by,
        )


def _are_in_image(frame: CameraPeople, points_mm: FloatArray) -> BoolArray:
    """Return which points [K, 3] of the world are well inside the image of a frame, [K]."""
    in_camera_mm = frame.camera.from_world(points_mm)
    # Without an image size, the principal point is taken for the middle.
    width, height = 2 * frame.camera.intrinsic_matrix[:2, 2]
    shape = frame.image_shape or (height, width)
    points_px = frame.camera.project(in_camera_mm)
    return (in_camera_mm[:, 2] > MIN_DISTANCE_MM) & inside_image(points_px, shape)
