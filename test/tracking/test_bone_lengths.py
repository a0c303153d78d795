"""Poses are corrected towards the estimated bone lengths unless a joint moved."""

from __future__ import annotations

import numpy as np
import pytest
from scenes import standing_body

from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.tracking.bone_lengths import BoneLengths

SEEN = np.ones(1, bool)
WRIST = 9


def lengths(pose):
    ends = np.array(COCO_17.edges)
    return np.linalg.norm(pose[ends[:, 0]] - pose[ends[:, 1]], axis=-1)


@pytest.fixture
def bones():
    bones = BoneLengths(COCO_17)
    bones.add(1)
    for _ in range(100):
        bones.update(standing_body()[None], SEEN, 0.1)
    return bones


def test_pose_with_the_estimated_lengths_is_unchanged(bones):
    body = standing_body()
    np.testing.assert_allclose(bones.update(body[None], SEEN, 0.1)[0], body, atol=1e-9)


def test_length_noise_is_reduced(bones):
    rng = np.random.default_rng(0)
    poses = standing_body() + rng.normal(0, 10, (50, 17, 3))
    before = np.array([lengths(pose) for pose in poses]).std(axis=0)
    after = np.array([lengths(bones.update(pose[None], ~SEEN, 0.1)[0]) for pose in poses]).std(
        axis=0
    )
    long = lengths(standing_body()) > 100
    assert (after[long] < 0.9 * before[long]).all()
    assert after[long].mean() < 0.65 * before[long].mean()


def test_displaced_hand_is_hardly_corrected(bones):
    body = standing_body()
    body[WRIST] += (400, 0, 0)
    corrected = bones.update(body[None], SEEN, 0.1)[0]
    assert np.abs(corrected - body).max() < 30


def test_changed_lengths_are_adopted_slowly(bones):
    taller = 1.05 * standing_body()
    first = bones.update(taller[None], SEEN, 0.1)[0]
    for _ in range(200):
        last = bones.update(taller[None], SEEN, 0.1)[0]
    assert np.abs(first - taller).max() > 5
    np.testing.assert_allclose(last, taller, atol=1)


def test_added_track_does_not_use_the_lengths_of_others(bones):
    bones.add(1)
    bones.keep(np.array([False, True]))
    body = 1.2 * standing_body()
    np.testing.assert_allclose(bones.update(body[None], SEEN, 0.1)[0], body, atol=1e-9)
