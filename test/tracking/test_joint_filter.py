"""Joints that rest are calm, those that move are followed at once, impossible jumps are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenes import WRIST, jitter, lag_and_gain, somebody, stand, wave

from metrabs_ros.skeletons.conventions import COCO_17, Skeleton
from metrabs_ros.tracking.joint_filter import FASTEST_MM_S, JointMotion

EVERYBODY = np.ones(1, bool)
HERE = np.zeros(3)


def stepping(joints, step_mm, at_s=5.0):
    def move(body, time_s):
        body[joints] += step_mm if time_s >= at_s - 1e-6 else 0.0

    return move


@pytest.mark.parametrize('rate_hz', [10, 15, 30])
def test_somebody_who_stands_still_is_four_times_as_calm_as_measured(rate_hz):
    _, measured, followed = somebody(stand, rate_hz, 60, misses=0.05)
    assert jitter(measured, followed).min() > 4


def test_a_calm_person_is_where_the_mean_of_the_measurements_is():
    truth, _, followed = somebody(stand, 30, 120, misses=0.05)
    bias_mm = np.abs((followed - truth)[300:].mean(axis=0))
    assert bias_mm.mean() < 5


@pytest.mark.parametrize('amplitude_mm', [150.0, 300.0])
@pytest.mark.parametrize('noise', [False, True])
def test_a_waving_hand_is_followed_without_delay(amplitude_mm, noise):
    truth, _, followed = somebody(wave(amplitude_mm), 30, 12, noise)
    lag_s, gain = lag_and_gain(truth[60:, WRIST, 0], followed[60:, WRIST, 0], 30)
    assert lag_s < 0.04
    assert gain == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('rate_hz', [10, 15, 30])
@pytest.mark.parametrize('joints', [WRIST, slice(None)])
def test_a_step_of_half_a_metre_is_reached_within_150_ms(rate_hz, joints):
    truth, _, followed = somebody(stepping(joints, (500.0, 0, 0)), rate_hz, 6, noise=False)
    at = 5 * rate_hz + int(0.15 * rate_hz)
    assert followed[at, joints, 0] == pytest.approx(truth[at, joints, 0], abs=25)


def test_a_hand_that_jumps_farther_than_it_can_is_held():
    def glitch(body, time_s):
        body[WRIST] += (1500.0, 0, 0) if abs(time_s - 3) < 0.01 else 0.0

    _, measured, followed = somebody(glitch, 30, 4, noise=False)
    assert np.ptp(measured[:, WRIST, 0]) == pytest.approx(1500)
    assert np.ptp(followed[:, WRIST, 0]) < 20


def test_a_hand_that_is_held_but_stays_there_is_there():
    truth, _, followed = somebody(stepping(WRIST, (1500.0, 0, 0)), 30, 7, noise=False)
    assert followed[5 * 30, WRIST, 0] == pytest.approx(truth[0, WRIST, 0], abs=20)
    assert followed[5 * 30 + 6, WRIST, 0] == pytest.approx(truth[-1, WRIST, 0], abs=20)


def five_metres_away():
    """Return the motion of somebody just seen, the pose and its standard deviations."""
    motion, pose = JointMotion(COCO_17, 0.5), np.tile([0, 0, 5000.0], (1, 17, 1))
    std = np.full((1, 17), 30.0)
    motion.add(pose, std, HERE)
    return motion, pose, std


def test_velocities_are_those_of_the_walk():
    motion, pose, std = five_metres_away()
    for i in range(1, 60):
        motion.predict(1 / 30)
        motion.correct(pose + np.array([1400.0 * i / 30, 0, 0]), std, EVERYBODY, HERE)
    np.testing.assert_allclose(motion.velocities_mm_s[0], [[1400, 0, 0]] * 17, atol=30)


stds = st.floats(-3, 5).map(lambda exponent: 10**exponent)
steps = st.sampled_from([0.0, 1e-5, 1e-4, 1e-3, 1 / 30, 0.2, 1.0, 60.0, 3600.0])


@given(st.lists(st.tuples(steps, st.booleans(), stds, stds), max_size=60))
def test_covariances_stay_positive_semidefinite(measurements):
    rng = np.random.default_rng(0)
    motion, pose, _ = five_metres_away()
    for step_s, seen, std_mm, off_mm in measurements:
        motion.predict(step_s)
        noisy = pose + off_mm * rng.normal(size=pose.shape)
        motion.correct(noisy, np.full((1, 17), std_mm), np.array([seen]), HERE)
        assert_definite(motion)


def test_covariances_stay_positive_semidefinite_whatever_is_measured():
    rng, people = np.random.default_rng(0), 300
    motion, pose = JointMotion(COCO_17, 0.5), np.tile([0, 0, 5000.0], (people, 17, 1))
    motion.add(pose, np.full((people, 17), 30.0), HERE)
    for _ in range(60):
        motion.predict(rng.choice([1e-4, 1e-3, 1 / 30, 10.0]))
        off_mm = 10 ** rng.uniform(-3, 8, (people, 1, 1)) * rng.normal(size=pose.shape)
        std_mm = np.repeat(10 ** rng.uniform(-6, 8, (people, 1)), 17, axis=1)
        motion.correct(pose + off_mm, std_mm, rng.random(people) < 0.7, HERE)
        assert_definite(motion)


def test_ten_thousand_measurements_leave_covariances_as_they_were():
    rng = np.random.default_rng(0)
    motion, pose, std = five_metres_away()
    for i in range(10_000):
        motion.predict(3600.0 if i == 5000 else 1 / 30)
        motion.correct(pose + 30 * rng.normal(size=pose.shape), std, EVERYBODY, HERE)
        if i == 1000:
            before = motion._state.position_variance.max()
    assert_definite(motion)
    assert motion._state.position_variance.max() < 10 * before
    assert np.abs(motion.velocities_mm_s).max() < 100


def assert_definite(motion):
    state = motion._state
    position, both, velocity = state.position_variance, state.covariance, state.velocity_variance
    assert (position >= 0).all()
    assert (velocity >= 0).all()
    assert (both**2 <= position * velocity * (1 + 1e-6) + 1e-9).all()
    assert np.isfinite(motion.positions_mm).all()
    assert np.isfinite(motion.velocities_mm_s).all()


@pytest.mark.parametrize('smoothing', [0.0, 1e-3, 1e-12, 1e-160, 5e-324, 1.0])
@pytest.mark.filterwarnings('error')
def test_however_little_is_smoothed_all_is_finite(smoothing):
    motion, pose, std = five_metres_away()
    motion.smoothing = smoothing
    for i in range(60):
        motion.predict(1 / 30 if i % 3 == 0 else 0.0)
        motion.correct(pose + np.array([10.0 * i, 0, 0]), std, EVERYBODY, HERE)
        assert_definite(motion)


def test_who_is_not_seen_walks_on_with_limbs_at_rest():
    motion, pose, std = five_metres_away()
    for i in range(1, 60):
        motion.predict(1 / 30)
        pose = pose + np.array([40.0, 0, 0])
        swing = np.zeros((17, 3))
        swing[WRIST, 1] = 200 * np.sin(i / 3)
        motion.correct(pose + swing, std, EVERYBODY, HERE)
    before = motion.positions_mm
    for _ in range(15):
        motion.predict(1 / 30)
        motion.correct(pose, std, ~EVERYBODY, HERE)
    moved = (motion.positions_mm - before)[0]
    np.testing.assert_allclose(moved[:, 0], 15 * 40, atol=40)
    assert np.abs(moved[:, 1]).max() < 150


def test_a_skeleton_without_a_trunk_is_followed_as_well():
    hands = Skeleton('hands', ('left_hand', 'right_hand'), ())
    motion = JointMotion(hands, 0.5)
    motion.add(np.ones((1, 2, 3)), np.ones((1, 2)), HERE)
    motion.predict(0.1)
    assert np.isfinite(motion.positions_mm).all()


steps = st.floats(0, 5)
places = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(steps, places, st.floats(0, 1e4), st.booleans()), max_size=20))
def test_whatever_is_measured_all_stays_finite(frames):
    motion = JointMotion(COCO_17, 0.5)
    motion.add(np.zeros((1, 17, 3)), np.zeros((1, 17)), HERE)
    for step_s, place, std_mm, seen in frames:
        motion.predict(step_s)
        measured = np.full((1, 17, 3), place)
        motion.correct(measured, np.full((1, 17), std_mm), np.array([seen]), HERE)
        assert np.isfinite(motion.positions_mm).all()
        # Trunk and limb, each along an axis.
        assert np.abs(motion.velocities_mm_s).max() <= 2 * FASTEST_MM_S + 1e-6
