"""Test that the URDF has the structure that tools of ROS4HRI expect, and the given lengths."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from bodies import ADULT_MM, random_angles

from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.human_urdf import PROPORTIONS, SEGMENTS, urdf_text
from metrabs_ros.kinematics.kinematic_tree import parse_urdf
from metrabs_ros.kinematics.landmarks import LANDMARKS

ANGLES = (
    *('waist', 'r_head', 'y_head', 'p_head'),
    *(
        f'{side}_{joint}'
        for joints in (('y_shoulder', 'p_shoulder', 'r_shoulder', 'elbow'),)
        for side in 'lr'
        for joint in joints
    ),
    *(f'{side}_{joint}' for side in 'lr' for joint in ('y_hip', 'p_hip', 'r_hip', 'knee')),
)
LIMITS = {
    'waist': (-0.2, 1.0),
    'r_head': (-1.0, 1.0),
    'y_head': (-1.4, 1.4),
    'p_head': (-1.5, 1.5),
    'y_shoulder': (-1.1, 1.9),
    'p_shoulder': (-0.4, 3.3),
    'r_shoulder': (-1.7, 1.5),
    'elbow': (0.0, 2.5),
    'p_hip': (-0.4, 3.3),
    'r_hip': (-0.4, 0.7),
    'knee': (-2.5, 0.0),
}
AXES = {
    'waist': (0, 1, 0),
    'r_head': (1, 0, 0),
    'y_head': (0, 0, 1),
    'p_head': (0, -1, 0),
    'l_y_shoulder': (0, 0, -1),
    'r_y_shoulder': (0, 0, 1),
    'l_p_shoulder': (1, 0, 0),
    'r_p_shoulder': (-1, 0, 0),
    'l_r_shoulder': (0, 0, 1),
    'r_r_shoulder': (0, 0, -1),
    'l_elbow': (0, -1, 0),
    'r_elbow': (0, -1, 0),
    'l_y_hip': (0, 0, -1),
    'r_y_hip': (0, 0, -1),
    'l_p_hip': (1, 0, 0),
    'r_p_hip': (-1, 0, 0),
    'l_r_hip': (0, -1, 0),
    'r_r_hip': (0, -1, 0),
    'l_knee': (0, -1, 0),
    'r_knee': (0, -1, 0),
}


def joints_by_name(body_id='p1'):
    robot = ElementTree.fromstring(urdf_text(body_id, ADULT_MM))
    return {joint.get('name').removesuffix(f'_{body_id}'): joint for joint in robot.iter('joint')}


def test_the_angles_have_the_names_and_the_order_of_the_template():
    assert human_model().tree.angle_names == ANGLES


def test_axes_and_limits_are_those_of_the_template_except_for_the_yaw_of_the_hips():
    joints = joints_by_name()
    for name, axis in AXES.items():
        np.testing.assert_allclose(
            [float(x) for x in joints[name].find('axis').get('xyz').split()], axis
        )
        limit = joints[name].find('limit')
        given = LIMITS.get(name, LIMITS.get(name[2:], (-1.5, 1.5)))
        assert (float(limit.get('lower')), float(limit.get('upper'))) == given, name


def test_all_names_end_with_the_id():
    robot = ElementTree.fromstring(urdf_text('left_p12', ADULT_MM))
    named = [*robot.iter('link'), *robot.iter('joint')]
    assert len(named) == 27 + 26
    assert all(element.get('name').endswith('_left_p12') for element in named)


@pytest.mark.parametrize('segment', SEGMENTS)
def test_each_segment_has_its_length_in_metres(segment):
    lengths_mm = ADULT_MM.copy()
    lengths_mm[SEGMENTS.index(segment)] = 123.4
    tree = parse_urdf(urdf_text('p1', lengths_mm), '_p1')
    link, axis, share = {
        'head_radius': ('head', 2, 1),
        'neck': ('r_head', 2, 1),
        'shoulder': ('l_y_shoulder', 1, 1),
        'upper_arm': ('l_elbow', 2, -1),
        'forearm': ('r_wrist', 2, -1),
        'torso': ('torso', 2, 1),
        'hips': ('r_y_hip', 1, -0.5),
        'thigh': ('r_knee', 2, -1),
        'shank': ('l_ankle', 2, -1),
    }[segment]
    assert tree.origins_mm[tree.index(link), axis] == pytest.approx(share * 123.4)


def test_the_model_agrees_with_the_published_urdf_for_any_lengths_and_angles():
    rng = np.random.default_rng(0)
    model, angles = human_model(), random_angles(20)
    for i in range(len(angles)):
        lengths_mm = rng.uniform(50, 800, len(SEGMENTS))
        tree = parse_urdf(urdf_text('x', lengths_mm), '_x')
        published = tree.forward(angles[i : i + 1])
        ours = model.tree.forward(angles[i : i + 1], model.origins_mm(lengths_mm[None]))
        assert tree.link_names == model.tree.link_names
        np.testing.assert_allclose(ours[0], published[0], atol=1e-12)
        np.testing.assert_allclose(ours[1], published[1], atol=0.02)


def test_a_person_stands_with_hanging_arms_at_angles_of_0():
    (landmarks_mm,) = human_model().landmarks_mm(np.zeros((1, 20)), ADULT_MM[None])
    place = dict(zip(LANDMARKS, landmarks_mm))
    unit_mm = 1700 / 7.5
    np.testing.assert_allclose(place['left_ankle'], np.array([0, 0.6, -3.5]) * unit_mm, atol=0.01)
    np.testing.assert_allclose(
        place['right_wrist'], np.array([0, -0.8, 0.15]) * unit_mm, atol=0.01
    )
    assert place['nose'][0] > 0
    assert place['left_eye'][1] > 0
    assert place['nose'][2] > place['left_shoulder'][2] > place['left_elbow'][2]


def test_proportions_are_those_of_the_template():
    np.testing.assert_allclose(7.5 * PROPORTIONS, [0.5, 0.25, 0.8, 1.6, 1, 2.75, 1.2, 1.5, 2])
