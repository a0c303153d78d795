"""Augmentations are spread as published, and their cameras see what they say."""

from __future__ import annotations

import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.metrabs.augmentation import Augmentations
from metrabs_ros.metrabs.box_cameras import virtual_cameras_for_boxes


def test_one_has_the_middle_values():
    one = Augmentations.spread(1)
    assert (one.angle_degrees, one.scale, one.gamma, one.mirrored) == (0, 1, 0.8, False)


def test_five_are_spread_evenly_and_mirrored_in_turn():
    five = Augmentations.spread(5)
    np.testing.assert_allclose(five.angle_degrees, [-25, -12.5, 0, 12.5, 25])
    np.testing.assert_allclose(five.scale, [0.8, 0.9, 1, 1.05, 1.1])
    np.testing.assert_allclose(five.gamma, [0.6, 0.7, 0.8, 0.9, 1])
    assert five.mirrored.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize('count', range(2, 9))
def test_the_middle_one_is_neither_mirrored_nor_scaled(count):
    several = Augmentations.spread(count)
    assert len(several) == count
    assert not several.mirrored[count // 2]
    assert several.scale[count // 2] == 1
    assert (np.diff(several.scale) > 0).all()


def test_cameras_keep_looking_at_the_person_rolled_scaled_and_mirrored():
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    plain = virtual_cameras_for_boxes(np.array([[600.0, 100, 60, 150]]), camera, 256)
    five = Augmentations.spread(5)
    virtual = five.of(plain)
    np.testing.assert_allclose(virtual.rotation[:, 2], plain.rotation.repeat(5, axis=0)[:, 2])
    signs = np.where(five.mirrored, -1, 1)
    np.testing.assert_allclose(np.linalg.det(virtual.rotation), signs)
    np.testing.assert_allclose(virtual.scale, plain.scale * five.scale)
    turn = virtual.rotation @ plain.rotation[0].T
    angles = np.degrees(np.arctan2(turn[:, 0, 1], turn[:, 1, 1]))
    np.testing.assert_allclose(angles, signs * five.angle_degrees, atol=1e-9)
