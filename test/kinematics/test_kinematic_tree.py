"""Test parsing of URDFs, and forward kinematics against independent calculations."""

import sys

import numpy as np
import pytest
from bodies import ADULT_MM, random_angles, rest

from metrabs_ros.conversions.transforms import rotation_matrix
from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.human_urdf import urdf_text
from metrabs_ros.kinematics.kinematic_tree import FIXED, parse_urdf


def test_forward_kinematics_equal_products_of_single_rotations():
    tree, angles = human_model().tree, random_angles(5)
    rotations, positions_mm = tree.forward(angles)
    for n in range(len(angles)):
        poses = {-1: np.eye(4)}
        for i, parent in enumerate(tree.parents.tolist()):
            own = np.eye(4)
            own[:3, 3] = tree.origins_mm[i]
            if tree.angle_indices[i] != FIXED:
                half = angles[n, tree.angle_indices[i]] / 2
                own[:3, :3] = rotation_matrix(*np.sin(half) * tree.axes[i], np.cos(half))
            poses[i] = poses[parent] @ own
            np.testing.assert_allclose(rotations[n, i], poses[i][:3, :3], atol=1e-12)
            np.testing.assert_allclose(positions_mm[n, i], poses[i][:3, 3], atol=1e-9)


def test_quaternions_equal_the_rotations_of_joints():
    tree, angles = human_model().tree, random_angles(3)
    for quaternions, matrices in zip(tree.joint_quaternions(angles), tree.joint_rotations(angles)):
        for quaternion, matrix in zip(quaternions, matrices):
            np.testing.assert_allclose(rotation_matrix(*quaternion), matrix, atol=1e-12)


@pytest.mark.parametrize(
    ('angle', 'landmark', 'axis', 'sign'),
    [
        ('waist', 5, 0, 1),  # the shoulders move forward
        ('l_elbow', 9, 0, 1),  # hands move forward
        ('r_elbow', 10, 0, 1),
        ('l_p_shoulder', 7, 1, 1),  # arms are raised sideways
        ('r_p_shoulder', 8, 1, -1),
        ('l_r_hip', 13, 0, 1),  # thighs move forward
        ('r_r_hip', 14, 0, 1),
        ('l_p_hip', 13, 1, 1),  # legs are raised sideways
        ('r_p_hip', 14, 1, -1),
        ('p_head', 0, 2, 1),  # the face looks up
        ('y_head', 0, 1, 1),  # the face looks to the left
        ('r_head', 3, 2, 1),  # the left ear moves up
    ],
)
def test_positive_angles_move_landmarks_in_the_documented_direction(angle, landmark, axis, sign):
    model = human_model()
    before, after = model.landmarks_mm(
        np.concatenate([rest(), rest(**{angle: 30})]), np.tile(ADULT_MM, (2, 1))
    )
    assert sign * (after - before)[landmark, axis] > 20


def test_knees_bend_backwards():
    straight, bent = human_model().landmarks_mm(
        np.concatenate([rest(), rest(l_knee=-60, r_knee=-60)]), np.tile(ADULT_MM, (2, 1))
    )
    assert (bent[15:17, 0] < straight[15:17, 0] - 100).all()


def test_joints_that_are_not_supported_are_rejected():
    text = urdf_text('p1', ADULT_MM)
    with pytest.raises(ValueError, match='waist_p1 is prismatic; it must be fixed or revolute'):
        parse_urdf(
            text.replace('name="waist_p1" type="revolute"', 'name="waist_p1" type="prismatic"')
        )
    with pytest.raises(ValueError, match=r'waist_p1 is rotated by .*; only parallel'):
        parse_urdf(
            text.replace('xyz="0 0 0" rpy="0 0 0" /><axis', 'xyz="0 0 0" rpy="0 0 1" /><axis')
        )


def test_a_missing_parser_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'urdf_parser_py.urdf', None)
    with pytest.raises(ImportError, match='pip install urdf-parser-py'):
        parse_urdf(urdf_text('p1', ADULT_MM))
