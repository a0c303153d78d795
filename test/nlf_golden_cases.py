"""Calls of the official NLF implementation with their results, and the same calls here."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import numpy as np
from golden_cases import image_of
from numpy.typing import ArrayLike

from metrabs_ros.arrays import FloatArray
from metrabs_ros.pose_estimator import PoseEstimator, Prediction

FOLDER = pathlib.Path(__file__).parent / 'data' / 'nlf'
CASES: list[dict[str, Any]] = json.loads((FOLDER / 'cases.json').read_text())
"""Arguments of the calls."""
RESULTS = ('poses3d', 'poses2d', 'uncertainties')


def official_result(index: int) -> dict[str, FloatArray]:
    """Return poses3d in millimetres, poses2d in pixels and uncertainties in metres."""
    with np.load(FOLDER / 'cases.npz') as official:
        return {name: official[f'{index:02}/{name}'] for name in RESULTS}


def official_filter(name: str) -> dict[str, FloatArray]:
    """Return the arguments of the official suppression of poses, and the indices that it keeps."""
    names = ('boxes', 'poses3d', 'poses2d', 'uncertainties', 'kept')
    with np.load(FOLDER / 'cases.npz') as official:
        return {part: official[f'{name}/{part}'] for part in names}


@functools.cache
def canonical_points(name: str) -> FloatArray:
    """Return a set of canonical points [P, 3] in metres."""
    with np.load(FOLDER / 'cases.npz') as official:
        points_m: FloatArray = official[f'points/{name}']
    return points_m


def estimate(
    model: PoseEstimator, case: dict[str, Any], boxes: ArrayLike | None = None, **options: Any
) -> Prediction:
    """Call a model with the arguments of a case; see `golden_cases.estimate`."""
    arguments = {
        'intrinsic_matrix': case['K'],
        'distortion_coeffs': case.get('dist'),
        'extrinsic_matrix': case.get('extrinsic'),
        'world_up_vector': case.get('up', (0, -1, 0)),
        'default_fov_degrees': case.get('default_fov_degrees', 55),
        'num_aug': case['num_aug'],
        'antialias_factor': case['antialias'],
        'skeleton': canonical_points(case['points']),
        **options,
    }
    return model.estimate_poses(
        image_of(case['image']), case['boxes'] if boxes is None else boxes, **arguments
    )
