"""Landmarks: the joints of any skeleton that determine the joint angles of a person."""

from __future__ import annotations

import functools

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.skeletons.conventions import COCO_17, Skeleton

LANDMARKS = COCO_17.joint_names
"""Names of the landmarks: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles."""
FACE = slice(0, 5)
NOSE, EYES, EARS = 0, slice(1, 3), slice(3, 5)
SHOULDERS, ELBOWS, WRISTS = slice(5, 7), slice(7, 9), slice(9, 11)
HIPS, KNEES, ANKLES = slice(11, 13), slice(13, 15), slice(15, 17)
"""Slices of the landmarks; left before right."""
MIN_CONFIDENCE = 0.3
"""Minimum confidence of joints; angles that depend on others are not updated."""


def landmarks_of(
    poses_mm: FloatArray, joint_confidence: FloatArray, skeleton: Skeleton
) -> tuple[FloatArray, BoolArray]:
    """
    Return the landmarks of people.

    Parameters
    ----------
    poses_mm
        [N, J, 3].
    joint_confidence
        [N, J], from 0 to 1.
    skeleton
        Skeleton with J joints.

    Returns
    -------
    Positions [N, 17, 3], and which are known, [N, 17].  Landmarks that the skeleton lacks are at
    the mean of its joints.
    """
    weights, _ = landmark_weights(skeleton)
    return weights @ poses_mm, landmark_confidence(joint_confidence, skeleton) >= MIN_CONFIDENCE


def landmark_confidence(joint_confidence: FloatArray, skeleton: Skeleton) -> FloatArray:
    """Return the confidence [N, 17] of landmarks for that of joints [N, J]; 0 without a joint."""
    weights, is_available = landmark_weights(skeleton)
    return (joint_confidence @ weights.T) * is_available


@functools.lru_cache(maxsize=16)
def landmark_weights(skeleton: Skeleton) -> tuple[FloatArray, BoolArray]:
    """
    Return the weights [17, J] of joints in landmarks, and which landmarks there are, [17].

    Landmarks that the skeleton lacks are the mean of its joints.
    """
    weights = np.full((len(LANDMARKS), len(skeleton)), 1 / max(len(skeleton), 1))
    is_available = np.zeros(len(LANDMARKS), bool)
    for i, name in enumerate(LANDMARKS):
        side, _, part = name.rpartition('_')
        joints = skeleton.part(part, side)
        if len(joints):
            weights[i] = 0
            weights[i, joints] = 1 / len(joints)
            is_available[i] = True
    return weights, is_available
