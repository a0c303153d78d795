"""Augmentations have the published values, and modify virtual cameras accordingly."""

from __future__ import annotations

import numpy as np
import pytest

from metrabs_ros.camera import Camera
from metrabs_ros.crop_networks.augmentation import Augmentations
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes


def test_a_single_augmentation_has_the_middle_values():
    one = Augmentations.evenly_spaced(1)
    assert (one.angle_degrees, one.scale, one.gamma, one.mirrored) == (0, 1, 0.8, False)


def test_five_augmentations_are_evenly_spaced_and_alternately_mirrored():
    five = Augmentations.evenly_spaced(5)
    np.testing.assert_allclose(five.angle_degrees, [-25, -12.5, 0, 12.5, 25])
    np.testing.assert_allclose(five.scale, [0.8, 0.9, 1, 1.05, 1.1])
    np.testing.assert_allclose(five.gamma, [0.6, 0.7, 0.8, 0.9, 1])
    assert five.mirrored.tolist() == [False, True, False, True, False]


@pytest.mark.parametrize('count', range(2, 9))
def test_the_middle_augmentation_is_neither_mirrored_nor_scaled(count):
    augmentations = Augmentations.evenly_spaced(count)
    assert len(augmentations) == count
    assert not augmentations.mirrored[count // 2]
    assert augmentations.scale[count // 2] == 1
    assert (np.diff(augmentations.scale) > 0).all()


def test_augmented_cameras_keep_their_direction_and_are_rolled_scaled_and_mirrored():
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    plain = virtual_cameras_for_boxes(np.array([[600.0, 100, 60, 150]]), camera, 256)
    five = Augmentations.evenly_spaced(5)
    virtual = five.apply_to(plain)
    np.testing.assert_allclose(virtual.rotation[:, 2], plain.rotation.repeat(5, axis=0)[:, 2])
    signs = np.where(five.mirrored, -1, 1)
    np.testing.assert_allclose(np.linalg.det(virtual.rotation), signs)
    np.testing.assert_allclose(virtual.scale, plain.scale * five.scale)
    turn = virtual.rotation @ plain.rotation[0].T
    angles = np.degrees(np.arctan2(turn[:, 0, 1], turn[:, 1, 1]))
    np.testing.assert_allclose(angles, signs * five.angle_degrees, atol=1e-9)
