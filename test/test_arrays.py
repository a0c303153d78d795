"""Structs of arrays are selected and concatenated by items."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from metrabs_ros.arrays import FloatArray, StructOfArrays


@dataclasses.dataclass(frozen=True)
class Circles(StructOfArrays):
    unit: str
    centres: FloatArray
    radii: FloatArray


CIRCLES = Circles('px', np.arange(8.0).reshape(4, 2), np.array([3.0, 1.0, 4.0, 1.5]))


@pytest.mark.parametrize(
    'which',
    [np.array([2, 0]), np.array([False, True, False, True]), slice(1, 3), np.zeros(0, np.intp)],
    ids=['indices', 'mask', 'slice', 'none'],
)
def test_the_same_items_of_all_arrays_are_selected(which):
    selected = CIRCLES.select(which)
    assert type(selected) is Circles
    assert selected.unit == 'px'
    assert np.array_equal(selected.centres, CIRCLES.centres[which])
    assert np.array_equal(selected.radii, CIRCLES.radii[which])


def test_concatenated_parts_are_the_whole():
    parts = [CIRCLES.select(slice(0, 1)), CIRCLES.select(slice(1, 1)), CIRCLES.select(slice(1, 4))]
    whole = Circles.concatenate(parts)
    assert whole.unit == 'px'
    assert np.array_equal(whole.centres, CIRCLES.centres)
    assert np.array_equal(whole.radii, CIRCLES.radii)
