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
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.fusion import bundle_adjustment
from metrabs_ros.fusion.bundle_adjustment import DataWeights, Estimate, Observations, Prior
from metrabs_ros.fusion.camera_tracks import (
    BODY_PARTS,
    CalibrationError,
    CameraTracks,
    camera_tracks,
)
from metrabs_ros.fusion.floor import Floor, estimate_floor
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.rays import POINT_STD_PX
from metrabs_ros.fusion.relative_poses import (
    MIN_TRACK_SCORE,
    CommonInstants,
    RelativePose,
    common_instants,
    estimate_relative_pose,
    score_relative_pose,
)
from metrabs_ros.placement.uncertainty import LATERAL_STD, LOW_CONFIDENCE_FACTOR, STATURE_MM

MIN_OVERLAP_S = 1.0
"""Cameras are connected if they see the same people for at least this time in total."""
MIN_SPREAD_MM = 150.0
"""People who move less than this are at one place."""
MAX_OBSERVED = 1000
"""Maximum number of people, over all instants, in the adjustment."""
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
Pair = tuple[int, int]


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
    order, rotations, translations_mm = _chained(tracks, commons, known, step_s)
    left_out = _left_out(tracks, order, known, step_s)
    chosen = [tracks[i] for i in order]
    unknown = np.full(len(order), np.inf)
    rotation_std, position_std_mm = unknown.copy(), unknown.copy()
    rotation_std[0], position_std_mm[0] = FIXED_ROTATION_STD, FIXED_POSITION_STD_MM
    prior = Prior(rotations, _positions(rotations, translations_mm), rotation_std, position_std_mm)
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
        Standard deviations of the given poses: what the people tell outweighs them only if it is
        more certain.

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
        (a, b): score_relative_pose(common, *_relative(rotations, translations_mm, a, b))
        for (a, b), common in commons.items()
    }
    order = _connected(tracks, _overlaps_s(known, step_s))
    left_out = _left_out(tracks, order, known, step_s)
    chosen = [tracks[i] for i in order]
    count = len(order)
    prior = Prior(
        rotations[order],
        _positions(rotations, translations_mm)[order],
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


def _overlaps_s(poses: Mapping[Pair, RelativePose], step_s: float) -> dict[Pair, float]:
    """Return for how long the cameras of each pair see the same people."""
    return {
        pair: float(step_s * (pose.scores > MIN_TRACK_SCORE).sum()) for pair, pose in poses.items()
    }


def _connected(tracks: Sequence[CameraTracks], overlaps_s: Mapping[Pair, float]) -> list[int]:
    """Return the indices of the largest group of connected cameras, in their order."""
    parents = list(range(len(tracks)))
    for (a, b), overlap_s in overlaps_s.items():
        if overlap_s >= MIN_OVERLAP_S:
            _join(parents, a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(tracks)):
        groups.setdefault(_root(parents, i), []).append(i)
    largest = max(groups.values(), key=len)
    if len(largest) < 2:
        longest_s = max(overlaps_s.values(), default=0.0)
        raise CalibrationError(
            f'no two cameras see the same people for {MIN_OVERLAP_S:g} s (at most '
            f'{longest_s:.1f} s); record people who walk through the views of several cameras, '
            'and check that the clocks of the cameras agree'
        )
    return largest


def _root(parents: list[int], i: int) -> int:
    while parents[i] != i:
        i = parents[i]
    return i


def _join(parents: list[int], a: int, b: int) -> None:
    parents[_root(parents, b)] = _root(parents, a)


def _chained(
    tracks: Sequence[CameraTracks],
    commons: Mapping[Pair, CommonInstants],
    poses: Mapping[Pair, RelativePose],
    step_s: float,
) -> tuple[list[int], FloatArray, FloatArray]:
    """Return the connected cameras and their poses relative to the first of them."""
    overlaps_s = _overlaps_s(poses, step_s)
    order = _connected(tracks, overlaps_s)
    known: dict[int, tuple[FloatArray, FloatArray]] = {order[0]: (np.eye(3), np.zeros(3))}
    while len(known) < len(order):
        # The maximum spanning tree.
        a, b = max(
            (pair for pair in overlaps_s if (pair[0] in known) != (pair[1] in known)),
            key=overlaps_s.__getitem__,
        )
        rotation, translation_mm = poses[a, b].rotation, poses[a, b].translation_mm
        if a not in known:
            a, b = b, a
            rotation, translation_mm = rotation.T, -rotation.T @ translation_mm
        base_rotation, base_mm = known[a]
        known[b] = rotation @ base_rotation, rotation @ base_mm + translation_mm
    rotations, translations_mm = zip(*(known[i] for i in order))
    return order, np.stack(rotations), np.stack(translations_mm)


def _left_out(
    tracks: Sequence[CameraTracks],
    order: Sequence[int],
    poses: Mapping[Pair, RelativePose],
    step_s: float,
) -> dict[str, str]:
    overlaps_s = _overlaps_s(poses, step_s)
    reasons = {}
    for i, own in enumerate(tracks):
        if i not in order:
            longest_s = max(overlaps_s.get((min(i, k), max(i, k)), 0.0) for k in order)
            reasons[own.camera_name] = (
                f'it sees the same people as another camera for {longest_s:.1f} s; at least '
                f'{MIN_OVERLAP_S:g} s are needed'
                if len(own)
                else 'it sees no people with track ids'
            )
    return reasons


def _relative(
    rotations: FloatArray, translations_mm: FloatArray, a: int, b: int
) -> tuple[FloatArray, FloatArray]:
    """Return rotation and translation from one camera to another."""
    rotation = rotations[b] @ rotations[a].T
    return rotation, translations_mm[b] - rotation @ translations_mm[a]


def _positions(rotations: FloatArray, translations_mm: FloatArray) -> FloatArray:
    return -np.einsum('cji,cj->ci', rotations, translations_mm)


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
    for loss in (bundle_adjustment.cauchy, bundle_adjustment.geman_mcclure):
        people = _people(tracks, commons, rotations, translations_mm)
        observations, stride = _observations(tracks, people)
        weights = dataclasses.replace(
            weights, distances=_distance_weight(observations, stride * step_s)
        )
        points_mm = bundle_adjustment.triangulated(observations, rotations, translations_mm)
        estimate = Estimate(
            rotations, translations_mm, points_mm, np.zeros(len(observations.person_scale_std))
        )
        estimate, _ = bundle_adjustment.adjust(observations, estimate, prior, weights, loss)
        rotations, translations_mm = estimate.rotations, estimate.translations_mm
    residuals = bundle_adjustment.ray_residuals(observations, estimate)
    variance, correlated = bundle_adjustment.information_factor(observations, residuals, step_s)
    weights = DataWeights(1 / (variance * correlated), weights.distances)
    estimate, covariance = bundle_adjustment.adjust(observations, estimate, prior, weights)
    residuals = bundle_adjustment.ray_residuals(observations, estimate)
    return _Adjusted(observations, estimate, covariance, residuals / np.sqrt(variance), stride)


def _people(
    tracks: Sequence[CameraTracks],
    commons: Mapping[Pair, CommonInstants],
    rotations: FloatArray,
    translations_mm: FloatArray,
) -> list[NDArray[np.intp]]:
    """
    Return for each camera the person of each of its tracks; -1 for tracks that match no other one.

    Pairs of tracks are joined in the order of their scores, unless a person would be at two
    places in one image.
    """
    counts = [int(own.tracks.max(initial=-1)) + 1 for own in tracks]
    starts = np.concatenate([[0], np.cumsum(counts)])
    candidates = []
    for (a, b), common in commons.items():
        pose = score_relative_pose(common, *_relative(rotations, translations_mm, a, b))
        size = np.bincount(common.track_pairs)
        total = np.bincount(common.track_pairs, pose.scores)
        first = np.unique(common.track_pairs, return_index=True)[1]
        rows = common.rows[first]
        for k in np.flatnonzero(total >= MIN_TRACK_SCORE * size):
            one = starts[a] + tracks[a].tracks[rows[k, 0]]
            other = starts[b] + tracks[b].tracks[rows[k, 1]]
            candidates.append((float(total[k]), int(one), int(other)))
    instants = [
        {c: set(own.instants[own.tracks == k].tolist())}
        for c, (own, count) in enumerate(zip(tracks, counts))
        for k in range(count)
    ]
    parents = list(range(starts[-1]))
    for _, one, other in sorted(candidates, reverse=True):
        a, b = _root(parents, one), _root(parents, other)
        if a == b or any(
            instants[a][c] & instants[b][c] for c in instants[a].keys() & instants[b].keys()
        ):
            continue
        _join(parents, a, b)
        instants[a] = {
            c: instants[a].get(c, set()) | instants[b].get(c, set())
            for c in instants[a].keys() | instants[b].keys()
        }
    roots = np.array([_root(parents, i) for i in range(starts[-1])], np.intp)
    shared = np.array([len(instants[root]) > 1 for root in roots], bool)
    people = np.full(len(roots), -1)
    people[shared] = np.unique(roots[shared], return_inverse=True)[1]
    return [people[start:end] for start, end in itertools.pairwise(starts)]


def _observations(
    tracks: Sequence[CameraTracks], people: Sequence[NDArray[np.intp]]
) -> tuple[Observations, float]:
    """Return the people that several cameras see, and by how much they were thinned out."""
    cameras, joints = len(tracks), len(BODY_PARTS)
    span = 1 + max(int(own.instants.max(initial=0)) for own in tracks)
    keys = [
        own_people[own.tracks] * span + own.instants for own, own_people in zip(tracks, people)
    ]
    kept = [np.flatnonzero(own_keys >= 0) for own_keys in keys]
    unique = np.unique(np.concatenate([k[rows] for k, rows in zip(keys, kept)]))
    table = np.full((len(unique), cameras), -1)
    for c, (own_keys, rows) in enumerate(zip(keys, kept)):
        table[np.searchsorted(unique, own_keys[rows]), c] = rows
    several = (table >= 0).sum(axis=1) > 1
    unique, table = unique[several], table[several]
    if not len(unique):
        raise CalibrationError(
            'no person is seen by two cameras at the same time; record people who walk through '
            'the views of several cameras'
        )
    which = _thinned_out(table >= 0)
    stride = len(unique) / len(which)
    unique, table = unique[which], table[which]
    shape = (len(unique), cameras, joints)
    rays = np.tile([0.0, 0.0, 1.0], (*shape, 1))
    seen, std = np.zeros(shape, bool), np.ones(shape)
    distances_mm, scale_std = np.zeros(shape), np.ones(shape[:2])
    for c, own in enumerate(tracks):
        q = np.flatnonzero(table[:, c] >= 0)
        rows = table[q, c]
        own_mm = np.linalg.norm(own.poses_mm[rows], axis=-1)
        whole_mm = np.where(np.isfinite(own_mm).any(axis=1), _median_of_rows(own_mm), 4000.0)
        focal_px = np.sqrt(np.prod(np.diag(own.camera.intrinsic_matrix)[:2]))
        doubt = 1 + (LOW_CONFIDENCE_FACTOR - 1) * (1 - own.confidence[rows])
        body_std = LATERAL_STD * STATURE_MM * doubt / whole_mm[:, None]
        rays[q, c], seen[q, c] = own.rays[rows], own.confidence[rows] > 0
        std[q, c] = np.hypot(body_std, POINT_STD_PX / focal_px)
        distances_mm[q, c] = np.nan_to_num(own_mm)
        scale_std[q, c] = own.scale_std[rows]
    person, instants = unique // span, unique % span
    _, person = np.unique(person, return_inverse=True)
    person_scale_std = np.array(
        [
            np.median(scale_std[person == k][table[person == k] >= 0])
            for k in range(person.max() + 1)
        ]
    )
    return Observations(
        rays, seen, std, distances_mm, scale_std, person, instants, person_scale_std
    ), stride


def _median_of_rows(values: FloatArray) -> FloatArray:
    """Return the medians of rows without NaN; 0 for rows of NaN."""
    known = np.where(np.isfinite(values).any(axis=1, keepdims=True), values, 0)
    return np.nanmedian(known, axis=1)


def _thinned_out(views: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return at most about `MAX_OBSERVED` rows; rare combinations of cameras are kept."""
    if len(views) <= MAX_OBSERVED:
        return np.arange(len(views))
    _, kinds, counts = np.unique(views, axis=0, return_inverse=True, return_counts=True)
    # The largest number per kind that does not exceed the total.
    low, high = 1, len(views)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if np.minimum(counts, middle).sum() <= MAX_OBSERVED else (low, middle)
        )
    chosen = []
    for kind, count in enumerate(counts):
        rows = np.flatnonzero(kinds.ravel() == kind)
        chosen.append(rows[np.linspace(0, count - 1, min(count, low)).astype(np.intp)])
    return np.sort(np.concatenate(chosen))


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
    raw = bundle_adjustment.ray_residuals(observations, estimate)
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
    turns, shifts_mm = bundle_adjustment.prior_errors(result.estimate, prior)
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
