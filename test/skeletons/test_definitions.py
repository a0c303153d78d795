"""Skeletons as affine combinations: equivariance, propagation, built-in definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from known_people import KnownPeople
from test_people import people_at

from metrabs_ros.camera import Camera
from metrabs_ros.people import in_view
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Convention, Skeleton
from metrabs_ros.skeletons.definitions import SkeletonDefinition

ALL = {'': BLAZEPOSE_33.within(BLAZEPOSE_33)}
NAMES = sorted(DEFINITIONS)
poses = arrays(np.float64, (4, 33, 3), elements=st.floats(-900, 900))


def bound(name):
    return DEFINITIONS[name].within(ALL)


def definition(**changes):
    """Return a definition of two joints, the midpoint of the hips and the nose."""
    parts = {
        'skeleton': Skeleton('pair_2', ('pelvis', 'nose'), ((0, 1),)),
        'source': 'blazepose_33',
        'source_joints': ('left_hip', 'right_hip', 'nose'),
        'weights': np.array([[0.5, 0.5, 0], [0, 0, 1]]),
        'deviations_mm': np.zeros(2),
        'notes': ('', ''),
    }
    return SkeletonDefinition(**{**parts, **changes})


@pytest.mark.parametrize('name', NAMES)
@given(pose=poses, shift=arrays(np.float64, 3, elements=st.floats(-5000, 5000)))
def test_conversion_commutes_with_affine_maps_and_mirroring(name, pose, shift):
    convention = bound(name)
    linear = np.array([[0.2, -1.3, 0.4], [0.9, 0.1, -0.5], [0.3, 0.8, 1.1]])
    moved = convention.positions(pose @ linear.T + shift)
    np.testing.assert_allclose(moved, convention.positions(pose) @ linear.T + shift, atol=1e-8)
    mirrored = convention.positions(pose[:, BLAZEPOSE_33.mirror])
    np.testing.assert_allclose(
        mirrored, convention.positions(pose)[:, convention.skeleton.mirror], atol=1e-9
    )


@pytest.mark.parametrize('name', NAMES)
def test_joints_of_the_same_name_are_the_same_unless_a_note_says_otherwise(name):
    own = DEFINITIONS[name]
    for joint, row, note, deviation_mm in zip(
        own.skeleton.joint_names, own.weights, own.notes, own.deviations_mm
    ):
        is_same = dict(zip(own.source_joints, row)).get(joint) == 1
        assert is_same or note, joint
        assert not deviation_mm or note, joint
        assert joint not in BLAZEPOSE_33.joint_names or is_same


@pytest.mark.parametrize('name', NAMES)
def test_the_number_in_the_name_is_that_of_the_joints_and_bones_connect_all_of_them(name):
    skeleton = DEFINITIONS[name].skeleton
    assert len(skeleton) == int(name.split('_')[-1])
    assert {joint for edge in skeleton.edges for joint in edge} == set(range(len(skeleton)))
    assert len(set(skeleton.edges)) == len(skeleton.edges)


def test_published_orders_of_joints():
    h36m, smpl = (DEFINITIONS[name].skeleton.joint_names for name in ('h36m_17', 'smpl_24'))
    assert h36m[:5] == ('pelvis', 'right_hip', 'right_knee', 'right_ankle', 'left_hip')
    assert h36m[7:12] == ('spine', 'neck', 'head', 'head_top', 'left_shoulder')
    assert smpl[:4] == ('pelvis', 'left_hip', 'right_hip', 'spine1')
    assert smpl[12:17] == ('neck', 'left_collar', 'right_collar', 'head', 'left_shoulder')
    kinect = DEFINITIONS['kinectv2_25'].skeleton.joint_names
    assert (kinect[4], kinect[15], kinect[20]) == ('left_shoulder', 'left_foot', 'spine_shoulder')
    assert kinect[21:] == ('left_hand_tip', 'left_thumb', 'right_hand_tip', 'right_thumb')
    ros4hri = DEFINITIONS['ros4hri_18'].skeleton.joint_names
    assert ros4hri[:3] == ('nose', 'neck', 'right_shoulder')
    assert ros4hri[8:12] == ('right_hip', 'right_knee', 'right_ankle', 'left_hip')
    assert ros4hri[14:] == ('left_eye', 'right_eye', 'left_ear', 'right_ear')


def test_estimated_joints_are_at_plausible_heights():
    # Joints of a person who stands: y points down.
    people = people_at((0, 0, 4000))
    for name, order in (
        ('smpl_24', 'head neck spine3 spine2 spine1 pelvis left_knee left_ankle'),
        ('h36m_17', 'head_top head neck spine pelvis right_knee right_ankle'),
        ('kinectv2_25', 'head neck spine_shoulder spine_mid spine_base left_knee left_foot'),
    ):
        converted = people.in_convention(bound(name))
        index = converted.skeleton.joint_names.index
        heights_mm = [-converted.poses3d_mm[0, index(joint), 1] for joint in order.split()]
        assert heights_mm == sorted(heights_mm, reverse=True)


def test_a_selection_is_the_same_as_indexing():
    people = people_at((100, 0, 4000), (900, 0, 3000))
    converted = people.in_convention(bound('coco_17'))
    joints = COCO_17.within(BLAZEPOSE_33).indices
    for name in (
        *('poses3d_mm', 'poses2d_px', 'joint_confidence', 'in_view', 'joint_std_mm'),
        *('velocities_mm_s', 'axis_std_mm', 'network_poses2d_px'),
    ):
        np.testing.assert_array_equal(
            getattr(converted, name), getattr(people, name)[:, joints], err_msg=name
        )


@given(
    arrays(np.float64, (2, 33, 3), elements=st.floats(-1000, 1000)),
    st.sampled_from(NAMES),
)
def test_image_points_are_the_projections_of_the_converted_positions(offsets_mm, name):
    camera = Camera([[600, 0, 320], [0, 600, 240], [0, 0, 1]])
    positions_mm = offsets_mm + np.array([0, 0, 1500])
    convention = bound(name)
    converted_mm = convention.positions(positions_mm)
    points_px = convention.image_points(camera.project(positions_mm), positions_mm[..., 2])
    # Extrapolated joints, such as the top of the head, can be behind the camera.
    in_front = converted_mm[..., 2] > 200
    np.testing.assert_allclose(
        points_px[in_front], camera.project(converted_mm)[in_front], atol=1e-5
    )
    assert np.isfinite(points_px).all()


def test_image_points_of_people_behind_the_camera_are_finite():
    convention = bound('smpl_24')
    points_px = np.full((1, 33, 2), 1e9)
    for depths_mm in (np.zeros((1, 33)), np.full((1, 33), -1e9), np.full((1, 33), 1e-300)):
        assert np.isfinite(convention.image_points(points_px, depths_mm)).all()


def test_deviations_lie_between_those_of_independent_and_common_errors():
    convention = dataclasses.replace(bound('h36m_17'), deviations_mm=None)
    rng = np.random.default_rng(0)
    deviations_mm = rng.uniform(10, 60, 33)
    propagated_mm = convention.deviations(deviations_mm)
    for correlation in (0.0, 0.4, 1.0):
        common = rng.standard_normal((20_000, 1, 1)) * np.sqrt(correlation)
        own = rng.standard_normal((20_000, 33, 1)) * np.sqrt(1 - correlation)
        errors_mm = (common + own) * deviations_mm[:, None]
        spread_mm = convention.positions(errors_mm)[..., 0].std(axis=0)
        assert (spread_mm < 1.03 * propagated_mm).all()
    assert propagated_mm[0] == pytest.approx(deviations_mm[23:25].mean())


def test_the_deviation_of_an_estimate_is_added():
    people = people_at((0, 0, 4000))
    converted = people.in_convention(bound('smpl_24'))
    hand = converted.skeleton.joint_names.index('left_hand')
    of_knuckles = people.joint_std_mm[0, 17:20:2].mean()
    assert converted.joint_std_mm[0, hand] == pytest.approx(np.hypot(of_knuckles, 15))
    np.testing.assert_allclose(
        converted.axis_std_mm[0, hand], np.hypot(people.axis_std_mm[0, 17:20:2].mean(axis=0), 15)
    )


def test_confidence_and_view_follow_the_weights():
    convention = definition().within(ALL)
    confidences = np.zeros(33)
    confidences[23], confidences[24], confidences[0] = 0.2, 0.8, 0.3
    np.testing.assert_allclose(convention.confidences(confidences), [0.5, 0.3])
    visible = np.zeros(33, bool)
    assert convention.in_view(visible).tolist() == [False, False]
    visible[23] = True
    assert convention.in_view(visible).tolist() == [True, False]


def test_a_definition_may_combine_joints_of_another_skeleton_of_the_model():
    conventions = {**ALL, 'smpl_24': bound('smpl_24')}
    middle = definition(
        source='smpl_24',
        source_joints=('left_hand', 'right_hand'),
        weights=np.full((2, 2), 0.5),
        deviations_mm=np.array([0.0, 8.0]),
    ).within(conventions)
    pose = np.random.default_rng(0).normal(size=(33, 3))
    hands = bound('smpl_24').positions(pose)[22:24]
    np.testing.assert_allclose(middle.positions(pose), hands.mean(axis=0)[None].repeat(2, 0))
    # The hands of smpl_24 deviate by 15 mm.
    np.testing.assert_allclose(middle.deviations_mm, [15, np.hypot(15, 8)])


def test_predictions_and_tracks_have_the_joints_of_a_definition():
    model = KnownPeople((0, 0, 3000))
    model.add_skeletons([definition()])
    assert model.per_skeleton_joint_names['pair_2'] == ['pelvis', 'nose']
    assert model.per_skeleton_joint_edges['pair_2'].tolist() == [[0, 1]]
    image = np.zeros((480, 640, 3), np.uint8)
    intrinsics = [[600, 0, 320], [0, 600, 240], [0, 0, 1]]
    converted = model.detect_poses(image, intrinsics, skeleton='pair_2')
    everything = model.detect_poses(image, intrinsics)
    np.testing.assert_allclose(
        converted['poses3d'][0, 0], everything['poses3d'][0, 23:25].mean(axis=0)
    )
    np.testing.assert_allclose(
        converted['poses2d'], Camera(intrinsics).project(converted['poses3d'])
    )
    tall = model.detect_poses(image, intrinsics, skeleton='pair_2', stature=2000)
    factor = tall['poses3d'][0, 0, 2] / converted['poses3d'][0, 0, 2]
    assert factor > 1.1
    np.testing.assert_allclose(tall['poses3d'], factor * converted['poses3d'], atol=1e-9)
    people = people_at((0, 0, 3000)).in_convention(model.convention('pair_2'))
    np.testing.assert_array_equal(
        people.in_view, in_view(people.poses3d_mm, people.poses2d_px, image.shape)
    )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'weights': np.array([[0.5, 0.4, 0], [0, 0, 1]])}, 'sum to 0.9 instead of 1 for .pelvis'),
        ({'weights': np.array([[np.nan, 0.5, 0], [0, 0, 1]])}, 'not finite or exceed 100 for'),
        ({'weights': np.array([[101, -100, 0.0], [0, 0, 1]])}, 'not finite or exceed 100 for'),
        ({'weights': np.eye(2)}, r'shape \(2, 2\); expected: \(2, 3\)'),
        ({'source_joints': ('nose', 'nose', 'left_hip')}, "source joint 'nose' occurs twice"),
        ({'skeleton': Skeleton('a', ('b', 'b'), ())}, "joint 'b' occurs twice"),
        ({'skeleton': Skeleton('a', ('b', 'c'), ((0, 2),))}, "edges of skeleton 'a' ref"),
        (
            {'skeleton': Skeleton('a', ('b', 'c'), (), ((0, 0),))},
            "mirror pairs joint 'b' with 'b'; a joint has one counterpart",
        ),
        ({'deviations_mm': np.array([-1.0, 0])}, 'deviations that are not from 0 to'),
        ({'notes': ('',)}, 'has 2 joints, but 2 deviations and 1 notes'),
    ],
)
def test_an_inconsistent_definition_is_rejected_in_one_sentence(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        definition(**changes)
    assert '\n' not in str(caught.value)


def test_a_mirror_that_is_not_an_involution_is_rejected():
    skeleton = Skeleton('a', ('b', 'c', 'd'), (), ((0, 1), (1, 2)))
    with pytest.raises(ValueError, match="joint 'c' with 'b', 'd'; a joint has one counterpart"):
        definition(
            skeleton=skeleton,
            weights=np.eye(3),
            deviations_mm=np.zeros(3),
            notes=('', '', ''),
        )


def test_explicit_mirror_pairs_are_used_instead_of_the_names():
    skeleton = Skeleton('a', ('left_a', 'right_a', 'b', 'c'), (), ((2, 3),))
    assert skeleton.mirror.tolist() == [0, 1, 3, 2]


def test_a_definition_for_another_network_is_rejected():
    model = KnownPeople((0, 0, 3000))
    other = definition(source='octopus_8', source_joints=('arm_1', 'arm_2', 'nose'))
    with pytest.raises(ValueError, match="joints of 'octopus_8', but the model lacks 'arm_1', "):
        model.add_skeletons([other])
    known = Skeleton('coco_17', ('pelvis', 'nose'), ())
    with pytest.raises(ValueError, match="skeleton 'coco_17' exists already in this model"):
        model.add_skeletons([definition(skeleton=known)])


def test_weights_of_one_are_a_selection():
    assert bound('coco_17').weights is None
    assert bound('h36m_17').weights is not None
    selected = Convention(Skeleton('x', ('a',), ()), np.array([1])).of(bound('coco_17'))
    assert selected.indices.tolist() == [2]
