"""Test that the inverse kinematics recover joint angles, within limits and without jumps."""

import dataclasses

import numpy as np
import pytest
from bodies import KnownBodies, random_angles, random_bodies, rest, to_world

from metrabs_ros.kinematics.angles import MAX_SPEED
from metrabs_ros.kinematics.body_frames import body_frames
from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.joint_angles import ARMS, LEGS, LastAngles, joint_angles
from metrabs_ros.kinematics.landmarks import ANKLES, EARS, ELBOWS, KNEES, WRISTS

TREE = human_model().tree
FRAME_S = 1 / 30


def solve(bodies: KnownBodies, known=None, last=None, step_s=np.inf):
    count = len(bodies.angles)
    known = np.ones((count, 17), bool) if known is None else known
    last = np.zeros_like(bodies.angles) if last is None else last
    return joint_angles(
        bodies.landmarks_mm,
        known,
        bodies.frames,
        bodies.lengths_mm,
        LastAngles(last, np.full(count, step_s)),
        human_model(),
    )


def errors_mm(bodies: KnownBodies, angles):
    fitted_mm = human_model().landmarks_mm(angles, bodies.lengths_mm)
    return np.linalg.norm(to_world(bodies.frames, fitted_mm) - bodies.landmarks_mm, axis=-1)


def are_determined(angles):
    """Return which angles [N, 20] are not near a singularity, which is 5 degrees wide."""
    sines = np.abs(np.sin(angles))
    determined = np.ones(angles.shape, bool)
    for yaw, pitch, roll, bend in ARMS:
        determined[:, yaw] = determined[:, roll] = sines[:, pitch] > np.sin(np.radians(5))
        determined[:, roll] &= sines[:, bend] > np.sin(np.radians(5))
    for yaw, pitch, roll, bend in LEGS:
        for own in (yaw, pitch, roll):
            determined[:, own] = sines[:, bend] > np.sin(np.radians(5))
    return determined


def test_10000_random_poses_are_recovered_within_1_mm_and_a_tenth_of_a_degree():
    bodies = random_bodies(random_angles(10_000))
    angles = solve(bodies)
    assert errors_mm(bodies, angles).max() < 1.0
    errors_degrees = np.degrees(np.abs(angles - bodies.angles))
    determined = are_determined(bodies.angles)
    assert determined.mean() > 0.95
    assert errors_degrees[determined].max() < 0.1


def test_arms_and_head_are_recovered_with_the_frames_of_the_landmarks():
    bodies = random_bodies(random_angles(10_000))
    frames = body_frames(
        bodies.landmarks_mm,
        np.ones((10_000, 17), bool),
        np.array([0, 0, 1.0]),
        np.zeros(10_000),
        np.full(10_000, np.inf),
    )
    found = dataclasses.replace(bodies, frames=frames)
    assert errors_mm(found, solve(found))[:, :13].max() < 1.0


def test_people_who_stand_walk_bend_and_sit_are_recovered_with_the_frames_of_the_landmarks():
    rng = np.random.default_rng(1)
    count = 10_000
    angles = random_angles(count, seed=1)
    # The tilt of the pelvis is not determined; the legs of these people reach their joints.
    angles[:, LEGS[:, 0]] = rng.uniform(-0.3, 0.3, (count, 2))
    angles[:, LEGS[:, 1]] = rng.uniform(-0.1, 0.3, (count, 2))
    flexion = rng.uniform(-0.5, 1.6, count)
    angles[:, 0] = np.where(flexion > 0, flexion / 1.7, flexion / 3)
    angles[:, LEGS[:, 2]] = (flexion - angles[:, 0])[:, None]
    angles[:, LEGS[:, 3]] = rng.uniform(-1.5, -0.1, (count, 2))
    bodies = random_bodies(angles)
    frames = body_frames(
        bodies.landmarks_mm,
        np.ones((count, 17), bool),
        np.array([0, 0, 1.0]),
        np.zeros(count),
        np.full(count, np.inf),
    )
    found = dataclasses.replace(bodies, frames=frames)
    errors = errors_mm(found, solve(found))
    assert np.quantile(errors[:, 13:].max(axis=1), 0.98) < 1.0
    assert np.degrees(np.abs(frames.waist - angles[:, 0])).max() < 10


def test_all_angles_are_finite_and_within_their_limits_for_any_landmarks():
    rng = np.random.default_rng(0)
    bodies = random_bodies(random_angles(2000))
    for scale_mm in (0.0, 1e-6, 300.0, 1e9):
        bodies.landmarks_mm = scale_mm * rng.normal(size=(2000, 17, 3))
        angles = solve(bodies)
        assert np.isfinite(angles).all()
        assert (angles >= TREE.lower - 1e-9).all()
        assert (angles <= TREE.upper + 1e-9).all()


def test_unknown_joints_keep_the_last_angles():
    bodies = random_bodies(random_angles(200))
    last = random_angles(200, seed=5)
    last[:, 0] = bodies.angles[:, 0]
    known = np.ones((200, 17), bool)
    known[:, [*range(ELBOWS.start, ELBOWS.stop), KNEES.start]] = False
    known[:, EARS] = known[:, 1:3] = False
    angles = solve(bodies, known, last)
    kept = [1, 2, 3, *ARMS.ravel(), *LEGS[0]]
    np.testing.assert_array_equal(angles[:, kept], last[:, kept])
    np.testing.assert_allclose(
        errors_mm(bodies, angles)[:, [KNEES.start + 1, ANKLES.start + 1]], 0, atol=1
    )


def test_hidden_hands_and_feet_keep_the_last_bend_and_the_rest_of_the_limb_is_solved():
    bodies = random_bodies(random_angles(500))
    known = np.ones((500, 17), bool)
    known[:, WRISTS] = known[:, ANKLES] = False
    # One joint moves, so that the angles before are almost those of the hidden joints.
    angles = solve(bodies, known, bodies.angles, FRAME_S)
    bends = [*ARMS[:, 3], *LEGS[:, 3]]
    np.testing.assert_allclose(angles[:, bends], bodies.angles[:, bends])
    # Yaws of legs are kept, which do not depend on the thigh alone.
    assert np.quantile(errors_mm(bodies, angles)[:, [*range(7, 9), *range(13, 15)]], 0.95) < 1.0


def test_upper_arms_are_followed_while_the_hands_are_hidden():
    last = rest(1, l_y_shoulder=90, l_p_shoulder=80, l_elbow=30, r_p_shoulder=40)
    known = np.ones((1, 17), bool)
    known[:, WRISTS] = False
    for degrees in np.arange(90, 0, -1.5):
        bodies = random_bodies(rest(1, l_y_shoulder=degrees, l_p_shoulder=80, r_p_shoulder=40))
        angles = solve(bodies, known, last, FRAME_S)
        assert errors_mm(bodies, angles)[0, ELBOWS].max() < 1.0
        last = angles
    assert np.degrees(last[0, ARMS[0, 3]]) == pytest.approx(30)


@pytest.mark.parametrize(
    'degrees',
    [
        {},
        {'l_p_shoulder': 1, 'r_p_shoulder': 2},
        {'l_p_shoulder': 20, 'r_p_shoulder': -10, 'l_elbow': 3},
        {'l_knee': -3, 'r_knee': -1, 'l_elbow': 80},
    ],
)
def test_noise_causes_no_jumps_near_singularities(degrees):
    count, rng = 200, np.random.default_rng(0)
    bodies = random_bodies(rest(count, **degrees))
    clean_mm = bodies.landmarks_mm
    last, step_s, changes = bodies.angles, np.inf, []
    for _ in range(40):
        bodies.landmarks_mm = clean_mm + rng.normal(size=clean_mm.shape) * 8.0
        angles = solve(bodies, last=last, step_s=step_s)
        changes.append(np.abs(angles - last))
        last, step_s = angles, FRAME_S
    changes_degrees = np.degrees(changes[1:])
    assert changes_degrees.max() < 30
    assert np.median(changes_degrees) < 3


def test_arms_that_swing_through_the_vertical_are_followed():
    """The yaw of a hanging arm is not determined."""
    times_s = np.arange(0, 2, FRAME_S)
    swing = 35 * np.sin(2 * np.pi * 0.7 * times_s)
    bodies = random_bodies(rest(1))
    last, step_s, errors = bodies.angles, np.inf, []
    upper_mm, fore_mm = bodies.lengths_mm[0, 3:5]
    for degrees in swing:
        angle = np.radians(degrees)
        down = np.array([np.sin(angle), 0.03, -np.cos(angle)])
        shoulder_mm = bodies.landmarks_mm[0, 5]
        direction = bodies.frames.torsos[0] @ down / np.linalg.norm(down)
        bodies.landmarks_mm[0, 7] = shoulder_mm + upper_mm * direction
        bodies.landmarks_mm[0, 9] = shoulder_mm + (upper_mm + fore_mm) * direction
        angles = solve(bodies, last=last, step_s=step_s)
        assert np.abs(angles - last).max() <= MAX_SPEED * step_s + 1e-9
        errors.append(errors_mm(bodies, angles)[0, 9])
        last, step_s = angles, FRAME_S
    assert np.median(errors) < 60


def test_undetermined_angles_settle_so_that_people_at_rest_are_reproduced():
    bodies = random_bodies(random_angles(500, seed=3))
    angles, step_s = solve(bodies, last=random_angles(500, seed=4), step_s=FRAME_S), FRAME_S
    for _ in range(150):
        angles = solve(bodies, last=angles, step_s=step_s)
    assert np.quantile(errors_mm(bodies, angles), 0.99) < 5.0


def test_both_sides_of_the_body_are_mirror_images():
    bodies = random_bodies(random_angles(500))
    mirrored = dataclasses.replace(bodies, landmarks_mm=bodies.landmarks_mm.copy())
    body_mm = (bodies.landmarks_mm - bodies.frames.origins_mm[:, None]) @ bodies.frames.bodies
    swap = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    mirrored.landmarks_mm = to_world(bodies.frames, body_mm[:, swap] * [1, -1, 1])
    here, there = solve(bodies), solve(mirrored)
    np.testing.assert_allclose(there[:, ARMS[0]], here[:, ARMS[1]], atol=1e-6)
    np.testing.assert_allclose(there[:, LEGS[0]], here[:, LEGS[1]] * [-1, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(there[:, 1:4], here[:, 1:4] * [-1, -1, 1], atol=1e-6)
