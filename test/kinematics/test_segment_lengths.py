"""Test that segment lengths are measured, become stable, and are replaced only if they change."""

import numpy as np
import pytest
from bodies import ADULT_MM, random_angles, random_bodies, standing

from metrabs_ros.kinematics.human_urdf import SEGMENTS
from metrabs_ros.kinematics.segment_lengths import SegmentLengths, measure_lengths

ROW = np.array([0])
STEP_S = np.array([0.1])
UNKNOWN = np.array([np.nan])
ALL = np.ones((1, 9), bool)


def follow(lengths, measured_mm, frames, is_known=ALL, statures_mm=UNKNOWN):
    for _ in range(frames):
        lengths.update(ROW, np.atleast_2d(measured_mm), is_known, statures_mm, STEP_S)


@pytest.fixture
def lengths():
    lengths = SegmentLengths()
    lengths.add(1)
    return lengths


def test_lengths_of_model_people_are_measured_in_any_pose():
    bodies = random_bodies(random_angles(200))
    measured_mm, is_known = measure_lengths(bodies.landmarks_mm, np.ones((200, 17), bool))
    assert is_known.all()
    # Neck and head have one measured length.
    np.testing.assert_allclose(measured_mm[:, 2:], bodies.lengths_mm[:, 2:])
    standing_mm, _ = measure_lengths(standing((0, 0, 0)), np.ones((1, 17), bool))
    np.testing.assert_allclose(standing_mm[0], ADULT_MM)


def test_one_side_is_sufficient_for_the_length_of_limbs():
    known = np.ones((1, 17), bool)
    known[0, [9, 14]] = False
    landmarks_mm = standing((0, 0, 0))
    landmarks_mm[0, [9, 14]] = 1e6
    measured_mm, is_known = measure_lengths(landmarks_mm, known)
    assert is_known.all()
    np.testing.assert_allclose(measured_mm[0], ADULT_MM)
    known[0, 10] = False
    assert SEGMENTS[np.flatnonzero(~measure_lengths(landmarks_mm, known)[1][0])[0]] == 'forearm'


def test_lengths_become_stable_after_a_second(lengths):
    follow(lengths, ADULT_MM, 10)
    assert lengths.versions == 0
    np.testing.assert_allclose(lengths.fixed_mm[0], ADULT_MM)
    follow(lengths, ADULT_MM, 2)
    assert lengths.versions == 1


def test_noise_does_not_change_stable_lengths(lengths):
    rng = np.random.default_rng(0)
    for _ in range(300):
        follow(lengths, ADULT_MM * rng.normal(1, 0.05, 9), 1)
    assert lengths.versions == 1
    np.testing.assert_allclose(lengths.fixed_mm[0], ADULT_MM, rtol=0.05)


@pytest.mark.parametrize(('change', 'versions'), [(1.04, 1), (0.96, 1), (1.08, 2), (0.9, 2)])
def test_stable_lengths_are_replaced_after_a_change_of_5_percent(lengths, change, versions):
    follow(lengths, ADULT_MM, 50)
    changed_mm = ADULT_MM.copy()
    changed_mm[7] *= change
    follow(lengths, changed_mm, 200)
    assert lengths.versions == versions
    np.testing.assert_allclose(lengths.fixed_mm[0], changed_mm, rtol=0.05)


def test_unknown_lengths_have_the_proportions_of_the_known_ones(lengths):
    is_known = ALL.copy()
    is_known[0, 7:] = False
    measured_mm = 0.5 * ADULT_MM
    measured_mm[7:] = 0
    follow(lengths, measured_mm, 20, is_known)
    np.testing.assert_allclose(lengths.fixed_mm[0], 0.5 * ADULT_MM)


def test_the_stature_determines_the_lengths_if_no_length_is_known(lengths):
    follow(lengths, np.zeros(9), 1, ~ALL, np.array([1700.0]))
    np.testing.assert_allclose(lengths.fixed_mm[0], ADULT_MM)
    follow(lengths, np.zeros(9), 1, ~ALL)
    np.testing.assert_allclose(lengths.fixed_mm[0], ADULT_MM * 1.65 / 1.7)


def test_lengths_are_limited(lengths):
    follow(lengths, np.zeros(9), 1)
    assert (lengths.fixed_mm > 0).all()
    follow(lengths, np.full(9, 1e9), 20)
    assert (lengths.fixed_mm < 2000).all()
