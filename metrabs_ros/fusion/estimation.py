"""
Estimation of tracks from the detections that match them.

First the shift of the whole person since the prediction is estimated, which absorbs the errors
that its joints share.  Then left and right are exchanged where a camera has confused them.  Last,
each joint is triangulated with its prediction as the prior.

Arrays for T tracks in V cameras have the axes coordinates, cameras, tracks, joints, which makes
the arithmetic several times faster than with the coordinates last.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, masked_median
from metrabs_ros.fusion.matching import SHARED_STD_MM
from metrabs_ros.fusion.rays import MIN_DISTANCE_MM, Rays, lateral_std_mm, relative_depth_std_mm
from metrabs_ros.fusion.triangulation import PointRays, Triangulated, triangulate
from metrabs_ros.fusion.world_tracks import WorldTracks

CORRELATION_S = 0.1
"""Time over which the errors of image points are correlated."""
DEPTH_CORRELATION_S = 1.0
"""
Time over which the errors of monocular distances are correlated.

These are mostly a constant factor, so that a person who only one camera sees can follow the
changes of the distance faster than its uncertainty decreases.
"""
SHAPE_CORRELATION_S = 0.3
"""Time over which the errors of monocular distances relative to the person's are correlated."""
MIRROR_SHARE, MIN_MIRROR_LOSS = 0.3, 8.0
"""Sides are exchanged if this reduces a high loss of a pair of joints to this share."""
MAX_PAIR_LOSS = 40.0
MEDIAN_RESIDUAL = 1.18
"""Median residual of normal noise in two dimensions, in standard deviations."""
START_STD_MM = 250.0
"""Standard deviation of a new track's joints along the line of sight, relative to its trunk."""


@dataclasses.dataclass(frozen=True)
class Views:
    """
    Detections of T tracks in V cameras.

    Parameters
    ----------
    seen
        [V, T, J].
    origins_mm
        [3, V, T].
    directions
        [3, V, T, J].
    confidence
        [V, T, J].
    distances_mm
        [V, T, J], monocular; 0 if they are not known.
    scale_std, focal_px, noise, time_offset_s
        [V, T].
    since_s
        [V, T], time since the camera saw the track before.
    """

    seen: BoolArray
    origins_mm: FloatArray
    directions: FloatArray
    confidence: FloatArray
    distances_mm: FloatArray
    scale_std: FloatArray
    focal_px: FloatArray
    noise: FloatArray
    time_offset_s: FloatArray
    since_s: FloatArray


def views_of(rays: Rays, matches: NDArray[np.intp], since_s: FloatArray) -> Views:
    """
    Return the detections of tracks.

    Parameters
    ----------
    rays
        D detections, one or more.
    matches
        [T, V], indices of detections; -1 for none.
    since_s
        [T, V].
    """
    which = matches.T
    confidence = rays.confidence[which]
    return Views(
        seen=(which >= 0)[..., None] & (confidence > 0),
        origins_mm=_coordinates_first(rays.origins_mm[which]),
        directions=_coordinates_first(rays.directions[which]),
        confidence=confidence,
        distances_mm=rays.distances_mm[which],
        scale_std=rays.scale_std[which],
        focal_px=rays.focal_px[which],
        noise=rays.noise[which],
        time_offset_s=rays.time_offset_s[which],
        since_s=since_s.T,
    )


def _coordinates_first(vectors: FloatArray) -> FloatArray:
    """Return vectors [..., 3] as [3, ...]."""
    return np.ascontiguousarray(np.moveaxis(vectors, -1, 0))


def _inner(one: FloatArray, other: FloatArray) -> FloatArray:
    """Return the inner products of vectors [3, ...]."""
    product: FloatArray = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Distances of the joints of T tracks from the rays of V cameras."""

    offset_mm: FloatArray
    along_mm: FloatArray
    std_mm: FloatArray


def residuals(tracks: WorldTracks, views: Views) -> Residuals:
    """Return the offsets [3, V, T, J], the distances along the rays and deviations [V, T, J]."""
    from_origin_mm = _coordinates_first(tracks.position_mm)[:, None] - views.origins_mm[..., None]
    if views.time_offset_s.any():
        from_origin_mm += _moved_mm(tracks, views)
    along_mm = _inner(from_origin_mm, views.directions)
    offset_mm = along_mm * views.directions - from_origin_mm
    std_mm = lateral_std_mm(
        views.confidence, along_mm, views.focal_px[..., None], views.noise[..., None]
    )
    return Residuals(offset_mm, along_mm, std_mm)


def _moved_mm(tracks: WorldTracks, views: Views) -> FloatArray:
    """Return how far joints move from the common stamp to those of the views, [3, V, T, J]."""
    velocity_mm_s = _coordinates_first(tracks.velocity_mm_s)[:, None]
    return views.time_offset_s[..., None] * velocity_mm_s


def estimate_shift(tracks: WorldTracks, views: Views) -> tuple[FloatArray, FloatArray]:
    """
    Return the shifts [T, 3] of whole persons, and the covariance matrices of their shared error.

    Parameters
    ----------
    tracks
        T tracks.
    views
        Their detections.
    """
    shared_mm2 = tracks.shared_mm2
    found = residuals(tracks, views)
    variance_mm2 = found.std_mm**2 + _own_mm2(tracks)
    usable = views.seen & (found.along_mm > MIN_DISTANCE_MM)
    squared = _inner(found.offset_mm, found.offset_mm)
    spread_mm2 = np.trace(shared_mm2, axis1=-2, axis2=-1) / 3
    robust = 1 + squared / (9 * (variance_mm2 + spread_mm2[:, None]))
    weight = usable / (variance_mm2 * robust * robust)
    total = np.maximum(weight.sum(axis=-1), 1e-12)
    mean_mm = (weight * found.offset_mm).sum(axis=-1) / total
    sight = (weight * views.directions).sum(axis=-1)
    sight /= np.maximum(np.sqrt(_inner(sight, sight)), 1e-12)
    # The rays of the joints differ, so that the mean is not quite across the mean ray.
    mean_mm -= _inner(mean_mm, sight) * sight
    # Image points: information across the line of sight.
    has_view = usable.any(axis=-1)
    fresh = np.clip(views.since_s / CORRELATION_S, 0.1, 1)
    across = has_view * fresh / (SHARED_STD_MM**2 + 1 / total)
    # One camera that contradicts the prediction must not drag the person away from the others.
    off_mm2 = _inner(mean_mm, mean_mm)
    across /= (1 + off_mm2 / (9 * (SHARED_STD_MM**2 + spread_mm2))) ** 2
    # Monocular poses: information along it.
    known = usable & (views.distances_mm > 0)
    counts = np.maximum(known.sum(axis=-1), 1)
    distance_mm = (known * found.along_mm).sum(axis=-1) / counts
    nearer_mm = (known * (views.distances_mm - found.along_mm)).sum(axis=-1) / counts
    along = known.any(axis=-1) / np.maximum(views.scale_std * distance_mm, 1.0) ** 2
    followed = along * fresh
    along = along * np.clip(views.since_s / DEPTH_CORRELATION_S, 0.01, 1)
    rows, columns = sight.transpose(2, 0, 1), sight.transpose(2, 1, 0)
    weights = np.stack([-across, followed, along]).transpose(0, 2, 1)[:, :, None]
    lost, followed_information, along_information = (rows * weights) @ columns
    information = np.linalg.inv(shared_mm2) + lost
    information += across.sum(axis=0)[:, None, None] * np.eye(3)
    force = (across * mean_mm + followed * nearer_mm * sight).sum(axis=1).T
    shift_mm = np.linalg.solve(information + followed_information, force[..., None])[..., 0]
    return shift_mm, np.linalg.inv(information + along_information)


def _own_mm2(tracks: WorldTracks) -> FloatArray:
    """Return the mean variances per axis of joints relative to the body, [T, J]."""
    variance_mm2: FloatArray = np.trace(tracks.position_mm2, axis1=-2, axis2=-1) / 3
    return variance_mm2


def find_mirrored(
    tracks: WorldTracks, views: Views, found: Residuals, mirror: NDArray[np.intp]
) -> BoolArray:
    """
    Return which joints fit much better with left and right exchanged, [V, T, J].

    Parameters
    ----------
    tracks, views
        T tracks, and their detections in V cameras.
    found
        The residuals of the detections.
    mirror
        [J], index of each joint's counterpart.
    """
    plain = _losses(tracks, found)
    paired = mirror != np.arange(len(mirror))
    both = views.seen & views.seen[..., mirror] & paired
    plain = np.where(both, plain, 0)
    plain += plain[..., mirror]
    doubtful = plain > MIN_MIRROR_LOSS
    if not doubtful.any():
        return doubtful
    exchanged = _losses(tracks, residuals(tracks, mirrored_views(views, doubtful, mirror)))
    exchanged = np.where(both, exchanged, 0)
    exchanged += exchanged[..., mirror]
    return doubtful & (exchanged < MIRROR_SHARE * plain)


def mirrored_views(views: Views, which: BoolArray, mirror: NDArray[np.intp]) -> Views:
    """Return the detections with left and right of the joints [V, T, J] of a mask exchanged."""
    return dataclasses.replace(
        views,
        directions=np.where(which, views.directions[..., mirror], views.directions),
        confidence=np.where(which, views.confidence[..., mirror], views.confidence),
        distances_mm=np.where(which, views.distances_mm[..., mirror], views.distances_mm),
    )


def _losses(tracks: WorldTracks, found: Residuals) -> FloatArray:
    """Return the squared residuals [V, T, J] in standard deviations, with a limit."""
    squared = _inner(found.offset_mm, found.offset_mm)
    return np.minimum(squared / (found.std_mm**2 + _own_mm2(tracks)), MAX_PAIR_LOSS)


def estimate_joints(
    tracks: WorldTracks,
    views: Views,
    found: Residuals,
    prior_information: FloatArray,
    noise_factor: float,
) -> Triangulated:
    """
    Triangulate the joints of tracks with their predictions as the prior.

    Parameters
    ----------
    tracks
        T tracks.
    views
        Their detections in V cameras.
    found
        The residuals of the detections.
    prior_information
        [T, J, 3, 3].
    noise_factor
        Factor of the standard deviations of the measurements for the weight of the prior.

    Returns
    -------
    T * J points.
    """
    known = views.seen & (views.distances_mm > 0) & (found.along_mm > MIN_DISTANCE_MM)
    # Monocular poses are scaled about the camera to the predicted person: their shape is reliable.
    scale = masked_median(found.along_mm / np.maximum(views.distances_mm, 1.0), known)
    shape_mm = relative_depth_std_mm(views.confidence)
    fresh = np.clip(views.since_s / SHAPE_CORRELATION_S, 0.02, 1)[..., None]
    fresh_points = np.clip(views.since_s / CORRELATION_S, 0.1, 1)[..., None] / noise_factor**2
    # Rays of earlier stamps pass where the joint was; move them by its velocity.
    origins_mm = np.broadcast_to(views.origins_mm[..., None], views.directions.shape)
    if views.time_offset_s.any():
        origins_mm = origins_mm - _moved_mm(tracks, views)
    rays = _point_rays(
        origins_mm,
        views.directions,
        np.maximum(found.std_mm, 1.0),
        views.seen * fresh_points,
        scale[..., None] * views.distances_mm,
        known * fresh / (noise_factor * shape_mm) ** 2,
    )
    return triangulate(
        rays, tracks.position_mm.reshape(-1, 3), prior_information.reshape(-1, 3, 3)
    )


def _point_rays(*fields: FloatArray) -> PointRays:
    """Return the rays of T * J points, from the fields for T tracks, [..., V, T, J]."""
    return PointRays(*(own.reshape(*own.shape[:-2], -1) for own in fields))


@dataclasses.dataclass(frozen=True)
class Agreement:
    """
    How well the views of T tracks agree with the estimates.

    Parameters
    ----------
    reprojection_px
        [T, V], median distance of image points from projected joints: angles times the focal
        length, which are pixels near the centre of the image.  0 where there is no view.
    noise
        [T, V], median residual in units of the median of expected noise.
    offset_mm
        [T, V], distance of the whole person from the estimate, across the line of sight.
    """

    reprojection_px: FloatArray
    noise: FloatArray
    offset_mm: FloatArray


def agreement_of(tracks: WorldTracks, views: Views) -> Agreement:
    """Return how well detections agree with the tracks that they were used for."""
    found = residuals(tracks, views)
    size_mm = np.sqrt(_inner(found.offset_mm, found.offset_mm))
    angles = size_mm / np.maximum(found.along_mm, MIN_DISTANCE_MM)
    angle, ratio = masked_median(np.stack([angles, size_mm / found.std_mm]), views.seen)
    weight = views.seen / found.std_mm**2
    mean_mm = (weight * found.offset_mm).sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1e-12)
    return Agreement(
        (views.focal_px * angle).T,
        (views.noise * ratio / MEDIAN_RESIDUAL).T,
        np.sqrt(_inner(mean_mm, mean_mm)).T,
    )


@dataclasses.dataclass(frozen=True)
class Starts:
    """
    States of T new tracks.

    Parameters
    ----------
    usable
        [T], whether the position can be determined.
    position_mm, position_mm2
        [T, J, 3] and [T, J, 3, 3], positions and covariance matrices of the joints.
    shared_mm2
        [T, 3, 3], covariance matrices of the error that all joints share.
    """

    usable: BoolArray
    position_mm: FloatArray
    position_mm2: FloatArray
    shared_mm2: FloatArray


def starts_of(views: Views, has_view: BoolArray) -> Starts:
    """
    Return the states of new tracks.

    Parameters
    ----------
    views
        Detections of T people in V cameras.
    has_view
        [V, T], which cameras see the person; one or more.
    """
    seen, directions = views.seen, views.directions
    sight = (seen * directions).sum(axis=-1)
    sight /= np.maximum(np.sqrt(_inner(sight, sight)), 1e-9)
    known = seen & (views.distances_mm > 0)
    counts = np.maximum(known.sum(axis=-1), 1)
    mean_mm = (known * views.distances_mm).sum(axis=-1) / counts
    middle_mm, shared_mm2, usable = _middles_of(views, has_view, sight, mean_mm)
    # Each joint starts at the distance of the middle, or at that of the monocular pose.
    reach_mm = _inner(middle_mm.T[:, None] - views.origins_mm, sight)
    usable &= (~has_view | (reach_mm >= MIN_DISTANCE_MM)).all(axis=0)
    reach_mm = np.clip(reach_mm, MIN_DISTANCE_MM, None)
    scale = np.where(mean_mm > 0, reach_mm / np.maximum(mean_mm, 1.0), 1.0)
    distances_mm = np.where(known, scale[..., None] * views.distances_mm, reach_mm[..., None])
    std_mm = np.where(known, relative_depth_std_mm(views.confidence), START_STD_MM)
    origins_mm = np.broadcast_to(views.origins_mm[..., None], directions.shape)
    weight = seen / std_mm**2
    count = weight.sum(axis=0)
    prior_mm = (weight * (origins_mm + distances_mm * directions)).sum(axis=1)
    prior_mm /= np.maximum(count, 1e-12)
    prior_mm = np.where(count > 0, prior_mm, middle_mm.T[..., None])
    weak = np.eye(3) / (2 * START_STD_MM) ** 2
    lateral_mm = lateral_std_mm(
        views.confidence, distances_mm, views.focal_px[..., None], views.noise[..., None]
    )
    rays = _point_rays(
        origins_mm, directions, lateral_mm, seen.astype(float), distances_mm, weight
    )
    found = triangulate(rays, prior_mm.reshape(3, -1).T, np.tile(weak, (count.size, 1, 1)))
    return Starts(
        usable,
        found.points_mm.reshape(*count.shape, 3),
        np.linalg.inv(found.information + weak).reshape(*count.shape, 3, 3),
        shared_mm2,
    )


def _middles_of(
    views: Views, has_view: BoolArray, sight: FloatArray, mean_mm: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """
    Return positions of T people, their covariance matrices, and whether they are determined.

    Parameters
    ----------
    views, has_view
        See `starts_of`.
    sight
        [3, V, T], mean directions.
    mean_mm
        [V, T], mean monocular distances; 0 if they are not known.
    """
    # Normal equations of the point nearest to the mean rays; monocular distances add a term.
    across = has_view / SHARED_STD_MM**2
    along = (mean_mm > 0) / np.maximum(views.scale_std * mean_mm, 50.0) ** 2
    # [V, T, 3, 3].
    outer = np.moveaxis(sight[:, None] * sight, (0, 1), (2, 3))
    matrices = across[..., None, None] * np.eye(3) + (along - across)[..., None, None] * outer
    information = matrices.sum(axis=0)
    determined = np.linalg.cond(information) <= 1e6
    information[~determined] = np.eye(3)
    anchors_mm = np.moveaxis(views.origins_mm + mean_mm * sight, 0, -1)
    force = (matrices @ anchors_mm[..., None]).sum(axis=0)
    covariance = np.linalg.inv(information)
    return (covariance @ force)[..., 0], covariance, determined
