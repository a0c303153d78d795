"""Lookup of transforms without ROS."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_transforms import transform_message

from metrabs_ros.conversions.transforms import quaternions, rotation_matrix
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.recordings.transform_buffer import (
    MAX_EXTRAPOLATION_NS,
    MAX_GAP_NS,
    MAX_STATIC_FRAMES,
    TransformBuffer,
)

SECOND_NS = 10**9
QUARTER_TURN = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))


def matrix_of(rotation, translation_m):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation_m
    return matrix


def lookup(buffer, target, source, stamp_ns=SECOND_NS):
    return matrix_of(*buffer.lookup(target, source, stamp_ns))


@st.composite
def rotations(draw):
    values = draw(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
    norm = np.linalg.norm(values)
    return np.array(values) / norm if norm > 0.1 else np.array([0, 0, 0, 1.0])


poses = st.tuples(rotations(), st.tuples(*[st.floats(-50, 50)] * 3))


@given(st.lists(poses, min_size=6, max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_chains_are_composed_through_the_common_ancestor(edges, is_static):
    # root <- a <- b <- camera, and a <- c <- d <- robot
    parents = {'a': 'root', 'b': 'a', 'camera': 'b', 'c': 'a', 'd': 'c', 'robot': 'd'}
    buffer, expected = TransformBuffer(), {'root': np.eye(4)}
    for (child, parent), (quaternion, translation_m), static in zip(
        parents.items(), edges, is_static
    ):
        put = buffer.put_static if static else buffer.put
        put(transform_message(parent, child, SECOND_NS, translation_m, quaternion))
        own = matrix_of(rotation_matrix(*quaternion), translation_m)
        expected[child] = expected[parent] @ own
    for target in expected:
        for source in expected:
            np.testing.assert_allclose(
                lookup(buffer, target, source),
                np.linalg.inv(expected[target]) @ expected[source],
                atol=1e-9,
            )


@given(poses, poses, st.floats(0, 1))
def test_transforms_are_interpolated_along_the_shortest_rotation(before, after, share):
    buffer = TransformBuffer()
    for stamp_ns, (quaternion, translation_m) in ((0, before), (SECOND_NS, after)):
        buffer.put(transform_message('map', 'base', stamp_ns, translation_m, quaternion))
    stamp_ns = round(share * SECOND_NS)
    found = lookup(buffer, 'map', 'base', stamp_ns)
    share = stamp_ns / SECOND_NS
    np.testing.assert_allclose(
        found[:3, 3], (1 - share) * np.array(before[1]) + share * np.array(after[1]), atol=1e-9
    )
    first, last = rotation_matrix(*before[0]), rotation_matrix(*after[0])
    whole, part = angle_of(first.T @ last), angle_of(first.T @ found[:3, :3])
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)
    assert part == pytest.approx(share * whole, abs=1e-5)
    assert angle_of(found[:3, :3].T @ last) == pytest.approx((1 - share) * whole, abs=1e-5)


def angle_of(rotation):
    """Return the angle of a rotation; accurate for small angles, too."""
    quaternion = quaternions(rotation[None])[0]
    return 2 * np.arctan2(np.linalg.norm(quaternion[:3]), abs(quaternion[3]))


def test_transforms_may_arrive_in_any_order():
    buffer = TransformBuffer()
    for i in (3, 1, 4, 0, 2):
        buffer.put(transform_message('map', 'base', i * SECOND_NS, (i, 0, 0)))
    for stamp_s in (0, 0.25, 1.5, 3.75, 4):
        assert lookup(buffer, 'map', 'base', round(stamp_s * SECOND_NS))[0, 3] == stamp_s


def test_static_transforms_have_no_stamp():
    buffer = TransformBuffer()
    buffer.put_static(transform_message('base', 'camera', 0, (1, 2, 3), QUARTER_TURN))
    for stamp_ns in (-SECOND_NS, 0, 10**12 * SECOND_NS):
        found = lookup(buffer, 'base', 'camera', stamp_ns)
        np.testing.assert_allclose(found[:3, 3], (1, 2, 3))
        np.testing.assert_allclose(found[:3, :3] @ (1, 0, 0), (0, 1, 0), atol=1e-12)


def test_the_nearest_transform_is_used_for_a_short_time():
    buffer = TransformBuffer()
    for i in range(2):
        buffer.put(transform_message('map', 'base', i * SECOND_NS, (i, 0, 0)))
    assert lookup(buffer, 'map', 'base', -MAX_EXTRAPOLATION_NS)[0, 3] == 0
    assert lookup(buffer, 'map', 'base', SECOND_NS + MAX_EXTRAPOLATION_NS)[0, 3] == 1
    for stamp_ns in (-MAX_EXTRAPOLATION_NS - 1, SECOND_NS + MAX_EXTRAPOLATION_NS + 1):
        with pytest.raises(UnusableInput, match=r"transforms of 'base' are 0\.1 s away"):
            lookup(buffer, 'map', 'base', stamp_ns)


def test_long_gaps_are_not_interpolated():
    buffer = TransformBuffer()
    buffer.put(transform_message('map', 'base', 0, (0, 0, 0)))
    buffer.put(transform_message('map', 'base', MAX_GAP_NS + SECOND_NS, (11, 0, 0)))
    with pytest.raises(UnusableInput, match=r"'base' are 5\.5 s away from the image"):
        lookup(buffer, 'map', 'base', 5 * SECOND_NS + SECOND_NS // 2)
    buffer.put(transform_message('map', 'base', MAX_GAP_NS, (10, 0, 0)))
    assert lookup(buffer, 'map', 'base', 5 * SECOND_NS)[0, 3] == 5


def test_a_frame_can_get_another_parent():
    buffer = TransformBuffer()
    buffer.put_static(transform_message('world', 'room', 0, (100, 0, 0)))
    buffer.put(transform_message('world', 'box', 0, (1, 0, 0)))
    buffer.put(transform_message('world', 'box', SECOND_NS, (2, 0, 0)))
    buffer.put(transform_message('room', 'box', 2 * SECOND_NS, (3, 0, 0)))
    buffer.put(transform_message('room', 'box', 3 * SECOND_NS, (4, 0, 0)))
    assert lookup(buffer, 'world', 'box', SECOND_NS // 2)[0, 3] == 1.5
    assert lookup(buffer, 'world', 'box', 2 * SECOND_NS + SECOND_NS // 2)[0, 3] == 103.5
    # Between transforms with different parents, the nearest one is used.
    assert lookup(buffer, 'world', 'box', SECOND_NS + 10**7)[0, 3] == 2
    assert lookup(buffer, 'world', 'box', 2 * SECOND_NS - 10**7)[0, 3] == 103
    with pytest.raises(UnusableInput, match='not connected'):
        lookup(buffer, 'world', 'box', SECOND_NS + SECOND_NS // 2)


def test_a_frame_can_become_static_and_moving_again():
    buffer = TransformBuffer()
    buffer.put(transform_message('map', 'base', SECOND_NS, (1, 0, 0)))
    buffer.put_static(transform_message('map', 'base', 0, (2, 0, 0)))
    assert lookup(buffer, 'map', 'base')[0, 3] == 2
    buffer.put(transform_message('map', 'base', SECOND_NS, (3, 0, 0)))
    assert lookup(buffer, 'map', 'base')[0, 3] == 3
    with pytest.raises(UnusableInput):
        lookup(buffer, 'map', 'base', 9 * SECOND_NS)


def test_slashes_before_names_are_ignored():
    buffer = TransformBuffer()
    buffer.put_static(transform_message('/map', '/base', 0, (1, 0, 0)))
    assert lookup(buffer, 'map', '/base')[0, 3] == 1


@pytest.mark.parametrize('put', ['put', 'put_static'])
def test_cycles_are_reported(put):
    buffer = TransformBuffer()
    for parent, child in (('a', 'b'), ('b', 'c'), ('c', 'a'), ('c', 'camera'), ('map', 'base')):
        getattr(buffer, put)(transform_message(parent, child, SECOND_NS, (1, 0, 0)))
    for target, source in (('map', 'camera'), ('a', 'c'), ('camera', 'base'), ('a', 'a')):
        with pytest.raises(UnusableInput, match='form a cycle'):
            buffer.lookup(target, source, SECOND_NS)
    assert lookup(buffer, 'map', 'base')[0, 3] == 1


def test_very_long_chains_are_rejected():
    buffer = TransformBuffer()
    for i in range(5000):
        buffer.put(transform_message(f'f{i}', f'f{i + 1}', SECOND_NS, (1, 0, 0)))
    assert lookup(buffer, 'f0', 'f50')[0, 3] == 50
    with pytest.raises(UnusableInput):
        buffer.lookup('f0', 'f5000', SECOND_NS)


def test_missing_and_unconnected_frames_are_named():
    buffer = TransformBuffer()
    with pytest.raises(UnusableInput, match=r"'map' is not in the transforms .*frames: none"):
        buffer.lookup('map', 'camera', SECOND_NS)
    buffer.put(transform_message('odom', 'base', SECOND_NS))
    buffer.put_static(transform_message('mast', 'camera', SECOND_NS))
    with pytest.raises(UnusableInput, match=r"'map' is not in .*base, camera, mast, odom\)"):
        buffer.lookup('map', 'camera', SECOND_NS)
    with pytest.raises(UnusableInput, match="'camera' and 'odom' are not connected"):
        buffer.lookup('odom', 'camera', SECOND_NS)
    with pytest.raises(UnusableInput) as caught:
        buffer.lookup('\x1b[31m' * 1000, 'camera', SECOND_NS)
    assert str(caught.value).isprintable()


INVALID = {
    'nan': {'translation_m': (0, np.nan, 0)},
    'infinite': {'translation_m': (0, 0, -np.inf)},
    'far': {'translation_m': (1e7, 0, 0)},
    'nan rotation': {'quaternion': (0, 0, 0, np.nan)},
    'huge rotation': {'quaternion': (1e200, 0, 0, 1e200)},
    'zero rotation': {'quaternion': (0, 0, 0, 0)},
    'not normalised': {'quaternion': (0, 0, 0, 1.1)},
    'no child': {'child': ''},
    'no parent': {'parent': '/'},
    'own parent': {'child': 'map'},
    'long name': {'child': 'x' * 100_000},
}


@pytest.mark.parametrize('put', ['put', 'put_static'])
@pytest.mark.parametrize('name', INVALID)
def test_invalid_transforms_are_rejected_and_counted(name, put):
    buffer = TransformBuffer()
    buffer.put_static(transform_message('map', 'base', 0, (1, 0, 0)))
    arguments = {'parent': 'map', 'child': 'base', 'stamp_ns': SECOND_NS} | INVALID[name]
    for _ in range(2):
        getattr(buffer, put)(transform_message(**arguments))
    assert buffer.rejected == 2
    assert 'is invalid: ' in buffer.rejection
    assert len(buffer.rejection) < 1000
    assert buffer.names() == {'map', 'base'}
    assert lookup(buffer, 'map', 'base')[0, 3] == 1


def test_any_number_of_names_and_transforms_needs_bounded_memory():
    buffer = TransformBuffer(max_samples=100)
    buffer.put_static(transform_message('base', 'camera', 0, (0, 0, 1)))
    for i in range(3000):
        buffer.put(transform_message('map', f'frame{i}', i, (i, 0, 0)))
        buffer.put(transform_message('map', 'base', i, (i, 0, 0)))
    assert len(buffer.names()) < 100
    assert lookup(buffer, 'map', 'camera', 2990)[0, 3] == 2990
    for i in range(2 * MAX_STATIC_FRAMES):
        buffer.put_static(transform_message('map', f'static{i}', 0))
    assert len(buffer.names()) < MAX_STATIC_FRAMES + 100
    assert f'more than {MAX_STATIC_FRAMES} static frames' in buffer.rejection


def test_a_frame_that_changes_its_kind_all_the_time_needs_bounded_memory():
    buffer = TransformBuffer(max_samples=100)
    buffer.put_static(transform_message('base', 'camera', 0, (0, 0, 1)))
    for i in range(1000):
        buffer.put(transform_message('map', 'base', i))
        buffer.put_static(transform_message('map', 'base', i))
    assert lookup(buffer, 'map', 'camera')[2, 3] == 1
    assert len(buffer._order) <= 100
