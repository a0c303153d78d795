"""Names, indices and edges from files are returned completely, or rejected."""

from __future__ import annotations

import numpy as np
import pytest

from metrabs_ros.weights.checkpoint_checks import (
    MAX_EDGES,
    MAX_JOINTS,
    as_edges,
    as_indices,
    as_names,
)


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        ([3, 1], [3, 1]),
        ((3, np.int64(1), np.uint8(2)), [3, 1, 2]),
        (np.array([3, 1], np.uint16), [3, 1]),
        ([], []),
        (np.zeros(0), []),
        ([(0, 1), [1, 2], np.array([2, 3])], [[0, 1], [1, 2], [2, 3]]),
    ],
)
def test_whole_numbers_of_any_kind_are_indices(values, expected):
    indices = as_indices(values)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


CONTAINS_ITSELF: list[object] = []
CONTAINS_ITSELF += [CONTAINS_ITSELF, CONTAINS_ITSELF]


@pytest.mark.parametrize(
    'values',
    [
        *(None, 'abc', 5, {1: 2}, [1.0], [True], ['1'], [None], [[1], [1, 2]], [[[1, 2]]]),
        *(CONTAINS_ITSELF, [1 << 70], np.array([1.5]), np.array(['a']), [0] * (MAX_EDGES + 1)),
        [['x' * 1_000_000, 'y']] * 10_000,
        [[0] * 100_000] * 10_000,
    ],
    ids=range(17),
)
def test_other_values_are_not_indices(values):
    with pytest.raises((ValueError, OverflowError)) as caught:
        as_indices(values)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize('edges', [[(0, 3)], [(-1, 0)], [0, 1], np.zeros((2, 3), int)])
def test_edges_are_pairs_of_joints(edges):
    with pytest.raises(ValueError, match='edge'):
        as_edges(edges, 3)


def test_no_edges_have_any_shape():
    for edges in ([], (), np.zeros((0, 2), int), np.zeros(0)):
        assert as_edges(edges, 3) == ()
    assert as_edges(np.array([[0, 2]]), 3) == ((0, 2),)


@pytest.mark.parametrize(
    'names', [['a', 'b'], ('a', b'b'), np.array(['a', 'b']), np.array([[b'a', b'b']])]
)
def test_names_are_returned_as_text(names):
    assert as_names(names) == ('a', 'b')


@pytest.mark.parametrize(
    'names',
    [
        *('ab', None, [1], [None], [['a']], ['a\n'], ['\x1b[31m'], ['x' * 101], [b'\xff']),
        *(['a'] * (MAX_JOINTS + 1), CONTAINS_ITSELF, ['x' * 1_000_000] + ['a'] * 4000),
    ],
    ids=range(12),
)
def test_other_values_are_not_names(names):
    with pytest.raises(ValueError, match=r'.') as caught:
        as_names(names)
    assert len(str(caught.value)) < 200
