"""Test the classification of postures."""

import numpy as np
import pytest
from bodies import random_rotations, standing

from metrabs_ros.kinematics.postures import Posture, classify_postures

UP = np.array([0.0, 0.0, 1.0])
CHAIR = {'l_r_hip': 90, 'r_r_hip': 90, 'l_knee': -90, 'r_knee': -90}


def pitched(landmarks_mm, degrees):
    """Return landmarks turned forward about the y axis."""
    angle = np.radians(degrees)
    turn = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return landmarks_mm @ np.array(turn).T


POSES = {
    'standing': (standing((0, 0, 900)), Posture.STANDING),
    'arms raised': (standing((0, 0, 900), l_p_shoulder=170, r_p_shoulder=90), Posture.STANDING),
    'on one leg': (standing((0, 0, 900), l_r_hip=80, l_knee=-90), Posture.STANDING),
    'walking': (
        standing((0, 0, 900), l_r_hip=20, r_r_hip=-20, r_knee=-15),
        Posture.STANDING,
    ),
    'on a chair': (standing((0, 0, 500), **CHAIR), Posture.SITTING),
    'leaning on a chair': (
        pitched(standing((0, 0, 500), **{**CHAIR, 'l_r_hip': 110, 'r_r_hip': 110}), 20),
        Posture.SITTING,
    ),
    'on the floor': (standing((0, 0, 100), l_r_hip=85, r_r_hip=85), Posture.SITTING),
    'crouching': (
        pitched(standing((0, 0, 300), l_r_hip=130, r_r_hip=130, l_knee=-140, r_knee=-140), 25),
        Posture.CROUCHING,
    ),
    'on the back': (pitched(standing((0, 0, 100)), -90), Posture.LYING),
    'on the belly': (pitched(standing((0, 0, 100)), 90), Posture.LYING),
    'on the back, knees drawn up': (
        pitched(standing((0, 0, 100), l_r_hip=50, r_r_hip=50, l_knee=-100, r_knee=-100), -90),
        Posture.LYING,
    ),
    'bent over': (standing((0, 0, 900), waist=80), Posture.OTHER),
    'on all fours': (
        pitched(standing((0, 0, 400), l_r_hip=90, r_r_hip=90, l_knee=-90, r_knee=-90), 90),
        Posture.OTHER,
    ),
    'kneeling': (standing((0, 0, 500), l_knee=-90, r_knee=-90), Posture.OTHER),
    'half a squat': (
        pitched(standing((0, 0, 700), l_r_hip=65, r_r_hip=65, l_knee=-80, r_knee=-80), 20),
        Posture.OTHER,
    ),
}


def postures_of(landmarks_mm, up=UP, last=Posture.OTHER, known=None):
    count = len(landmarks_mm)
    known = np.ones((count, 17), bool) if known is None else known
    return classify_postures(landmarks_mm, known, up, np.full(count, int(last))).tolist()


@pytest.mark.parametrize('name', POSES)
def test_postures_are_recognised(name):
    landmarks_mm, posture = POSES[name]
    assert postures_of(landmarks_mm) == [posture]


@pytest.mark.parametrize('name', POSES)
def test_postures_do_not_depend_on_the_frame_nor_on_the_direction(name):
    landmarks_mm, posture = POSES[name]
    for rotation in random_rotations(20, np.random.default_rng(0)):
        assert postures_of(landmarks_mm @ rotation.T + 500, rotation @ UP) == [posture]


def test_postures_are_other_if_legs_or_shoulders_are_not_known():
    landmarks_mm, _ = POSES['standing']
    for joint in (5, 11, 14, 16):
        known = np.ones((1, 17), bool)
        known[0, joint] = False
        assert postures_of(landmarks_mm, known=known) == [Posture.OTHER]


def test_noise_does_not_change_a_posture_at_the_limit():
    rng = np.random.default_rng(0)
    leaning_mm = pitched(standing((0, 0, 900)), 30)
    posture, changes = [Posture.STANDING], 0
    for _ in range(200):
        before = posture
        posture = postures_of(leaning_mm + rng.normal(size=(1, 17, 3)) * 8, last=before[0])
        changes += posture != before
    assert changes <= 1


def test_landmarks_without_extent_have_no_posture():
    assert postures_of(np.zeros((3, 17, 3))) == [Posture.OTHER] * 3
