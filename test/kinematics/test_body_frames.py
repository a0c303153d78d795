"""Test the frames of torsos and bodies."""

import numpy as np
import pytest
from bodies import UP, random_angles, random_bodies, standing

from metrabs_ros.conversions.transforms import body_axes
from metrabs_ros.kinematics.body_frames import WAIST_LIMITS, body_frames


def frames_of(landmarks_mm, known=None, last_waist=0.0, step_s=np.inf):
    count = len(landmarks_mm)
    known = np.ones((count, 17), bool) if known is None else known
    full = np.ones(count)
    return body_frames(landmarks_mm, known, UP, last_waist * full, step_s * full)


def test_the_body_frame_is_at_the_hips_x_forward_y_left_z_to_the_head():
    frames = frames_of(standing((1000, 2000, 900)))
    np.testing.assert_allclose(frames.origins_mm, [[1000, 2000, 900]])
    np.testing.assert_allclose(frames.bodies[0], np.eye(3), atol=1e-9)
    assert frames.waist == pytest.approx(0)


def test_torsos_are_those_of_the_model_for_any_angles():
    bodies = random_bodies(random_angles(1000))
    frames = frames_of(bodies.landmarks_mm)
    np.testing.assert_allclose(frames.origins_mm, bodies.frames.origins_mm, atol=1e-6)
    np.testing.assert_allclose(frames.torsos, bodies.frames.torsos, atol=1e-9)


def test_all_frames_are_rotations_also_for_people_without_extent():
    rng = np.random.default_rng(0)
    for landmarks_mm in (np.zeros((5, 17, 3)), rng.normal(size=(100, 17, 3)) * 400):
        frames = frames_of(landmarks_mm)
        for rotations in (frames.torsos, frames.bodies):
            products = rotations @ np.swapaxes(rotations, 1, 2)
            np.testing.assert_allclose(
                products, np.broadcast_to(np.eye(3), products.shape), atol=1e-9
            )
            np.testing.assert_allclose(np.linalg.det(rotations), 1)


@pytest.mark.parametrize(('flexion', 'waist'), [(90, 53), (40, 24), (-20, -7)])
def test_the_pelvis_tilts_by_a_share_of_the_angle_between_torso_and_thighs(flexion, waist):
    # The same legs for another tilt: all of the angle is at the hips, beyond their limits.
    landmarks_mm = standing((0, 0, 0), l_r_hip=flexion, r_r_hip=flexion)
    frames = frames_of(landmarks_mm)
    assert np.degrees(frames.waist[0]) == pytest.approx(waist, abs=1)
    # The torso is upright, the pelvis tilts back.
    np.testing.assert_allclose(frames.torsos[0], np.eye(3), atol=1e-9)
    assert np.degrees(
        np.arctan2(-frames.bodies[0, 0, 2], frames.bodies[0, 2, 2])
    ) == pytest.approx(np.degrees(frames.waist[0]))


def test_the_waist_is_within_its_limits_and_within_those_of_both_hips_if_possible():
    for left, right in ((60, 30), (90, 90), (160, 150), (-60, -60), (70, 0), (100, -40)):
        landmarks_mm = standing((0, 0, 0), l_r_hip=left, r_r_hip=right)
        (waist,) = frames_of(landmarks_mm).waist
        assert WAIST_LIMITS[0] <= waist <= WAIST_LIMITS[1]
        if left - right < 60 and left < 90:
            assert np.radians(max(left, right)) - waist <= 0.7 + 1e-6
            assert np.radians(min(left, right)) - waist >= -0.85


def test_unknown_legs_keep_the_last_angle_of_the_waist():
    known = np.ones((1, 17), bool)
    known[:, 13:] = False
    landmarks_mm = standing((0, 0, 0), l_r_hip=50, r_r_hip=50)
    assert frames_of(landmarks_mm, known, 0.25, 1 / 30).waist == pytest.approx(0.25)
    assert frames_of(landmarks_mm, None, 0.25, 1 / 30).waist == pytest.approx(0.513, abs=0.01)


def test_the_waist_turns_at_a_limited_speed():
    landmarks_mm = standing((0, 0, 0), l_r_hip=90, r_r_hip=90)
    assert frames_of(landmarks_mm, None, -0.2, 1 / 30).waist == pytest.approx(0.3)


def test_torsos_have_the_axes_of_person_frames_if_hips_and_shoulders_are_parallel():
    from bodies import people_of

    people = people_of(standing((0, 0, 0), (100, 0, 50)))
    axes = body_axes(people)
    np.testing.assert_allclose(frames_of(people.poses3d_mm).torsos, axes, atol=1e-9)


def test_twisted_torsos_are_between_the_directions_of_hips_and_shoulders():
    landmarks_mm = standing((0, 0, 0))
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks_mm[0, 5:7, :2] = landmarks_mm[0, 5:7, :2] @ turn.T
    forward = frames_of(landmarks_mm).torsos[0, :, 0]
    assert 0 < np.degrees(np.arctan2(forward[1], forward[0])) < 30
