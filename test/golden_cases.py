"""Calls of the official MeTRAbs implementation with their results, and the same calls here."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.pose_estimator import PoseEstimator, Prediction

FOLDER = pathlib.Path(__file__).parent / 'data' / 'golden'
CASES: list[dict[str, Any]] = json.loads((FOLDER / 'cases.json').read_text())
"""Arguments of the calls."""


def official_result(index: int) -> dict[str, FloatArray]:
    """Return poses3d in millimetres and poses2d in pixels of the official implementation."""
    with np.load(FOLDER / 'cases.npz') as official:
        return {name: official[f'{index:02}/{name}'] for name in ('poses3d', 'poses2d')}


def estimate(
    model: PoseEstimator, case: dict[str, Any], boxes: ArrayLike | None = None, **options: Any
) -> Prediction:
    """
    Call a model with the arguments of a case.

    Parameters
    ----------
    model
        Model with the checkpoint of the case.
    case
        One of `CASES`, or a modified copy.
    boxes
        Boxes [N, 4] instead of those of the case.
    options
        Additional arguments of `PoseEstimator.estimate_poses`.
    """
    return model.estimate_poses(
        image_of(case['image']),
        case['boxes'] if boxes is None else boxes,
        intrinsic_matrix=case['K'],
        distortion_coeffs=case.get('dist'),
        extrinsic_matrix=case.get('extrinsic'),
        world_up_vector=case.get('up', (0, -1, 0)),
        num_aug=case['num_aug'],
        antialias_factor=case['antialias'],
        average_aug=case['average'],
        skeleton=case['skeleton'],
        **options,
    )


@functools.cache
def image_of(name: str) -> ImageArray:
    """Return an image of test/data, RGB."""
    image = cv2.imread(str(FOLDER.parent / f'{name}.png'))
    assert image is not None
    return np.ascontiguousarray(image[..., ::-1])
