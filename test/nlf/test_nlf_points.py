"""Points of the body are checked, wherever they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hostile import NOT_FILES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metrabs_ros.nlf.points import MAX_POINTS, read_points, unnamed_points


def test_the_name_of_points_depends_on_their_values_only():
    points_m = np.random.default_rng(0).normal(size=(5, 3))
    first, second = unnamed_points(points_m), unnamed_points(points_m.astype(float).tolist())
    assert first.name == second.name != unnamed_points(points_m + 1e-9).name
    assert first.skeleton.joint_names == tuple(f'point_{i}' for i in range(5))
    np.testing.assert_array_equal(first.convention.positions(points_m), points_m)


def test_points_do_not_change_with_the_array_that_they_were_given_as():
    points_m = np.ones((2, 3))
    points = unnamed_points(points_m)
    points_m[:] = 0
    assert (points.points_m == 1).all()


@pytest.mark.parametrize(
    ('points', 'message'),
    [
        (np.zeros((0, 3)), r'skeleton has shape \(0, 3\); it must be a name, a .npy file, or'),
        (np.zeros((3, 2)), r'skeleton has shape \(3, 2\)'),
        ([0.1, 0.2, 0.3], r'skeleton has shape \(3,\)'),
        (np.zeros((MAX_POINTS + 1, 3)), 'of 1 to 4096 joints'),
        ([[0, 0, 11]], 'skeleton contains coordinates up to 11; .* in metres, at most 10'),
        ([[0, 0, np.nan]], 'skeleton contains'),
        ([['a', 0, 0]], 'skeleton is not an array of numbers'),
        (7, r'skeleton is 7; it must be a name, a \.npy file, or'),
        (None, r'skeleton is None; it must be a name'),
    ],
)
def test_other_values_are_rejected(points, message):
    with pytest.raises(ValueError, match=message):
        unnamed_points(points)


shapes = arrays.array_shapes(max_dims=3) | st.tuples(st.integers(1, 5), st.just(3))


@given(points=arrays.arrays(np.float64, shapes))
def test_any_array_of_numbers_is_accepted_or_rejected_with_a_sentence(points):
    is_valid = points.ndim == 2 and points.shape[1] == 3 and (np.abs(points) <= 10).all()
    if is_valid:
        assert unnamed_points(points).points_m.shape == points.shape
    else:
        with pytest.raises(ValueError, match=r'^skeleton '):
            unnamed_points(points)


def test_points_are_read_from_a_file(tmp_path):
    file = tmp_path / 'points.npy'
    np.save(file, np.array([[1, 2, 3]], np.int16))
    assert read_points(file).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize('content', [b'', b'not an array', b'\x93NUMPY\x01\x00' + b'x' * 100])
def test_a_damaged_file_is_named_in_the_error(tmp_path, content):
    file = tmp_path / 'points.npy'
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f'skeleton file {file} cannot be read'):
        read_points(file)


@pytest.mark.parametrize('make', NOT_FILES)
def test_what_is_not_a_file_is_named_in_the_error(tmp_path, make):
    path = tmp_path / 'points.npy'
    make(path)
    with pytest.raises(ValueError, match=f'skeleton file {path} cannot be read'):
        read_points(path)


def test_an_array_of_text_is_rejected(tmp_path):
    file = tmp_path / 'points.npy'
    np.save(file, np.array([['a', 'b', 'c']]))
    with pytest.raises(ValueError, match='expected: canonical points'):
        read_points(file)
