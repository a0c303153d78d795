"""The detector's tiles cover the image, and duplicates from several tiles are merged."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.blazepose.detector import (
    RegionDetections,
    all_tiles,
    anchors,
    merge_duplicates,
    square_iou,
)
from metrabs_ros.blazepose.regions import Regions


def regions_at(*rows):
    """Return upright regions with rows (x, y, radius)."""
    values = np.array(rows, float).reshape(-1, 3)
    return Regions(values[:, :2], values[:, :2] - values[:, 2:] * (0, 1))


def test_anchors_are_in_the_order_of_the_network():
    assert anchors().shape == (2254, 2)
    np.testing.assert_allclose(anchors()[0], (0.5 / 28, 0.5 / 28))
    np.testing.assert_allclose(anchors()[2], (1.5 / 28, 0.5 / 28))
    np.testing.assert_allclose(anchors()[-1], (6.5 / 7, 6.5 / 7))


@given(width=st.integers(1, 2500), height=st.integers(1, 2500))
def test_tiles_of_each_size_cover_all_pixels(width, height):
    tiles = all_tiles((height, width))
    assert len(set(tiles)) == len(tiles)
    for side_px in {tile.side_px for tile in tiles}:
        columns, rows = np.zeros(width, bool), np.zeros(height, bool)
        for tile in tiles:
            if tile.side_px == side_px:
                columns[max(tile.left_px, 0) : tile.left_px + side_px] = True
                rows[max(tile.top_px, 0) : tile.top_px + side_px] = True
        assert columns.all()
        assert rows.all()


def test_the_number_of_tiles_of_a_vga_image_is_small():
    assert len(all_tiles((576, 768))) == 39


def test_square_iou_of_regions():
    a, b = regions_at((0, 0, 10)), regions_at((0, 0, 10), (10, 0, 10), (0, 0, 5), (50, 0, 10))
    np.testing.assert_allclose(square_iou(a, b), [[1, 1 / 3, 1 / 4, 0]])


def test_duplicates_are_merged_into_their_weighted_mean():
    merged = merge_duplicates(
        RegionDetections(regions_at((100, 100, 50), (104, 100, 50)), np.array([0.9, 0.3])), 0.5
    )
    np.testing.assert_allclose(merged.regions.centre_px, [(101, 100)])
    np.testing.assert_allclose(merged.scores, [0.9])


def test_neighbours_are_not_merged():
    neighbours = RegionDetections(regions_at((100, 100, 50), (160, 100, 50)), np.array([0.9, 0.8]))
    assert len(merge_duplicates(neighbours, 0.5).scores) == 2


def test_detections_with_different_tilt_are_not_merged():
    opposite = Regions(np.array([[100.0, 100], [100, 100]]), np.array([[100.0, 50], [100, 150]]))
    merged = merge_duplicates(RegionDetections(opposite, np.array([0.9, 0.5])), 0.5)
    np.testing.assert_allclose(merged.regions.radius_px, 50)


def test_merging_no_detections_results_in_no_detections():
    assert len(merge_duplicates(RegionDetections(regions_at(), np.zeros(0)), 0.5).regions) == 0
