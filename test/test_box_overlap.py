"""Intersection over union, and containment, of boxes."""

from __future__ import annotations

import numpy as np

from metrabs_ros.box_overlap import box_containment, box_iou

BOX = np.array([0, 0, 10, 10.0])
OTHERS = np.array([[0, 0, 10, 10.0], [5, 0, 10, 10], [20, 20, 5, 5], [0, 0, 0, 0]])


def test_iou_is_the_shared_area_divided_by_the_total_area():
    np.testing.assert_allclose(box_iou(BOX, OTHERS), [1, 1 / 3, 0, 0])


def test_iou_is_symmetric_and_broadcasts():
    iou = box_iou(OTHERS[:, None], OTHERS[None])
    assert iou.shape == (4, 4)
    np.testing.assert_allclose(iou, iou.T)


def test_boxes_without_area_do_not_overlap():
    np.testing.assert_allclose(box_iou(OTHERS[3], OTHERS[3]), 0)
    np.testing.assert_allclose(box_containment(OTHERS[3], BOX), 0)


def test_containment_is_the_shared_area_divided_by_the_inner_area():
    inner = np.array([[2, 2, 4, 4.0], [8, 0, 4, 10], [20, 20, 5, 5]])
    np.testing.assert_allclose(box_containment(inner, BOX), [1, 0.5, 0])
    np.testing.assert_allclose(box_containment(BOX, inner), [0.16, 0.2, 0])
