"""Pictures of skeletons: orientation, sides and names."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from test_people import people_at

from metrabs_ros.report.skeleton_picture import (
    CENTRE,
    FRONT,
    LEFT,
    RIGHT,
    draw_autoencoder,
    draw_skeleton,
    in_body_frame,
    label_joints,
    side_colors,
)
from metrabs_ros.skeletons.affine_autoencoder import AffineAutoencoder
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, Skeleton


@given(st.integers(0, 2**32 - 1))
def test_the_body_is_upright_and_its_left_side_is_on_the_right(seed):
    pose_mm = people_at((0, 0, 4000)).poses3d_mm[0]
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    body_mm = in_body_frame(pose_mm @ rotation.T + rng.normal(0, 3000, 3), BLAZEPOSE_33)
    index = BLAZEPOSE_33.joint_names.index
    assert body_mm[index('nose'), 1] > body_mm[index('left_hip'), 1]
    assert body_mm[index('left_hip'), 1] > body_mm[index('left_ankle'), 1]
    for part in ('shoulder', 'hip', 'ear'):
        assert body_mm[index(f'left_{part}'), 0] > body_mm[index(f'right_{part}'), 0]
    # Towards the viewer.
    assert body_mm[index('nose'), 2] > body_mm[index('left_ear'), 2]
    assert body_mm[index('left_foot_index'), 2] > body_mm[index('left_heel'), 2]


def test_colours_show_the_side():
    names = ('left_a', 'right_a', 'mouth_left', 'mouth_right', 'nose', 'lwri', 'rwri')
    pairs = ((0, 1), (2, 3), (5, 6))
    colors = side_colors(Skeleton('', names, (), pairs))
    assert colors == [LEFT, RIGHT, LEFT, RIGHT, CENTRE, LEFT, RIGHT]


def test_joints_without_names_of_parts_are_drawn():
    skeleton = Skeleton('', ('a', 'b', 'c'), ((0, 1),))
    for pose_mm in (np.random.default_rng(0).normal(0, 500, (3, 3)), np.zeros((3, 3))):
        assert np.isfinite(in_body_frame(pose_mm, skeleton)).all()


def test_names_are_written_once_beside_the_body():
    body_mm = in_body_frame(people_at((0, 0, 4000)).poses3d_mm[0], BLAZEPOSE_33)
    axes = Figure().subplots()
    draw_skeleton(axes, body_mm, BLAZEPOSE_33, FRONT)
    names, colors = list(BLAZEPOSE_33.joint_names), side_colors(BLAZEPOSE_33)
    label_joints(axes, body_mm, names, colors, 7)
    assert sorted(text.get_text() for text in axes.texts) == sorted(names)
    for text in axes.texts:
        is_right = text.get_position()[0] > body_mm[:, 0].max()
        assert is_right or text.get_position()[0] < body_mm[:, 0].min()
        assert 'left' not in text.get_text() or is_right
        assert 'right' not in text.get_text() or not is_right


@pytest.mark.parametrize('names', [BLAZEPOSE_33.joint_names, tuple(f'$x^{i}' for i in range(33))])
def test_latent_points_are_drawn(tmp_path, names):
    mirror = BLAZEPOSE_33.mirror
    own = AffineAutoencoder(
        np.eye(33), np.eye(33), Skeleton('', names, (), ((11, 12),)), mirror, np.zeros(33)
    )
    draw_autoencoder(own, people_at((0, 0, 4000)).poses3d_mm[0], tmp_path / 'a.png')
    picture = cv2.imread(str(tmp_path / 'a.png'))
    assert (picture < 250).any(axis=-1).mean() > 0.005
