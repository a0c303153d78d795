"""Errors of this package in the recorded calls of the official MeTRAbs implementation."""

from __future__ import annotations

import pathlib
import sys

import numpy as np

from metrabs_ros.pose_estimator import PoseEstimator

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

from golden_cases import CASES, estimate, official_result


def cases() -> list[tuple[dict, np.ndarray]]:
    """Return the arguments of each call, and the official joints in millimetres."""
    return [(case, official_result(index)['poses3d']) for index, case in enumerate(CASES)]


def errors(model: PoseEstimator, case: dict, official_mm: np.ndarray) -> dict[str, float]:
    """Return the errors of a call."""
    prediction = estimate(model, case)
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
