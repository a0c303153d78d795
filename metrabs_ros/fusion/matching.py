"""
Matching of detections to tracks, and of the detections of several cameras to each other.

Detections are compared with predicted tracks by the distances between rays and joints, after the
shift of the whole person that is the most likely one under the uncertainty of the track: a track
that only one camera has seen may be far off along the line of sight, but not across it.

Detections without a track are grouped by the distances between the rays of the same joints.  All
pairs in a group must agree (complete linkage), so that the groups are consistent over cycles of
cameras.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, StructOfArrays, masked_median
from metrabs_ros.fusion.rays import MIN_DISTANCE_MM, Rays, lateral_std_mm
from metrabs_ros.fusion.triangulation import intersections
from metrabs_ros.tracking.association import Pairs, assign_nearest_first

MAX_LOSS = 9.0
"""Loss of a joint that does not fit, in squared standard deviations."""
MATCH_LOSS = 4.5
"""Detections match a track if their mean loss is lower."""
SHARED_STD_MM = 25.0
"""Error that the image points of all joints share, for example due to the camera's pose."""
SHIFT_GATE = 4.0
"""Gate of the shift of the whole person, in standard deviations."""
MIN_JOINTS = 4
"""Minimum number of joints of a comparison."""
SHIFT_WEIGHT, DEPTH_WEIGHT = 0.15, 0.15
"""Weights of squared deviations of the shift and of the monocular distance in the loss."""
CAMERA_TRACK_BONUS = 1.0
"""Reduction of the loss for the camera's own track that was matched before."""
MIRROR_CHECK_LOSS = 1.5
"""Left and right are compared if the loss is higher."""
MIRROR_LOSS = 1.0
"""Additional loss of joints that fit with left and right exchanged only."""

PAIR_LOSS = 3.0
"""Two detections without a track match if their mean loss is lower."""
MIN_PAIR_JOINTS = 5
NEAR_MM = 450.0
"""Maximum distance between the middles of a person and of a detection without their errors."""
MIN_RAY_MM, MAX_RAY_MM = 300.0, 50_000.0
MAX_EXTENT_MM = 1_300.0
"""Maximum distance of joints from the middle of a person."""
PENDING_STD_MM_S = 1_000.0
"""Standard deviation of the motion between the stamps of two detections without a track."""


@dataclasses.dataclass(frozen=True)
class Predictions(StructOfArrays):
    """
    Tracks at the stamp of a frame set.

    Parameters
    ----------
    position_mm, velocity_mm_s
        [T, J, 3].
    variance_mm2
        [T, J], mean variance per axis of the single joints.
    shared_mm2
        [T, 3, 3], covariance matrices of the error that all joints share.
    shared_information
        [T, 3, 3], inverse of it.
    penalty
        [T], additional loss of the track.
    """

    position_mm: FloatArray
    velocity_mm_s: FloatArray
    variance_mm2: FloatArray
    shared_mm2: FloatArray
    shared_information: FloatArray
    penalty: FloatArray


def match_losses(tracks: Predictions, rays: Rays, mirror: NDArray[np.intp]) -> FloatArray:
    """
    Return the mean losses of detections for tracks, [T, D]; infinite if they do not match.

    Parameters
    ----------
    tracks
        T tracks.
    rays
        D detections.
    mirror
        [J], index of each joint's counterpart on the other side of the body.
    """
    losses = np.full((len(tracks.penalty), len(rays)), np.inf)
    t, d = np.nonzero(_are_near(tracks, rays))
    if len(t):
        losses[t, d] = _losses_of_pairs(tracks.select(t), rays.select(d), mirror)
    return losses


def _are_near(tracks: Predictions, rays: Rays) -> NDArray[np.bool_]:
    """Return which detections may match tracks, from the middles of the bodies only, [T, D]."""
    # The middles of the joints that are seen: a camera may see only the upper body.
    share = rays.confidence / np.maximum(rays.confidence.sum(axis=1, keepdims=True), 1e-9)
    sight = _unit(np.einsum('dj,djk->dk', share, rays.directions))
    from_origin_mm = share @ tracks.position_mm - rays.origins_mm
    along_mm = np.einsum('tdk,dk->td', from_origin_mm, sight)
    apart_mm2 = np.einsum('tdk,tdk->td', from_origin_mm, from_origin_mm) - along_mm**2
    # An uncertain distance does not move the person aside.
    along_mm2 = np.einsum('tdk,dk->td', sight @ tracks.shared_mm2, sight)
    total_mm2 = np.trace(tracks.shared_mm2, axis1=1, axis2=2)[:, None]
    reach_mm = NEAR_MM + SHIFT_GATE * np.sqrt(np.maximum(total_mm2 - along_mm2, 0))
    behind_mm = NEAR_MM + SHIFT_GATE * np.sqrt(total_mm2)
    near = (along_mm > -behind_mm) & (apart_mm2 < reach_mm**2)
    # The monocular distance, of the joints with one.
    known = rays.confidence * (rays.distances_mm > 0)
    amount = known.sum(axis=1)
    measured_mm = (known * rays.distances_mm).sum(axis=1) / np.maximum(amount, 1e-9)
    depth_std_mm = np.sqrt((rays.scale_std * along_mm) ** 2 + total_mm2)
    off_mm = np.abs(along_mm - measured_mm)
    return near & ((amount == 0) | (off_mm < NEAR_MM + SHIFT_GATE * depth_std_mm))


def _losses_of_pairs(tracks: Predictions, rays: Rays, mirror: NDArray[np.intp]) -> FloatArray:
    """Return the losses of K pairs of a track and a detection, [K]; infinite for no match."""
    # The coordinates come first, [3, K, J]: that makes the arithmetic several times faster.
    directions = np.ascontiguousarray(rays.directions.transpose(2, 0, 1))
    moved_mm = rays.time_offset_s[:, None, None] * tracks.velocity_mm_s
    from_origin_mm = tracks.position_mm + moved_mm - rays.origins_mm[:, None]
    from_origin_mm = np.ascontiguousarray(from_origin_mm.transpose(2, 0, 1))
    along_mm = _inner(from_origin_mm, directions)
    offset_mm = along_mm * directions - from_origin_mm
    std_mm = lateral_std_mm(rays.confidence, along_mm, rays.focal_px[:, None], rays.noise[:, None])
    variance_mm2 = std_mm * std_mm + tracks.variance_mm2
    usable = rays.seen & (along_mm > MIN_DISTANCE_MM)
    weight = usable / variance_mm2
    # The shift of the person, from a robust mean over the joints.
    inverse = tracks.shared_information
    middle = _unit((weight * directions).sum(axis=2).T)
    across = (np.eye(3) - middle[:, :, None] * middle[:, None]) / SHARED_STD_MM**2
    to_shift = np.linalg.inv(inverse + across) / SHARED_STD_MM**2
    squared = _inner(offset_mm, offset_mm) / variance_mm2
    for _ in range(2):
        robust = weight / (1 + squared / MAX_LOSS)
        total = np.maximum(robust.sum(axis=1), 1e-12)
        mean_mm = ((robust * offset_mm).sum(axis=2) / total).T
        # The rays of the joints differ, so that the mean is not quite across the mean ray.
        mean_mm = mean_mm - _dot(mean_mm, middle)[:, None] * middle
        shift_mm = (to_shift @ mean_mm[..., None])[..., 0]
        rest_mm = offset_mm - shift_mm.T[..., None]
        rest_mm += _inner(shift_mm.T[..., None], directions) * directions
        squared = _inner(rest_mm, rest_mm) / variance_mm2
    confidence = usable * rays.confidence
    amount = np.maximum(confidence.sum(axis=1), 1e-9)
    losses = (confidence * np.minimum(squared, MAX_LOSS)).sum(axis=1) / amount
    deviation = np.einsum('kc,kce,ke->k', shift_mm, inverse, shift_mm)
    maybe = np.flatnonzero((losses > MIRROR_CHECK_LOSS) & (deviation < SHIFT_GATE**2))
    if len(maybe):
        losses[maybe] = _mirror_tolerant_losses(
            tracks.select(maybe), rays.select(maybe), mirror, squared[maybe], shift_mm[maybe]
        )
    depth = _depth_deviations(tracks, rays, along_mm, usable)
    losses = losses + SHIFT_WEIGHT * deviation + tracks.penalty
    losses += DEPTH_WEIGHT * np.minimum(depth, MAX_LOSS)
    possible = (deviation < SHIFT_GATE**2) & (depth < SHIFT_GATE**2)
    possible &= usable.sum(axis=1) >= np.clip(rays.seen.sum(axis=1), 1, MIN_JOINTS)
    return np.where(possible, losses, np.inf)


def _mirror_tolerant_losses(
    tracks: Predictions,
    rays: Rays,
    mirror: NDArray[np.intp],
    squared: FloatArray,
    shift_mm: FloatArray,
) -> FloatArray:
    """
    Return the losses of K pairs if left and right of each joint may be exchanged.

    Parameters
    ----------
    tracks, rays
        Track and detection of each pair.
    mirror
        [J].
    squared
        [K, J], squared residuals without exchange.
    shift_mm
        [K, 3], shifts of the persons.
    """
    from_origin_mm = tracks.position_mm[:, mirror] + (shift_mm - rays.origins_mm)[:, None]
    from_origin_mm += rays.time_offset_s[:, None, None] * tracks.velocity_mm_s[:, mirror]
    along_mm = _dot(from_origin_mm, rays.directions)
    rest_mm = along_mm[..., None] * rays.directions - from_origin_mm
    std_mm = lateral_std_mm(rays.confidence, along_mm, rays.focal_px[:, None], rays.noise[:, None])
    mirrored = _dot(rest_mm, rest_mm) / (std_mm**2 + tracks.variance_mm2[:, mirror])
    plain = np.minimum(squared, MAX_LOSS)
    # Both joints of a pair are exchanged, or none.
    mirrored = np.minimum(mirrored, MAX_LOSS) + MIRROR_LOSS
    is_better = mirrored + mirrored[:, mirror] < plain + plain[:, mirror]
    both = np.where(is_better, mirrored, plain)
    amount = np.maximum(rays.confidence.sum(axis=1), 1e-9)
    return (rays.confidence * both).sum(axis=1) / amount


def _depth_deviations(
    tracks: Predictions, rays: Rays, along_mm: FloatArray, usable: NDArray[np.bool_]
) -> FloatArray:
    """Return the squared deviations of monocular distances from the tracks, [K]."""
    known = usable & (rays.distances_mm > 0)
    count = np.maximum(known.sum(axis=1), 1)
    distance_mm = (known * along_mm).sum(axis=1) / count
    measured_mm = (known * rays.distances_mm).sum(axis=1) / count
    variance_mm2 = (rays.scale_std * distance_mm) ** 2
    variance_mm2 += np.trace(tracks.shared_mm2, axis1=1, axis2=2)
    deviation = (distance_mm - measured_mm) ** 2 / np.maximum(variance_mm2, 1e-9)
    return np.where(known.any(axis=1), deviation, 0)


def _unit(vectors: FloatArray) -> FloatArray:
    """Return vectors [..., 3] scaled to unit length; zero vectors stay zero."""
    return vectors / np.maximum(np.sqrt(_dot(vectors, vectors)), 1e-12)[..., None]


def _inner(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [3, ...]."""
    product: FloatArray = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


def _dot(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [..., 3]."""
    product: FloatArray = np.einsum('...c,...c->...', one, other)
    return product


def assign(
    losses: FloatArray, handicap: FloatArray, camera_index: NDArray[np.intp], cameras: int
) -> NDArray[np.intp]:
    """
    Assign each track at most one detection of each camera, and each detection to one track.

    Parameters
    ----------
    losses
        [T, D].
    handicap
        [T], added to the losses where several tracks compete for a detection.
    camera_index
        [D].
    cameras
        Number of cameras V.

    Returns
    -------
    [T, V], indices of detections; -1 for none.
    """
    matches = np.full(len(losses) * cameras, -1)
    t, d = np.nonzero(losses < MATCH_LOSS)
    # Each track can have a detection of each camera.
    places, zero = t * cameras + camera_index[d], np.zeros(len(t))
    pairs = assign_nearest_first(Pairs(places, d, zero, zero, zero), losses[t, d] + handicap[t])
    matches[pairs.track_indices] = pairs.detection_indices
    return matches.reshape(len(losses), cameras)


def pair_losses(rays: Rays) -> FloatArray:
    """Return the mean losses of pairs of D detections, [D, D]; infinite if they cannot match."""
    count = len(rays)
    losses = np.full((count, count), np.inf)
    i, j = np.nonzero(np.triu(rays.camera_index[:, None] != rays.camera_index))
    if not len(i):
        return losses
    directions = np.ascontiguousarray(rays.directions.transpose(2, 0, 1))
    origins_mm = rays.origins_mm.T[..., None]
    one, other = directions[:, i], directions[:, j]
    one_mm, other_mm, _ = intersections(origins_mm[:, i], one, origins_mm[:, j], other)
    first_mm = origins_mm[:, i] + one_mm * one
    second_mm = origins_mm[:, j] + other_mm * other
    gap_mm = first_mm - second_mm
    gap_mm2 = _inner(gap_mm, gap_mm)
    both = rays.seen[i] & rays.seen[j]
    inside = (np.minimum(one_mm, other_mm) > MIN_RAY_MM) & (
        np.maximum(one_mm, other_mm) < MAX_RAY_MM
    )
    variance_mm2 = sum(
        lateral_std_mm(
            rays.confidence[d], along_mm, rays.focal_px[d][:, None], rays.noise[d][:, None]
        )
        ** 2
        for d, along_mm in ((i, one_mm), (j, other_mm))
    )
    motion_mm = PENDING_STD_MM_S * (rays.time_offset_s[i] - rays.time_offset_s[j])
    squared = gap_mm2 / (variance_mm2 + motion_mm[:, None] ** 2)
    points_mm = (first_mm + second_mm) / 2
    enough = (both & inside).sum(axis=1) >= MIN_PAIR_JOINTS
    from_middle_mm = points_mm - masked_median(points_mm, both & inside)[..., None]
    near = ~(both & inside) | (_inner(from_middle_mm, from_middle_mm) < MAX_EXTENT_MM**2)
    squared = np.where(inside & near, np.minimum(squared, MAX_LOSS), MAX_LOSS)
    confidence = both * np.minimum(rays.confidence[i], rays.confidence[j])
    mean = (confidence * squared).sum(axis=1) / np.maximum(confidence.sum(axis=1), 1e-9)
    depth = np.zeros(len(i))
    for which, along_mm in ((i, one_mm), (j, other_mm)):
        known = both & inside & (rays.distances_mm[which] > 0)
        total = np.maximum((known * along_mm).sum(axis=1), 1.0)
        share = (known * rays.distances_mm[which]).sum(axis=1) / total - 1
        depth = np.maximum(depth, known.any(axis=1) * (share / rays.scale_std[which]) ** 2)
    possible = enough & (depth < SHIFT_GATE**2)
    losses[i, j] = losses[j, i] = np.where(
        possible, mean + DEPTH_WEIGHT * np.minimum(depth, MAX_LOSS), np.inf
    )
    return losses


def group_detections(rays: Rays) -> list[NDArray[np.intp]]:
    """
    Return groups of two or more detections of the same person, each of another camera.

    Parameters
    ----------
    rays
        D detections.

    Returns
    -------
    Indices of the detections of each group; larger losses come later.
    """
    losses = pair_losses(rays)
    i, j = np.nonzero(np.triu(losses < PAIR_LOSS))
    groups: dict[int, list[int]] = {d: [d] for d in range(len(rays))}
    group_of = list(range(len(rays)))
    for k in np.argsort(losses[i, j], kind='stable').tolist():
        one, other = group_of[i[k]], group_of[j[k]]
        if one == other:
            continue
        between = losses[np.ix_(groups[one], groups[other])]
        # Two detections of one camera have infinite losses.
        if between.max() < 1.5 * PAIR_LOSS and between.mean() < PAIR_LOSS:
            groups[one] += groups.pop(other)
            for d in groups[one]:
                group_of[d] = one
    return [np.array(sorted(own)) for own in groups.values() if len(own) > 1]
