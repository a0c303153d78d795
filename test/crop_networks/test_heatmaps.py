"""Soft-argmax locates peaks; points are inside a crop if they have a margin to its edge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.crop_networks.heatmaps import cell_grid, soft_argmax
from metrabs_ros.metrabs.network import MetrabsConfig

CENTERED = MetrabsConfig('s', 256, 32, True, False, 8, 2200.0)
LEGACY = dataclasses.replace(CENTERED, centered_stride=False, legacy_centered_stride_bug=True)


@given(x=st.integers(0, 7), y=st.integers(0, 6), z=st.integers(0, 4))
def test_soft_argmax_locates_a_peak_in_a_volume(x, y, z):
    heatmap = torch.zeros(5, 7, 8)
    heatmap[z, y, x] = 50
    (position,) = soft_argmax(heatmap.view(1, -1), cell_grid((5, 7, 8), heatmap))
    np.testing.assert_allclose(position, (x / 7, y / 6, z / 4), atol=1e-6)


def test_the_cell_of_a_heatmap_with_one_cell_is_at_0():
    assert cell_grid((1, 1), torch.zeros(1)).tolist() == [[0, 0]]


def test_is_inside_has_a_margin_of_three_quarters_of_a_stride_by_default():
    points_px = np.array([[24.0, 128], [23.9, 128], [128, 232], [128, 232.1]])
    assert CENTERED.is_inside(points_px).tolist() == [True, False, True, False]
    assert LEGACY.is_inside(points_px - 16).tolist() == [True, False, True, False]


@pytest.mark.parametrize(('margin', 'low_px', 'high_px'), [(1.0, 32, 224), (0.6, 19.2, 236.8)])
def test_is_inside_has_the_given_margin_in_strides(margin, low_px, high_px):
    inside = [[low_px, 128], [128, high_px]]
    outside = [[low_px - 0.1, 128], [128, high_px + 0.1]]
    assert (
        CENTERED.is_inside(np.array(inside + outside), margin).tolist() == [True] * 2 + [False] * 2
    )
