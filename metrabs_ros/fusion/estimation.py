"""
Estimation of tracks from the detections that match them.

First the shift of the whole person since the prediction is estimated, which absorbs the errors
that its joints share.  Then left and right are exchanged where a camera has confused them.  Last,
each joint is triangulated with its prediction as the prior.
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
        [T, V, J].
    origins_mm
        [T, V, 3].
    directions
        [T, V, J, 3].
    confidence
        [T, V, J].
    distances_mm
        [T, V, J], monocular; 0 if they are not known.
    scale_std, focal_px, noise, time_offset_s
        [T, V].
    since_s
        [T, V], time since the camera saw the track before.
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
    return Views(
        seen=(matches >= 0)[..., None] & rays.seen[matches],
        origins_mm=rays.origins_mm[matches],
        directions=rays.directions[matches],
        confidence=rays.confidence[matches],
        distances_mm=rays.distances_mm[matches],
        scale_std=rays.scale_std[matches],
        focal_px=rays.focal_px[matches],
        noise=rays.noise[matches],
        time_offset_s=rays.time_offset_s[matches],
        since_s=since_s,
    )


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Distances of the joints of T tracks from the rays of V cameras."""

    offset_mm: FloatArray
    along_mm: FloatArray
    std_mm: FloatArray


def residuals(tracks: WorldTracks, views: Views) -> Residuals:
    """Return the offsets [T, V, J, 3], the distances along the rays and deviations [T, V, J]."""
    from_origin_mm = tracks.position_mm[:, None] - views.origins_mm[:, :, None]
    if views.time_offset_s.any():
        moved_mm = views.time_offset_s[..., None, None] * tracks.velocity_mm_s[:, None]
        from_origin_mm = from_origin_mm + moved_mm
    along_mm = np.einsum('tvjk,tvjk->tvj', from_origin_mm, views.directions)
    offset_mm = along_mm[..., None] * views.directions - from_origin_mm
    std_mm = lateral_std_mm(
        views.confidence, along_mm, views.focal_px[..., None], views.noise[..., None]
    )
    return Residuals(offset_mm, along_mm, std_mm)


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
    own_mm2 = np.trace(tracks.position_mm2, axis1=-2, axis2=-1)[:, None] / 3
    variance_mm2 = found.std_mm**2 + own_mm2
    usable = views.seen & (found.along_mm > MIN_DISTANCE_MM)
    squared = np.einsum('tvjk,tvjk->tvj', found.offset_mm, found.offset_mm)
    spread_mm2 = np.trace(shared_mm2, axis1=-2, axis2=-1)[:, None, None] / 3
    weight = usable / (variance_mm2 * (1 + squared / (9 * (variance_mm2 + spread_mm2))) ** 2)
    total = np.maximum(weight.sum(axis=2), 1e-12)
    mean_mm = np.einsum('tvj,tvjk->tvk', weight, found.offset_mm) / total[..., None]
    sight = np.einsum('tvj,tvjk->tvk', weight, views.directions)
    sight /= np.maximum(np.sqrt((sight * sight).sum(axis=-1, keepdims=True)), 1e-12)
    # The rays of the joints differ, so that the mean is not quite across the mean ray.
    mean_mm -= (mean_mm * sight).sum(axis=-1, keepdims=True) * sight
    # Image points: information across the line of sight.
    has_view = usable.any(axis=2)
    fresh = np.clip(views.since_s / CORRELATION_S, 0.1, 1)
    across = has_view * fresh / (SHARED_STD_MM**2 + 1 / total)
    # One camera that contradicts the prediction must not drag the person away from the others.
    off_mm2 = (mean_mm * mean_mm).sum(axis=-1)
    across /= (1 + off_mm2 / (9 * (SHARED_STD_MM**2 + spread_mm2[..., 0]))) ** 2
    # Monocular poses: information along it.
    known = usable & (views.distances_mm > 0)
    counts = np.maximum(known.sum(axis=2), 1)
    distance_mm = (known * found.along_mm).sum(axis=2) / counts
    nearer_mm = (known * (views.distances_mm - found.along_mm)).sum(axis=2) / counts
    along = known.any(axis=2) / np.maximum(views.scale_std * distance_mm, 1.0) ** 2
    followed = along * np.clip(views.since_s / CORRELATION_S, 0.1, 1)
    along = along * np.clip(views.since_s / DEPTH_CORRELATION_S, 0.01, 1)
    outer = sight[..., None] * sight[..., None, :]
    information = np.linalg.inv(shared_mm2)
    information += across.sum(axis=1)[:, None, None] * np.eye(3)
    information -= np.einsum('tv,tvkl->tkl', across, outer)
    force = np.einsum('tv,tvk->tk', across, mean_mm)
    force += np.einsum('tv,tvk->tk', followed * nearer_mm, sight)
    following = information + np.einsum('tv,tvkl->tkl', followed, outer)
    information += np.einsum('tv,tvkl->tkl', along, outer)
    shift_mm = np.linalg.solve(following, force[..., None])[..., 0]
    return shift_mm, np.linalg.inv(information)


def find_mirrored(tracks: WorldTracks, views: Views, mirror: NDArray[np.intp]) -> BoolArray:
    """
    Return which joints fit much better with left and right exchanged, [T, V, J].

    Parameters
    ----------
    tracks, views
        T tracks, and their detections in V cameras.
    mirror
        [J], index of each joint's counterpart.
    """
    plain = _losses(tracks, views)
    paired = mirror != np.arange(len(mirror))
    both = views.seen & views.seen[..., mirror] & paired
    plain = np.where(both, plain, 0)
    plain += plain[..., mirror]
    suspicious = plain > MIN_MIRROR_LOSS
    if not suspicious.any():
        return suspicious
    exchanged = np.where(both, _losses(tracks, mirrored_views(views, suspicious, mirror)), 0)
    exchanged += exchanged[..., mirror]
    return suspicious & (exchanged < MIRROR_SHARE * plain)


def mirrored_views(views: Views, which: BoolArray, mirror: NDArray[np.intp]) -> Views:
    """Return the detections with left and right of the joints [T, V, J] of a mask exchanged."""
    return dataclasses.replace(
        views,
        directions=np.where(which[..., None], views.directions[:, :, mirror], views.directions),
        confidence=np.where(which, views.confidence[:, :, mirror], views.confidence),
        distances_mm=np.where(which, views.distances_mm[:, :, mirror], views.distances_mm),
    )


def _losses(tracks: WorldTracks, views: Views) -> FloatArray:
    """Return the squared residuals [T, V, J] in standard deviations, with a limit."""
    found = residuals(tracks, views)
    own_mm2 = np.trace(tracks.position_mm2, axis1=-2, axis2=-1)[:, None] / 3
    squared = np.einsum('tvjk,tvjk->tvj', found.offset_mm, found.offset_mm)
    return np.minimum(squared / (found.std_mm**2 + own_mm2), MAX_PAIR_LOSS)


def estimate_joints(
    tracks: WorldTracks, views: Views, prior_information: FloatArray, noise_factor: float
) -> Triangulated:
    """
    Triangulate the joints of tracks with their predictions as the prior.

    Parameters
    ----------
    tracks
        T tracks.
    views
        Their detections in V cameras.
    prior_information
        [T, J, 3, 3].
    noise_factor
        Factor of the standard deviations of the measurements for the weight of the prior.

    Returns
    -------
    T * J points.
    """
    count, cameras, joints = views.seen.shape
    found = residuals(tracks, views)
    known = views.seen & (views.distances_mm > 0) & (found.along_mm > MIN_DISTANCE_MM)
    # Monocular poses are scaled about the camera to the predicted person: their shape is reliable.
    scale = masked_median(found.along_mm / np.maximum(views.distances_mm, 1.0), known)
    shape_mm = relative_depth_std_mm(views.confidence)
    fresh = np.clip(views.since_s / SHAPE_CORRELATION_S, 0.02, 1)[..., None]
    fresh_points = np.clip(views.since_s / CORRELATION_S, 0.1, 1)[..., None] / noise_factor**2
    # Rays of earlier stamps pass where the joint was; move them by its velocity.
    origins_mm = np.broadcast_to(views.origins_mm[:, :, None], views.directions.shape)
    if views.time_offset_s.any():
        moved_mm = views.time_offset_s[..., None, None] * tracks.velocity_mm_s[:, None]
        origins_mm = origins_mm - moved_mm

    def flat(values: FloatArray) -> FloatArray:
        """Return [T * J, V, ...] of [T, V, J, ...]."""
        values = np.swapaxes(values, 1, 2)
        return np.ascontiguousarray(values).reshape(count * joints, cameras, *values.shape[3:])

    rays = PointRays(
        flat(origins_mm),
        flat(views.directions),
        flat(np.maximum(found.std_mm, 1.0)),
        flat(views.seen * fresh_points),
        flat(scale[..., None] * views.distances_mm),
        flat(known * fresh / (noise_factor * shape_mm) ** 2),
    )
    return triangulate(
        rays,
        tracks.position_mm.reshape(-1, 3),
        prior_information.reshape(-1, 3, 3),
    )


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
    size_mm = np.sqrt(np.einsum('tvjk,tvjk->tvj', found.offset_mm, found.offset_mm))
    angles = size_mm / np.maximum(found.along_mm, MIN_DISTANCE_MM)
    noise = masked_median(size_mm / found.std_mm, views.seen) * views.noise / MEDIAN_RESIDUAL
    weight = views.seen / found.std_mm**2
    mean_mm = np.einsum('tvj,tvjk->tvk', weight, found.offset_mm)
    mean_mm /= np.maximum(weight.sum(axis=2), 1e-12)[..., None]
    offset_mm = np.sqrt((mean_mm * mean_mm).sum(axis=-1))
    reprojection_px = views.focal_px * masked_median(angles, views.seen)
    return Agreement(reprojection_px, noise, offset_mm)


def start_of(rays: Rays) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """
    Return the state of a new track: positions, covariances of the joints and of the shared error.

    Parameters
    ----------
    rays
        Detections of one person, each of another camera.

    Returns
    -------
    [J, 3], [J, 3, 3], [3, 3]; None if the position cannot be determined.
    """
    views = len(rays)
    seen = rays.seen
    sight = (seen[..., None] * rays.directions).sum(axis=1)
    sight /= np.maximum(np.linalg.norm(sight, axis=-1, keepdims=True), 1e-9)
    middle_mm, shared_mm2 = _middle_of(rays, sight)
    if middle_mm is None:
        return None
    # Each joint starts at the distance of the middle, or at that of the monocular pose.
    reach_mm = ((middle_mm - rays.origins_mm) * sight).sum(axis=-1)
    if (reach_mm < MIN_DISTANCE_MM).any():
        return None
    known = seen & (rays.distances_mm > 0)
    mean_mm = (known * rays.distances_mm).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    scale = np.where(mean_mm > 0, reach_mm / np.maximum(mean_mm, 1.0), 1.0)
    distances_mm = np.where(known, scale[:, None] * rays.distances_mm, reach_mm[:, None])
    std_mm = np.where(known, relative_depth_std_mm(rays.confidence), START_STD_MM)
    points_mm = rays.origins_mm[:, None] + distances_mm[..., None] * rays.directions
    weight = seen / std_mm**2
    count = weight.sum(axis=0)
    prior_mm = (weight[..., None] * points_mm).sum(axis=0) / np.maximum(count, 1e-12)[:, None]
    prior_mm[count == 0] = middle_mm
    joints = seen.shape[1]
    weak = np.tile(np.eye(3) / (2 * START_STD_MM) ** 2, (joints, 1, 1))
    lateral_mm = lateral_std_mm(
        rays.confidence, distances_mm, rays.focal_px[:, None], rays.noise[:, None]
    )
    found = triangulate(
        PointRays(
            np.broadcast_to(rays.origins_mm, (joints, views, 3)),
            np.swapaxes(rays.directions, 0, 1),
            lateral_mm.T,
            seen.T.astype(float),
            distances_mm.T,
            (seen / std_mm**2).T,
        ),
        prior_mm,
        weak,
    )
    return found.points_mm, np.linalg.inv(found.information + weak), shared_mm2


def _middle_of(rays: Rays, sight: FloatArray) -> tuple[FloatArray | None, FloatArray]:
    """Return the position [3] of a person seen by one or several cameras, and its covariance."""
    # Normal equations of the point nearest to the mean rays; monocular distances add a term.
    origins_mm = rays.origins_mm
    across = np.eye(3) - sight[..., None] * sight[..., None, :]
    known = rays.seen & (rays.distances_mm > 0)
    mean_mm = (known * rays.distances_mm).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    has_distance = known.any(axis=1)
    along = has_distance / np.maximum(rays.scale_std * mean_mm, 50.0) ** 2
    outer = along[:, None, None] * sight[..., None] * sight[..., None, :]
    information = (across / SHARED_STD_MM**2 + outer).sum(axis=0)
    if np.linalg.cond(information) > 1e6:
        return None, information
    anchors_mm = origins_mm + mean_mm[:, None] * sight
    force = ((across / SHARED_STD_MM**2 + outer) @ anchors_mm[..., None]).sum(axis=0)[:, 0]
    covariance = np.linalg.inv(information)
    return covariance @ force, covariance
