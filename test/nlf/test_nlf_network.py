"""The field depends on the point, heads locate peaks in metric units, networks can be exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from nlf_golden_cases import CASES, canonical_points

from metrabs_ros.nlf.checkpoint import read_checkpoint
from metrabs_ros.nlf.network import LocalizerField, NlfConfig, PointHead, point_head

CONFIG = NlfConfig('s', 256, 32, True, 8, 2200.0, 4)
SIDE_CELLS = 8


def small_field(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    weights = (config.channels + 1) * config.maps
    field = LocalizerField(frequencies=16, hidden=32, embedding=24, layers=(12, weights))
    # With the initial values of torch the weights would hardly depend on the point.
    for name, values in field.named_parameters():
        if name.endswith('weight'):
            values.data *= 4
    return field.eval().requires_grad_(False)


def head_with_peak(x, y, z, metric_x, metric_y, uncertainty=0.0):
    """Return a head, and features in which its point has peaks at given cells."""
    weights = torch.zeros(1, CONFIG.channels + 1, CONFIG.maps)
    # Channel 0 has the peak of the volume, channel 1 that of the metric map.
    weights[0, 0, 2 + z] = 1
    weights[0, 1, 1] = 1
    weights[0, -1, 0] = uncertainty
    features = torch.zeros(1, CONFIG.channels, SIDE_CELLS, SIDE_CELLS)
    features[0, 0, y, x] = features[0, 1, metric_y, metric_x] = 60
    return PointHead(CONFIG, weights.flatten(1)), features


cells = st.integers(0, SIDE_CELLS - 1)


@given(x=cells, y=cells, z=cells, metric_x=cells, metric_y=cells)
def test_peaks_have_the_image_position_depth_and_metric_position_of_their_cells(
    x, y, z, metric_x, metric_y
):
    head, features = head_with_peak(x, y, z, metric_x, metric_y)
    image_points_px, metric_points_mm, _ = head(features)
    np.testing.assert_allclose(image_points_px[0, 0], [16 + 32 * x, 16 + 32 * y], atol=1e-3)
    expected_mm = [
        (16 + 32 * metric_x) * 2200 / 256,
        (16 + 32 * metric_y) * 2200 / 256,
        z / 7 * 2200,
    ]
    np.testing.assert_allclose(metric_points_mm[0, 0], expected_mm, atol=0.01)


@pytest.mark.parametrize('raw', [-20.0, 0.0, 3.0])
def test_the_uncertainty_is_positive_and_read_at_the_heatmap(raw):
    head, features = head_with_peak(1, 2, 3, 4, 5, uncertainty=raw)
    (uncertainty_m,) = head(features)[2].flatten().tolist()
    assert uncertainty_m == pytest.approx(np.log1p(np.exp(raw)) + 0.001, rel=1e-5)


def test_points_of_a_crop_do_not_depend_on_other_crops_and_points():
    field = small_field()
    points_m = np.random.default_rng(0).normal(scale=0.5, size=(7, 3))
    features = torch.randn(3, CONFIG.channels, SIDE_CELLS, SIDE_CELLS)
    together = point_head(CONFIG, field, points_m, mirrored=False)(features)
    alone = point_head(CONFIG, field, points_m[4:5], mirrored=False)(features[1:2])
    for all_values, value in zip(together, alone):
        torch.testing.assert_close(all_values[1:2, 4:5], value)


def test_the_head_of_mirrored_crops_locates_the_points_of_the_other_side():
    field = small_field()
    points_m = np.array([[0.2, 0.4, 0.1], [0, 0.3, 0]])
    features = torch.randn(2, CONFIG.channels, SIDE_CELLS, SIDE_CELLS)
    mirrored = point_head(CONFIG, field, points_m, mirrored=True)(features)
    other_side = point_head(CONFIG, field, points_m * (-1, 1, 1), mirrored=False)(features)
    for values, expected in zip(mirrored, other_side):
        torch.testing.assert_close(values, expected)
    plain = point_head(CONFIG, field, points_m, mirrored=False)(features)
    assert not torch.allclose(plain[0][:, 0], mirrored[0][:, 0])
    # The second point is in the middle of the body.
    torch.testing.assert_close(plain[0][:, 1], mirrored[0][:, 1])


def test_the_embedding_is_relative_to_the_bounds_of_the_body():
    field = small_field()
    points_m = torch.rand(5, 3)
    before = field(points_m)
    field.gps_net.mini.copy_(torch.tensor([1.0, 2, 3]))
    field.gps_net.maxi.copy_(torch.tensor([3.0, 4, 5]))
    torch.testing.assert_close(field(2 * points_m + torch.tensor([1, 2, 3])), before)


@pytest.mark.slow
@pytest.mark.parametrize(('case', 'mirrored'), [('03', (True, False, True)), ('05', (False,))])
def test_points_in_official_crops_match_the_official_implementation(nlf_folder, case, mirrored):
    golden = np.load(DATA / 'nlf' / 'intermediates.npz')
    points_m = canonical_points(CASES[int(case)]['points']).astype(float)
    checkpoint = read_checkpoint(nlf_folder())
    for i, is_mirrored in enumerate(mirrored):
        head = point_head(checkpoint.config, checkpoint.field, points_m, is_mirrored)
        with torch.inference_mode():
            crops = torch.from_numpy(golden[f'{case}/crops'][i].astype(np.float32))
            image_points_px, metric_points_mm, uncertainties_m = head(
                *checkpoint.crop_model(crops)
            )
        # The tolerance is due to the crops, which are stored in half precision.
        np.testing.assert_allclose(image_points_px, golden[f'{case}/coords2d'][i], atol=0.3)
        np.testing.assert_allclose(metric_points_mm, 1000 * golden[f'{case}/coords3d'][i], atol=4)
        np.testing.assert_allclose(uncertainties_m, golden[f'{case}/uncertainties'][i], atol=2e-3)
