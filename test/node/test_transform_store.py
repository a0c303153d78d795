"""The transform store keeps the latest transforms of a limited number of frames."""

from __future__ import annotations

import numpy as np
import pytest
from robots import transform

from metrabs_ros.node import transform_store
from metrabs_ros.node.transform_store import MAX_FRAMES, TransformStore

HALF_TURN = (0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def frames():
    return TransformStore()


def test_poses_follow_the_tree_in_both_directions(frames):
    frames.set_transform_static(transform('map', 'odom', place=(1.0, 0.0, 0.0)), 'test')
    frames.set_transform(transform('odom', 'base', HALF_TURN, (0.0, 2.0, 0.0)), 'test')
    frames.set_transform(transform('base', 'camera', place=(0.5, 0.0, 0.0)), 'test')
    frames.set_transform(transform('map', 'other', HALF_TURN), 'test')
    np.testing.assert_allclose(frames.pose('camera', 'map').translation_m, (0.5, 2, 0), atol=1e-9)
    np.testing.assert_allclose(frames.pose('map', 'camera').translation_m, (0.5, 2, 0), atol=1e-9)
    np.testing.assert_allclose(frames.pose('base', 'other').rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(frames.pose('/camera', '/base').translation_m, (0.5, 0, 0))
    assert frames.names() == {'map', 'odom', 'base', 'camera', 'other'}
    assert frames.pose('nowhere', 'map') is None


def test_the_latest_transform_is_used_and_may_change_the_parent(frames):
    frames.set_transform(transform('a', 'c', place=(1.0, 0.0, 0.0)), 'test')
    frames.set_transform(transform('b', 'c', place=(2.0, 0.0, 0.0)), 'test')
    assert frames.pose('c', 'a') is None
    np.testing.assert_allclose(frames.pose('c', 'b').translation_m, (2, 0, 0))


def test_the_number_of_frames_is_limited(frames):
    frames.set_transform_static(transform('base', 'camera'), 'test')
    for i in range(10_000):
        frames.set_transform(transform(f'parent_{i}', f'child_{i}'), 'test')
    assert len(frames.names()) <= 2 * MAX_FRAMES
    assert frames.pose('child_9999', 'parent_9999') is not None
    assert frames.pose('child_0', 'parent_0') is None
    # Static frames are kept, because they are published only once.
    assert frames.pose('camera', 'base') is not None
    for i in range(10_000):
        frames.set_transform_static(transform('base', f'fixed_{i}'), 'test')
    assert len(frames.names()) <= 2 * MAX_FRAMES
    assert frames.pose('camera', 'base') is not None


def test_frames_without_recent_transforms_are_not_listed(frames, monkeypatch):
    frames.set_transform(transform('map', 'person_1'), 'test')
    monkeypatch.setattr(transform_store, 'FRAME_TIMEOUT_S', 0.0)
    assert frames.names() == set()


def test_a_cycle_gives_no_pose(frames):
    for parent, child in ('ab', 'bc', 'ca'):
        frames.set_transform(transform(parent, child), 'test')
    frames.set_transform(transform('c', 'below'), 'test')
    for frame in ('a', 'b', 'below'):
        assert frames.pose(frame, 'elsewhere') is None
        assert frames.pose('elsewhere', frame) is None
        assert frames.pose(frame, 'b') is None
    frames.set_transform(transform('map', 'a', place=(1.0, 0.0, 0.0)), 'test')
    np.testing.assert_allclose(frames.pose('below', 'map').translation_m, (1, 0, 0))


@pytest.mark.parametrize('is_cycle', [False, True])
def test_each_pose_is_computed_once_after_an_update(frames, monkeypatch, is_cycle):
    for i in range(MAX_FRAMES):
        parent = (i + 1) % MAX_FRAMES if is_cycle else i + 1
        frames.set_transform(transform(f'{parent}', f'{i}', place=(1.0, 0.0, 0.0)), 'test')
    lookups, links = [], frames._edges

    class Counted(dict):
        def __getitem__(self, name):
            lookups.append(name)
            return super().__getitem__(name)

        def get(self, name, default=None):
            lookups.append(name)
            return super().get(name, default)

    monkeypatch.setattr(frames, '_edges', Counted(links))
    poses = {name: frames.pose(name, '10') for name in sorted(links)}
    assert len(lookups) <= 2 * MAX_FRAMES
    if is_cycle:
        assert set(poses.values()) == {None}
    else:
        for name, pose in poses.items():
            np.testing.assert_allclose(pose.translation_m, (10 - float(name), 0, 0), atol=1e-9)


def test_lookups_of_unknown_frames_are_not_cached(frames):
    frames.set_transform(transform('map', 'a'), 'test')
    for i in range(1000):
        assert frames.pose(f'unknown_{i}', 'map') is None
    assert set(frames._rooted_poses) <= {'a'}


@pytest.mark.parametrize(
    ('parent', 'child', 'rotation', 'place'),
    [
        ('', 'c', (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ('a', '', (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ('a', 'a', (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ('a', '/a', (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ('a', 'c', (0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ('a', 'c', (float('nan'), 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ('a', 'c', (1e300, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
        ('a', 'c', (0.0, 0.0, 0.0, 1.0), (float('nan'), 0.0, 0.0)),
        ('a', 'c', (0.0, 0.0, 0.0, 1.0), (0.0, float('inf'), 0.0)),
        ('a', 'c', (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1e308)),
        ('a', 'c' * 100_000, (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    ],
)
def test_malformed_transforms_are_ignored(frames, parent, child, rotation, place):
    frames.set_transform(transform(parent, child, rotation, place), 'test')
    frames.set_transform_static(transform(parent, child, rotation, place), 'test')
    assert frames.names() == set()
