"""
Extrinsic calibration of several cameras from the people that they see.

Tracks of different cameras are matched without known extrinsics (`relative_poses`), or with given
ones.  Cameras that see the same people form a tree, which yields initial poses; bundle adjustment
refines them.  The size of the scene follows from the monocular distances, and the vertical and the
floor from the people's bodies and feet.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.fusion import bundle_adjustment
from metrabs_ros.fusion.adjustment_residuals import (
    DataWeights,
    Estimate,
    Observations,
    Prior,
    cauchy,
    geman_mcclure,
    prior_errors,
    ray_residuals,
)
from metrabs_ros.fusion.camera_graph import (
    Pair,
    camera_positions,
    chained_poses,
    connected_cameras,
    reasons_left_out,
    relative_pose,
    shared_times_s,
)
from metrabs_ros.fusion.camera_tracks import (
    BODY_PARTS,
    CalibrationError,
    CameraTracks,
    camera_tracks,
)
from metrabs_ros.fusion.floor import Floor, estimate_floor
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.relative_poses import (
    CommonInstants,
    common_instants,
    estimate_relative_pose,
    score_relative_pose,
)
from metrabs_ros.fusion.shared_people import people_of_tracks, shared_observations

MIN_SPREAD_MM = 150.0
"""People who move less than this are at one place."""
INITIAL_CORRELATION = 30.0
"""Number of correlated residuals that count as an independent one, before it is measured."""
SCALE_TIME_S = 6.0
"""Errors of monocular distances persist for this time, and are the same for all joints."""
FIXED_ROTATION_STD, FIXED_POSITION_STD_MM = 1e-6, 1e-3
DEFAULT_ROTATION_STD_DEGREES, DEFAULT_POSITION_STD_MM = 1.0, 50.0
"""Standard deviations of given extrinsics."""
MIN_INLIERS = 0.6
"""Cameras of which fewer joints fit are doubtful."""
MAX_INCONSISTENT_STD = 4.0


@dataclasses.dataclass(frozen=True)
class CalibratedCamera:
    """
    The result for one camera.

    Parameters
    ----------
    name, camera
        The camera, with its pose in the world (z up, millimetres).
    rotation_std_degrees, position_std_mm
        Standard deviations: relative to the first camera, up to the common scale; or, of refined
        extrinsics, in the given world frame.
    error_px
        Root mean square of the reprojection errors, without outliers.
    inliers
        Share of the joints that are not outliers.
    overlaps_s
        For how long this camera and each other one see the same people, summed over people.
    """

    name: str
    camera: Camera
    rotation_std_degrees: float
    position_std_mm: float
    error_px: float
    inliers: float
    overlaps_s: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Path:
    """
    The way of one person.

    Parameters
    ----------
    times_s
        [T], since the first instant.
    positions_mm
        [T, 3], midpoint of the hips, world frame.
    """

    times_s: FloatArray
    positions_mm: FloatArray


@dataclasses.dataclass(frozen=True)
class Calibration:
    """
    Extrinsics of several cameras.

    Parameters
    ----------
    cameras
        The calibrated cameras.
    left_out
        Names of the other cameras, with reasons.
    paths
        Paths of the people.
    scale_std
        Standard deviation of the common scale, as a fraction.
    tilt_std_degrees, floor_std_mm
        Standard deviations of the vertical and of the floor; NaN if the world frame was given.
    warnings
        What makes the result doubtful.
    """

    cameras: tuple[CalibratedCamera, ...]
    left_out: Mapping[str, str]
    paths: tuple[Path, ...]
    scale_std: float
    tilt_std_degrees: float = np.nan
    floor_std_mm: float = np.nan
    warnings: tuple[str, ...] = ()


def calibrate_cameras(frames: Iterable[CameraPeople]) -> Calibration:
    """
    Estimate the extrinsics of cameras without known ones.

    The origin of the world is on the floor below the first camera, z points up, and x in the
    horizontal direction in which this camera looks.

    Parameters
    ----------
    frames
        People of all cameras with track ids and 3D poses; the poses of the cameras are ignored.

    Raises
    ------
    CalibrationError
        If no cameras see the same moving people.
    """
    tracks, step_s = camera_tracks(frames)
    _check_seen(tracks)
    _check_motion(tracks)
    commons = _all_common_instants(tracks)
    relative = {pair: estimate_relative_pose(common) for pair, common in commons.items()}
    known = {pair: pose for pair, pose in relative.items() if pose is not None}
    order, rotations, translations_mm = chained_poses(tracks, known, step_s)
    left_out = reasons_left_out(tracks, order, known, step_s)
    chosen = [tracks[i] for i in order]
    unknown = np.full(len(order), np.inf)
    rotation_std, position_std_mm = unknown.copy(), unknown.copy()
    rotation_std[0], position_std_mm[0] = FIXED_ROTATION_STD, FIXED_POSITION_STD_MM
    prior = Prior(
        rotations, camera_positions(rotations, translations_mm), rotation_std, position_std_mm
    )
    result = _adjusted(chosen, prior, step_s)
    floor = estimate_floor(result.estimate.points_mm)
    covariance, scale_std = _without_scale(result.covariance, result.estimate)
    result = dataclasses.replace(
        result, estimate=_on_floor(result.estimate, floor), covariance=covariance
    )
    return dataclasses.replace(
        _summary(chosen, result, step_s),
        left_out=left_out,
        scale_std=scale_std,
        tilt_std_degrees=float(np.degrees(floor.tilt_std)),
        floor_std_mm=floor.height_std_mm,
    )


def refine_cameras(
    frames: Iterable[CameraPeople],
    rotation_std_degrees: float = DEFAULT_ROTATION_STD_DEGREES,
    position_std_mm: float = DEFAULT_POSITION_STD_MM,
) -> Calibration:
    """
    Refine given extrinsics; the world frame stays the given one.

    Parameters
    ----------
    frames
        People of all cameras with track ids and 3D poses; the cameras have the given poses.
    rotation_std_degrees, position_std_mm
        Standard deviations of the given poses: observations of people outweigh them only if they
        are more certain.

    Raises
    ------
    CalibrationError
        If no cameras see the same people with the given extrinsics.
    """
    for name, value in (
        ('rotation_std_degrees', rotation_std_degrees),
        ('position_std_mm', position_std_mm),
    ):
        if not 0 < value < np.inf:
            raise CalibrationError(f'{name} is {value}; it must be more than 0 and finite')
    tracks, step_s = camera_tracks(frames)
    _check_seen(tracks)
    extrinsics = np.stack([_rigid(own.camera.extrinsic_matrix) for own in tracks])
    rotations, translations_mm = extrinsics[:, :3, :3], extrinsics[:, :3, 3]
    commons = _all_common_instants(tracks)
    known = {
        (a, b): score_relative_pose(common, *relative_pose(rotations, translations_mm, a, b))
        for (a, b), common in commons.items()
    }
    order = connected_cameras(tracks, shared_times_s(known, step_s))
    left_out = reasons_left_out(tracks, order, known, step_s)
    chosen = [tracks[i] for i in order]
    count = len(order)
    prior = Prior(
        rotations[order],
        camera_positions(rotations, translations_mm)[order],
        np.full(count, np.radians(rotation_std_degrees)),
        np.full(count, float(position_std_mm)),
    )
    result = _adjusted(chosen, prior, step_s)
    calibration = dataclasses.replace(_summary(chosen, result, step_s), left_out=left_out)
    return dataclasses.replace(
        calibration, warnings=calibration.warnings + _inconsistent(chosen, result, prior)
    )


@dataclasses.dataclass(frozen=True)
class _Adjusted:
    """Result of the adjustment; see `bundle_adjustment`."""

    observations: Observations
    estimate: Estimate
    covariance: FloatArray
    residuals: FloatArray
    stride: float


def _check_seen(tracks: Sequence[CameraTracks]) -> None:
    """Raise an error if fewer than two cameras see people."""
    seeing = [own for own in tracks if len(own)]
    if len(seeing) < 2:
        names = ', '.join(own.camera_name for own in seeing) or 'no camera'
        raise CalibrationError(
            f'people with track ids are seen by {names} only; the calibration needs at least two '
            'cameras that see the same people'
        )


def _check_motion(tracks: Sequence[CameraTracks]) -> None:
    """Raise an error if there are no 3D poses, or people do not move."""
    roots_mm = [np.nanmean(own.poses_mm, axis=1) for own in tracks if len(own) and _has_poses(own)]
    if len(roots_mm) < 2:
        raise CalibrationError(
            'the people have no 3D poses; without given extrinsics, people with monocular 3D '
            'poses are needed, as those of metrabs_ros annotate'
        )
    spread_mm = max(np.linalg.norm(_robust_std(own)) for own in roots_mm)
    if spread_mm < MIN_SPREAD_MM:
        raise CalibrationError(
            f'all people stay at one place (they move by {spread_mm:.0f} mm); record people who '
            'walk around for a minute'
        )


def _has_poses(tracks: CameraTracks) -> bool:
    return bool(np.isfinite(tracks.poses_mm).any(axis=(1, 2)).all())


def _robust_std(positions_mm: FloatArray) -> FloatArray:
    """Return the spread of positions [M, 3] along each axis, without the extreme ones."""
    low, high = np.nanpercentile(positions_mm, (5, 95), axis=0)
    return (high - low) / 3.3


def _all_common_instants(tracks: Sequence[CameraTracks]) -> dict[Pair, CommonInstants]:
    pairs = itertools.combinations(range(len(tracks)), 2)
    commons = {(a, b): common_instants(tracks[a], tracks[b]) for a, b in pairs}
    return {pair: common for pair, common in commons.items() if len(common)}


def _rigid(extrinsic: FloatArray) -> FloatArray:
    """Return an extrinsic matrix with an exact rotation."""
    left, _, right = np.linalg.svd(extrinsic[:3, :3])
    rotation = left @ right
    result = np.eye(4)
    result[:3, :3] = rotation
    position_mm = np.linalg.inv(extrinsic)[:3, 3]
    result[:3, 3] = -rotation @ position_mm
    return result


def _adjusted(tracks: Sequence[CameraTracks], prior: Prior, step_s: float) -> _Adjusted:
    """Adjust all cameras; matches are made again with the poses of the first adjustment."""
    rotations = prior.rotations
    translations_mm = -np.einsum('cij,cj->ci', rotations, prior.positions_mm)
    commons = _all_common_instants(tracks)
    weights = DataWeights(1 / INITIAL_CORRELATION, 1 / INITIAL_CORRELATION)
    for loss in (cauchy, geman_mcclure):
        people = people_of_tracks(tracks, commons, rotations, translations_mm)
        observations, stride = shared_observations(tracks, people)
        weights = dataclasses.replace(
            weights, distances=_distance_weight(observations, stride * step_s)
        )
        points_mm = bundle_adjustment.triangulated(observations, rotations, translations_mm)
        estimate = Estimate(
            rotations, translations_mm, points_mm, np.zeros(len(observations.person_scale_std))
        )
        estimate, _ = bundle_adjustment.adjust(observations, estimate, prior, weights, loss)
        rotations, translations_mm = estimate.rotations, estimate.translations_mm
    residuals = ray_residuals(observations, estimate)
    variance, correlated = bundle_adjustment.information_factor(observations, residuals, step_s)
    weights = DataWeights(1 / (variance * correlated), weights.distances)
    estimate, covariance = bundle_adjustment.adjust(observations, estimate, prior, weights)
    residuals = ray_residuals(observations, estimate)
    return _Adjusted(observations, estimate, covariance, residuals / np.sqrt(variance), stride)


def _distance_weight(observations: Observations, step_s: float) -> float:
    """Return the weight of residuals of distances, which are correlated for seconds."""
    lengths = np.bincount(observations.people)
    instants = min(SCALE_TIME_S / step_s, float(lengths[lengths > 0].mean()))
    return 1 / (len(BODY_PARTS) * max(instants, 1.0))


def _without_scale(covariance: FloatArray, estimate: Estimate) -> tuple[FloatArray, float]:
    """Return the covariance without the common scale about the first camera, and its deviation."""
    cameras = len(estimate.rotations)
    scaling, measure = np.zeros(len(covariance)), np.zeros(len(covariance))
    for c, own_mm in enumerate(estimate.translations_mm):
        scaling[6 * c + 3 : 6 * c + 6] = measure[6 * c + 3 : 6 * c + 6] = own_mm
    scaling[6 * cameras :] = 1.0
    length = float(measure @ scaling)
    projection = np.eye(len(covariance)) - np.outer(scaling, measure) / length
    scale_std = np.sqrt(max(float(measure @ covariance @ measure), 0.0)) / length
    return projection @ covariance @ projection.T, float(scale_std)


def _on_floor(estimate: Estimate, floor: Floor) -> Estimate:
    """Return the estimate in the world frame of `calibrate_cameras`."""
    position_mm = estimate.positions_mm[0]
    origin_mm = position_mm - (floor.up @ position_mm - floor.height_mm) * floor.up
    _, down, forward = estimate.rotations[0]
    # A camera that looks straight down or up has no horizontal direction but that of its image.
    ahead = forward if abs(floor.up @ forward) < 0.95 else -down * np.sign(-floor.up @ forward)
    x = ahead - (floor.up @ ahead) * floor.up
    x = x / np.linalg.norm(x)
    to_world = np.stack([x, np.cross(floor.up, x), floor.up])
    rotations = estimate.rotations @ to_world.T
    positions_mm = (estimate.positions_mm - origin_mm) @ to_world.T
    return Estimate(
        rotations,
        -np.einsum('cij,cj->ci', rotations, positions_mm),
        (estimate.points_mm - origin_mm) @ to_world.T,
        estimate.log_scales,
    )


def _summary(tracks: Sequence[CameraTracks], result: _Adjusted, step_s: float) -> Calibration:
    estimate, observations = result.estimate, result.observations
    inlier = np.asarray((result.residuals**2).sum(axis=-1) < bundle_adjustment.INLIER**2)
    raw = ray_residuals(observations, estimate)
    error = raw * observations.std[..., None]
    views = np.asarray(observations.seen.any(axis=2))
    cameras = []
    for c, own in enumerate(tracks):
        extrinsic = np.eye(4)
        extrinsic[:3, :3], extrinsic[:3, 3] = estimate.rotations[c], estimate.translations_mm[c]
        at = 6 * c
        variances = np.maximum(np.diag(result.covariance)[at : at + 6], 0)
        focal_px = np.sqrt(np.prod(np.diag(own.camera.intrinsic_matrix)[:2]))
        errors_px = focal_px * np.linalg.norm(error[:, c][inlier[:, c]], axis=-1)
        seen = observations.seen[:, c].sum()
        cameras.append(
            CalibratedCamera(
                own.camera_name,
                dataclasses.replace(
                    own.camera, extrinsic_matrix=extrinsic, world_up_vector=np.array([0, 0, 1.0])
                ),
                float(np.degrees(np.sqrt(variances[:3].sum()))),
                float(np.sqrt(variances[3:].sum())),
                float(np.sqrt(np.mean(errors_px**2))) if len(errors_px) else np.nan,
                float(inlier[:, c].sum() / max(seen, 1)),
                {
                    other.camera_name: float(result.stride * step_s * both)
                    for k, other in enumerate(tracks)
                    if k != c and (both := (views[:, c] & views[:, k]).sum())
                },
            )
        )
    hips = [i for i, (part, _) in enumerate(BODY_PARTS) if part == 'hip']
    paths = tuple(
        Path(
            step_s * observations.instants[rows],
            estimate.points_mm[rows][:, hips].mean(axis=1),
        )
        for rows in (
            np.flatnonzero(observations.people == k) for k in range(len(estimate.log_scales))
        )
    )
    doubtful = tuple(
        f'{own.name}: only {own.inliers:.0%} of the joints fit; the camera may be wrong, or its '
        'clock'
        for own in cameras
        if own.inliers < MIN_INLIERS
    )
    return Calibration(tuple(cameras), {}, paths, 0.0, warnings=doubtful)


def _inconsistent(
    tracks: Sequence[CameraTracks], result: _Adjusted, prior: Prior
) -> tuple[str, ...]:
    """Return a warning for each camera whose given pose does not fit the people."""
    turns, shifts_mm = prior_errors(result.estimate, prior)
    warnings = []
    for own, turn, shift_mm, turn_std, shift_std_mm in zip(
        tracks, turns, shifts_mm, prior.rotation_std, prior.position_std_mm
    ):
        angle, distance_mm = np.linalg.norm(turn), np.linalg.norm(shift_mm)
        if (
            angle > MAX_INCONSISTENT_STD * turn_std
            or distance_mm > MAX_INCONSISTENT_STD * shift_std_mm
        ):
            warnings.append(
                f'{own.camera_name} was turned by {np.degrees(angle):.1f} degrees and moved by '
                f'{distance_mm:.0f} mm, far more than the given deviations: check its given pose'
            )
    return tuple(warnings)
