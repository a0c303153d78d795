"""Resting joints are smoothed, moving joints have no delay, impossible jumps are rejected."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import WRIST, jitter_ratio, lag_and_gain, stand, track_person, wave

from metrabs_ros.skeletons.conventions import COCO_17, Skeleton
from metrabs_ros.tracking.joint_filter import MAX_SPEED_MM_S, JointMotion

SEEN = np.ones(1, bool)
ORIGIN = np.zeros(3)


def step_motion(joints, step_mm, at_s=5.0):
    def move(body, time_s):
        body[joints] += step_mm if time_s >= at_s - 1e-6 else 0.0

    return move


@pytest.mark.parametrize('rate_hz', [10, pytest.param(15, marks=pytest.mark.slow), 30])
def test_jitter_of_a_standing_person_is_reduced_fourfold(rate_hz):
    _, measured, filtered = track_person(stand, rate_hz, 30, misses=0.05)
    assert jitter_ratio(measured, filtered).min() > 4


@pytest.mark.slow
def test_filter_of_a_standing_person_has_no_bias():
    truth, _, filtered = track_person(stand, 30, 120, misses=0.05)
    bias_mm = np.abs((filtered - truth)[300:].mean(axis=0))
    assert bias_mm.mean() < 5


@pytest.mark.parametrize('amplitude_mm', [150.0, 300.0])
@pytest.mark.parametrize('noise', [False, True])
def test_waving_hand_has_no_delay(amplitude_mm, noise):
    truth, _, filtered = track_person(wave(amplitude_mm), 30, 12, noise)
    lag_s, gain = lag_and_gain(truth[60:, WRIST, 0], filtered[60:, WRIST, 0], 30)
    assert lag_s < 0.04
    assert gain == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('rate_hz', [10, 15, 30])
@pytest.mark.parametrize('joints', [WRIST, slice(None)])
def test_step_of_half_a_metre_is_reached_within_150_ms(rate_hz, joints):
    truth, _, filtered = track_person(step_motion(joints, (500.0, 0, 0)), rate_hz, 6, noise=False)
    at = 5 * rate_hz + int(0.15 * rate_hz)
    assert filtered[at, joints, 0] == pytest.approx(truth[at, joints, 0], abs=25)


def test_single_impossible_jump_of_a_hand_is_rejected():
    def glitch(body, time_s):
        body[WRIST] += (1500.0, 0, 0) if abs(time_s - 3) < 0.01 else 0.0

    _, measured, filtered = track_person(glitch, 30, 4, noise=False)
    assert np.ptp(measured[:, WRIST, 0]) == pytest.approx(1500)
    assert np.ptp(filtered[:, WRIST, 0]) < 20


def test_lasting_jump_of_a_hand_is_accepted():
    truth, _, filtered = track_person(step_motion(WRIST, (1500.0, 0, 0)), 30, 7, noise=False)
    assert filtered[5 * 30, WRIST, 0] == pytest.approx(truth[0, WRIST, 0], abs=20)
    assert filtered[5 * 30 + 6, WRIST, 0] == pytest.approx(truth[-1, WRIST, 0], abs=20)


def new_track():
    """Return the filter of a new track at 5 m, its pose and its standard deviations."""
    motion, pose = JointMotion(COCO_17, 0.5), np.tile([0, 0, 5000.0], (1, 17, 1))
    std = np.full((1, 17), 30.0)
    motion.add(pose, std, ORIGIN)
    return motion, pose, std


def test_velocities_of_a_walk():
    motion, pose, std = new_track()
    for i in range(1, 60):
        motion.predict(1 / 30)
        motion.correct(pose + np.array([1400.0 * i / 30, 0, 0]), std, SEEN, ORIGIN)
    np.testing.assert_allclose(motion.velocities_mm_s[0], [[1400, 0, 0]] * 17, atol=30)


stds = st.floats(-3, 5).map(lambda exponent: 10**exponent)
steps = st.sampled_from([0.0, 1e-5, 1e-4, 1e-3, 1 / 30, 0.2, 1.0, 60.0, 3600.0])


@given(st.lists(st.tuples(steps, st.booleans(), stds, stds), max_size=60))
def test_covariances_stay_positive_semidefinite(measurements):
    rng = np.random.default_rng(0)
    motion, pose, _ = new_track()
    for step_s, seen, std_mm, error_mm in measurements:
        motion.predict(step_s)
        noisy = pose + error_mm * rng.normal(size=pose.shape)
        motion.correct(noisy, np.full((1, 17), std_mm), np.array([seen]), ORIGIN)
        assert_positive_semidefinite(motion)


def test_covariances_of_many_tracks_stay_positive_semidefinite_with_extreme_errors():
    rng, people = np.random.default_rng(0), 300
    motion, pose = JointMotion(COCO_17, 0.5), np.tile([0, 0, 5000.0], (people, 17, 1))
    motion.add(pose, np.full((people, 17), 30.0), ORIGIN)
    for _ in range(60):
        motion.predict(rng.choice([1e-4, 1e-3, 1 / 30, 10.0]))
        error_mm = 10 ** rng.uniform(-3, 8, (people, 1, 1)) * rng.normal(size=pose.shape)
        std_mm = np.repeat(10 ** rng.uniform(-6, 8, (people, 1)), 17, axis=1)
        motion.correct(pose + error_mm, std_mm, rng.random(people) < 0.7, ORIGIN)
        assert_positive_semidefinite(motion)


def test_covariances_do_not_grow_in_ten_thousand_frames():
    rng = np.random.default_rng(0)
    motion, pose, std = new_track()
    for i in range(10_000):
        motion.predict(3600.0 if i == 5000 else 1 / 30)
        motion.correct(pose + 30 * rng.normal(size=pose.shape), std, SEEN, ORIGIN)
        if i == 1000:
            before = motion._state.position_variance.max()
    assert_positive_semidefinite(motion)
    assert motion._state.position_variance.max() < 10 * before
    assert np.abs(motion.velocities_mm_s).max() < 100


def assert_positive_semidefinite(motion):
    state = motion._state
    position, both, velocity = state.position_variance, state.covariance, state.velocity_variance
    assert (position >= 0).all()
    assert (velocity >= 0).all()
    assert (both**2 <= position * velocity * (1 + 1e-6) + 1e-9).all()
    assert np.isfinite(motion.positions_mm).all()
    assert np.isfinite(motion.velocities_mm_s).all()


@pytest.mark.parametrize('smoothing', [0.0, 1e-3, 1e-12, 1e-160, 5e-324, 1.0])
@pytest.mark.filterwarnings('error')
def test_states_stay_finite_at_any_smoothing(smoothing):
    motion, pose, std = new_track()
    motion.smoothing = smoothing
    for i in range(60):
        motion.predict(1 / 30 if i % 3 == 0 else 0.0)
        motion.correct(pose + np.array([10.0 * i, 0, 0]), std, SEEN, ORIGIN)
        assert_positive_semidefinite(motion)


def test_undetected_person_keeps_walking_with_resting_limbs():
    motion, pose, std = new_track()
    for i in range(1, 60):
        motion.predict(1 / 30)
        pose = pose + np.array([40.0, 0, 0])
        swing = np.zeros((17, 3))
        swing[WRIST, 1] = 200 * np.sin(i / 3)
        motion.correct(pose + swing, std, SEEN, ORIGIN)
    before = motion.positions_mm
    for _ in range(15):
        motion.predict(1 / 30)
        motion.correct(pose, std, ~SEEN, ORIGIN)
    moved = (motion.positions_mm - before)[0]
    np.testing.assert_allclose(moved[:, 0], 15 * 40, atol=40)
    assert np.abs(moved[:, 1]).max() < 150


def test_skeleton_without_a_trunk_is_supported():
    hands = Skeleton('hands', ('left_hand', 'right_hand'), ())
    motion = JointMotion(hands, 0.5)
    motion.add(np.ones((1, 2, 3)), np.ones((1, 2)), ORIGIN)
    motion.predict(0.1)
    assert np.isfinite(motion.positions_mm).all()


steps = st.floats(0, 5)
positions = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(steps, positions, st.floats(0, 1e4), st.booleans()), max_size=20))
def test_states_stay_finite_and_speeds_bounded_with_any_measurements(frames):
    motion = JointMotion(COCO_17, 0.5)
    motion.add(np.zeros((1, 17, 3)), np.zeros((1, 17)), ORIGIN)
    for step_s, position, std_mm, seen in frames:
        motion.predict(step_s)
        measured = np.full((1, 17, 3), position)
        motion.correct(measured, np.full((1, 17), std_mm), np.array([seen]), ORIGIN)
        assert np.isfinite(motion.positions_mm).all()
        # The speed limit holds for the trunk and for the joint relative to it, per axis.
        assert np.abs(motion.velocities_mm_s).max() <= 2 * MAX_SPEED_MM_S + 1e-6
