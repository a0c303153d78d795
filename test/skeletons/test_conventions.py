"""Joint names, mirroring, body parts and subsets of skeletons."""

from __future__ import annotations

import numpy as np
import pytest

from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Skeleton


@pytest.mark.parametrize(('skeleton', 'joints'), [(BLAZEPOSE_33, 33), (COCO_17, 17)])
def test_published_conventions_are_complete(skeleton, joints):
    assert len(skeleton) == joints == len(set(skeleton.joint_names))
    assert {joint for edge in skeleton.edges for joint in edge} == set(range(joints))


def test_blazepose_joints_are_in_the_order_of_the_network():
    names = BLAZEPOSE_33.joint_names
    assert names[:4] == ('nose', 'left_eye_inner', 'left_eye', 'left_eye_outer')
    assert names[9:13] == ('mouth_left', 'mouth_right', 'left_shoulder', 'right_shoulder')
    assert names[23:25] == ('left_hip', 'right_hip')
    assert names[31:] == ('left_foot_index', 'right_foot_index')


@pytest.mark.parametrize('skeleton', [BLAZEPOSE_33, COCO_17])
def test_mirror_swaps_left_and_right_and_is_its_own_inverse(skeleton):
    mirror = skeleton.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(skeleton)))
    for name, partner in zip(skeleton.joint_names, mirror):
        other = skeleton.joint_names[partner]
        assert ('left' in name) == ('right' in other)


def test_coco_is_a_subset_of_blazepose():
    indices = COCO_17.within(BLAZEPOSE_33).indices
    assert [BLAZEPOSE_33.joint_names[i] for i in indices] == list(COCO_17.joint_names)


def test_a_missing_joint_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"coco_17 has no joints \['tail'\]"):
        Skeleton('cat', ('nose', 'tail'), ()).within(COCO_17)


def test_mirror_supports_abbreviated_names():
    names = ('lhip', 'rhip', 'neck', 'lwri_coco', 'rwri_coco', 'lone', 'reye_inner')
    assert Skeleton('', names, ()).mirror.tolist() == [1, 0, 2, 4, 3, 5, 6]


def test_parts_are_found_by_full_and_abbreviated_names():
    assert BLAZEPOSE_33.part('shoulder', 'right').tolist() == [12]
    assert BLAZEPOSE_33.part('nose').tolist() == [0]
    short = Skeleton('', ('lsho', 'rsho_h36m', 'rsho_coco', 'lshoe'), ())
    assert short.part('shoulder', 'left').tolist() == [0]
    assert short.part('shoulder', 'right').tolist() == [1, 2]
    assert short.part('knee', 'left').tolist() == []
