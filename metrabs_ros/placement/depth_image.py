"""Depth image as a cue of the person scale: the depth of the body surface in front of joints."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.people import People, inside_image
from metrabs_ros.placement.person_scale import Cue, ScaleObservations
from metrabs_ros.skeletons.conventions import Skeleton

SEGMENTS = (
    ('hip', 'knee', 100.0, 65.0),
    ('knee', 'ankle', 60.0, 45.0),
    ('shoulder', 'elbow', 60.0, 45.0),
)
"""Upper and lower joint of each limb, and how far they are behind the skin, in millimetres."""
TRUNK_THICKNESS_MM = 100.0
"""Distance between the plane through shoulders and hips and the skin."""
LIMB_POSITIONS = (0.2, 0.4, 0.6, 0.8)
"""Positions of samples along a limb."""
TRUNK_POSITIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Positions of samples between shoulders and hips, and from the left to the right side."""
MIN_JOINT_CONFIDENCE = 0.5
"""Minimum confidence that the joints at both ends of a limb are visible."""
MIN_SAMPLES = 6
"""Minimum number of samples with a valid depth."""
NEIGHBOUR_DISTANCE, INLIER_DISTANCE = 0.02, 0.05
"""Differences of log factors below which samples are neighbours, and belong to one surface."""
MIN_INLIER_SHARE = 0.35
"""Minimum share of samples that belong to the person."""
MIN_STD = 0.01
"""Lower bound of the standard deviation: the thickness of bodies differs."""
INLIER_PROBABILITY = 0.98
"""Probability that the largest surface is the person."""
NORMAL_STD_PER_MAD = 1.4826


@dataclasses.dataclass(frozen=True)
class DepthImage:
    """
    Depth image of a camera, in the optical frame of the colour camera.

    Parameters
    ----------
    depth_mm
        [H, W], distance along the optical axis, unsigned 16-bit integers or floats; 0, NaN or
        infinite for invalid pixels.
    camera
        Intrinsics of the depth image.
    """

    depth_mm: NDArray[np.generic]
    camera: Camera


@dataclasses.dataclass(frozen=True)
class _BodyPoints:
    """
    U points of the body as weighted means of the joints.

    Parameters
    ----------
    weights
        [U, J].
    thickness_mm
        [U], distance to the skin in the direction of the camera.
    """

    weights: FloatArray
    thickness_mm: FloatArray


@functools.cache
def _body_points(skeleton: Skeleton) -> _BodyPoints:
    """Return the sampled points of the trunk and the limbs; limbs without joints are left out."""

    def joint(part: str, side: str) -> FloatArray:
        indices = skeleton.part(part, side)
        weights: FloatArray = np.zeros(len(skeleton))
        weights[indices] = 1 / max(len(indices), 1)
        return weights

    weights, thickness_mm = [], []
    for upper, lower, upper_mm, lower_mm in SEGMENTS:
        for side in ('left', 'right'):
            for position in LIMB_POSITIONS:
                weights.append((1 - position) * joint(upper, side) + position * joint(lower, side))
                thickness_mm.append((1 - position) * upper_mm + position * lower_mm)
    for position in TRUNK_POSITIONS:
        left, right = (
            (1 - position) * joint('shoulder', side) + position * joint('hip', side)
            for side in ('left', 'right')
        )
        for across in TRUNK_POSITIONS:
            weights.append((1 - across) * left + across * right)
            thickness_mm.append(TRUNK_THICKNESS_MM)
    matrix, thickness = np.array(weights), np.array(thickness_mm)
    is_complete = np.isclose(matrix.sum(axis=1), 1)
    return _BodyPoints(matrix[is_complete], thickness[is_complete])


def observe_depth(people: People, depth: DepthImage) -> ScaleObservations:
    """
    Return the scale factors at which the skin of people is at the depth that was measured.

    The depth is sampled on the trunk and the limbs.  Samples on an object in front of the person,
    on the background and on depth edges are outliers: the factor is that of most samples.

    Parameters
    ----------
    people
        T people, camera frame, before scaling.  Undetected people are not used.
    depth
        Depth image of the same time.

    Returns
    -------
    Observations, [T, 1].
    """
    log_factors = _sample_log_factors(people, depth)
    count = np.isfinite(log_factors).sum(axis=1)
    centre, is_inlier = _largest_cluster(log_factors)
    inliers = is_inlier.sum(axis=1)
    deviation = np.abs(np.where(is_inlier, log_factors - centre[:, None], np.nan))
    usable = (count >= MIN_SAMPLES) & (inliers >= MIN_INLIER_SHARE * count)
    usable &= people.seen
    spread = np.zeros(len(people))
    if usable.any():
        spread[usable] = np.nanmedian(deviation[usable], axis=1)
    # Neighbouring samples have similar errors.
    std = NORMAL_STD_PER_MAD * spread / np.sqrt(np.maximum(inliers / 4, 1))
    std = np.maximum(std, MIN_STD)
    return ScaleObservations(
        Cue.DEPTH_IMAGE,
        np.where(usable, centre, np.nan)[:, None],
        std[:, None],
        np.full((len(people), 1), INLIER_PROBABILITY),
    )


def _sample_log_factors(people: People, depth: DepthImage) -> FloatArray:
    """Return the log factor at each point of the body, [T, U]; NaN without a valid depth."""
    body = _body_points(people.skeleton)
    points_mm = body.weights @ people.poses3d_mm
    distance_mm = np.linalg.norm(points_mm, axis=-1)
    skin_mm = points_mm[..., 2] * (1 - body.thickness_mm / np.maximum(distance_mm, 1.0))
    usable = body.weights @ people.joint_confidence[..., None] > MIN_JOINT_CONFIDENCE
    measured_mm = _depth_at(depth, depth.camera.project(points_mm))
    usable = usable[..., 0] & (measured_mm > 0) & np.isfinite(measured_mm) & (skin_mm > 0)
    ratio = np.where(usable, measured_mm, 1.0) / np.where(usable, skin_mm, 1.0)
    log_factors: FloatArray = np.where(usable, np.log(ratio), np.nan)
    return log_factors


def _depth_at(depth: DepthImage, points_px: FloatArray) -> FloatArray:
    """Return the depth at the nearest pixels of points [..., 2], [...]; 0 outside the image."""
    height, width = depth.depth_mm.shape
    with np.errstate(invalid='ignore'):
        inside = inside_image(points_px, (height, width))
    columns, rows = np.where(inside[..., None], np.rint(points_px), 0).astype(int).T
    depth_mm = depth.depth_mm[rows.T, columns.T].astype(np.float64)
    return np.where(inside, depth_mm, 0.0)


def _largest_cluster(values: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return the median of the largest cluster of values [T, U], [T], and its members [T, U]."""
    centre: FloatArray = np.full(len(values), np.nan)
    is_valid = np.isfinite(values)
    difference = np.abs(values[:, :, None] - values[:, None])
    neighbours = (difference < NEIGHBOUR_DISTANCE).sum(axis=2)
    densest = neighbours.argmax(axis=1) if values.shape[1] else np.zeros(len(values), int)
    rows = np.flatnonzero(is_valid.any(axis=1))
    is_member = np.zeros(values.shape, bool)
    for row in rows.tolist():
        is_member[row] = difference[row, densest[row]] < INLIER_DISTANCE
        centre[row] = np.median(values[row, is_member[row]])
    return centre, is_member
