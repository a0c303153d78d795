"""The heads locate peaks, return crop pixels and millimetres, and can be exported."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from conftest import DATA

from metrabs_ros.metrabs.checkpoint import read_checkpoint
from metrabs_ros.metrabs.network import CropModel, HeatmapHeads, MetrabsConfig

CENTERED = MetrabsConfig('s', 256, 32, True, False, 8, 2200.0)
LEGACY = dataclasses.replace(CENTERED, centered_stride=False, legacy_centered_stride_bug=True)


@pytest.mark.slow
@pytest.mark.parametrize('case', ['00', '05'])
def test_points_in_official_crops_match_the_official_implementation(checkpoint_folder, case):
    golden = np.load(DATA / 'golden' / 'intermediates.npz')
    model = read_checkpoint(checkpoint_folder('s_centered')).crop_model
    with torch.inference_mode():
        crops = torch.from_numpy(golden[f'{case}/crops'].astype(np.float32))
        image_points_px, metric_points_mm = model(crops)
    # The tolerance is due to the crops, which are stored in half precision.
    np.testing.assert_allclose(image_points_px, golden[f'{case}/coords2d'], atol=0.2)
    np.testing.assert_allclose(metric_points_mm, golden[f'{case}/coords3d_rel'], atol=2)


@pytest.mark.parametrize(
    ('config', 'first_px', 'last_px'), [(CENTERED, 16, 240), (LEGACY, 16, 240)]
)
def test_corners_of_the_heatmap_have_the_configured_crop_position(config, first_px, last_px):
    head = HeatmapHeads(config, points=2)
    torch.nn.init.zeros_(head.conv_final.weight)
    torch.nn.init.zeros_(head.conv_final.bias)
    with torch.no_grad():
        # Point 0 depends on feature 0, point 1 on feature 1, in all their heatmaps.
        for channel in range(2 * (1 + config.depth)):
            head.conv_final.weight[channel, channel % 2] = 1
    features = torch.zeros(1, 1280, 8, 8)
    features[0, 0, 0, 0] = features[0, 1, 7, 7] = 60
    image_points_px, metric_points_mm = head(features)
    np.testing.assert_allclose(
        image_points_px.detach()[0], [[first_px] * 2, [last_px] * 2], atol=1e-3
    )
    expected_mm = np.array([[first_px] * 2, [last_px] * 2]) * 2200 / 256
    np.testing.assert_allclose(metric_points_mm.detach()[0, :, :2], expected_mm, atol=0.01)
    # The features do not depend on the depth, so the mean depth is the middle.
    np.testing.assert_allclose(metric_points_mm.detach()[0, :, 2], 1100, atol=0.01)


@pytest.mark.slow
def test_only_the_latent_points_at_the_start_of_the_output_are_used():
    config = dataclasses.replace(CENTERED, latents=3, predicts_joints_too=True)
    plain = HeatmapHeads(CENTERED, points=5).eval()
    head = HeatmapHeads(config, points=5).eval()
    head.load_state_dict(plain.state_dict())
    features = torch.rand(2, 1280, 8, 8)
    for all_points, latents in zip(plain(features), head(features)):
        assert latents.shape[1] == 3
        torch.testing.assert_close(latents, all_points[:, :3])
    assert config.point_count(joints=2) == 5
    assert dataclasses.replace(config, predicts_joints_too=False).point_count(joints=2) == 3


@pytest.mark.slow
def test_the_network_can_be_exported_with_a_dynamic_batch_size():
    model = CropModel(LEGACY, joints=36).eval()
    example = torch.rand(2, 3, 256, 256)
    batch = torch.export.Dim('batch', min=1, max=16)
    exported = torch.export.export(model, (example,), dynamic_shapes=({0: batch},)).module()
    for size in (1, 3):
        crops = torch.rand(size, 3, 256, 256)
        for actual, expected in zip(exported(crops), model(crops)):
            torch.testing.assert_close(actual, expected)


def test_the_points_of_a_crop_do_not_depend_on_other_crops():
    model = CropModel(CENTERED, joints=4).eval()
    crops = torch.rand(3, 3, 256, 256)
    others = torch.cat([torch.rand(1, 3, 256, 256), crops[1:2], torch.zeros(1, 3, 256, 256)])
    with torch.inference_mode():
        for first, second in zip(model(crops), model(others)):
            assert torch.equal(first[1], second[1])
