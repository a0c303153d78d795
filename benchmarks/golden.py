"""Calls of the official MeTRAbs implementation, and the errors of this package in them."""

from __future__ import annotations

import json
import pathlib

import cv2
import numpy as np

import metrabs_ros

FOLDER = pathlib.Path(__file__).parents[1] / 'test' / 'data' / 'golden'


def cases() -> list[tuple[dict, np.ndarray]]:
    """Return the arguments of each call, and the official joints in millimetres."""
    official = np.load(FOLDER / 'cases.npz')
    arguments = json.loads((FOLDER / 'cases.json').read_text())
    return [(case, official[f'{i:02}/poses3d']) for i, case in enumerate(arguments)]


def errors(
    model: metrabs_ros.pose_estimator.PoseEstimator, case: dict, official_mm: np.ndarray
) -> dict[str, float]:
    """Return the errors of a call."""
    image = cv2.imread(str(FOLDER.parent / f'{case["image"]}.png'))[..., ::-1]
    prediction = model.estimate_poses(
        np.ascontiguousarray(image),
        case['boxes'],
        intrinsic_matrix=case['K'],
        distortion_coeffs=case.get('dist'),
        extrinsic_matrix=case.get('extrinsic'),
        world_up_vector=case.get('up', (0, -1, 0)),
        num_aug=case['num_aug'],
        antialias_factor=case['antialias'],
        average_aug=case['average'],
        skeleton=case['skeleton'],
    )
    error_mm = np.linalg.norm(prediction['poses3d'] - official_mm, axis=-1)
    relative_error = error_mm / np.linalg.norm(official_mm, axis=-1)
    return {
        'median_mm': float(np.median(error_mm)),
        'worst_mm': float(error_mm.max()),
        'median_percent': 100 * float(np.median(relative_error)),
    }


def summary(case_errors: list[dict[str, float]]) -> dict[str, float]:
    """Return the errors of several calls."""
    return {
        'cases': len(case_errors),
        'median_mm': float(np.median([e['median_mm'] for e in case_errors])),
        'worst_median_mm': max(e['median_mm'] for e in case_errors),
        'worst_mm': max(e['worst_mm'] for e in case_errors),
        'median_percent': float(np.median([e['median_percent'] for e in case_errors])),
        'worst_median_percent': max(e['median_percent'] for e in case_errors),
    }
