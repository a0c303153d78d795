"""The backbones have the parameters and the receptive fields of the official ones."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import DATA

from metrabs_ros.crop_networks.efficientnet import EfficientNetV2, PaddedConv2d, ShiftedConv2d
from metrabs_ros.metrabs.network import CropModel, MetrabsConfig


@pytest.mark.parametrize('size', ['s', 'm', 'l'])
def test_names_and_shapes_of_all_parameters_match_the_official_implementation(size):
    official = json.loads((DATA / 'golden' / f'state_dict_{size}.json').read_text())
    with torch.device('meta'):
        model = CropModel(MetrabsConfig(size, 256, 32, True, False, 8, 2200.0), joints=36)
    actual = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert actual == official
    assert list(actual) == list(official)


def test_features_have_a_stride_of_32_pixels():
    with torch.inference_mode():
        features = EfficientNetV2('s', centered_stride=True).eval()(torch.zeros(2, 3, 128, 96))
    assert features.shape == (2, 1280, 4, 3)


def test_centered_stride_shifts_only_the_last_strided_convolution():
    shifted = [m for m in EfficientNetV2('s', True).modules() if isinstance(m, ShiftedConv2d)]
    assert len(shifted) == 1
    assert shifted[0].out_channels == 6 * 160
    assert not any(isinstance(m, ShiftedConv2d) for m in EfficientNetV2('s', False).modules())


def test_the_shifted_convolution_is_shifted_by_a_pixel_to_the_lower_right():
    padded, shifted = PaddedConv2d(2, 2, 3, 2, 2), ShiftedConv2d(2, 2, 3, 2, 2)
    ones = torch.ones(1, 2, 4, 4)
    torch.nn.init.ones_(padded.weight)
    torch.nn.init.ones_(shifted.weight)
    assert padded(ones)[0, 0].tolist() == [[4, 6], [6, 9]]
    assert shifted(ones)[0, 0].tolist() == [[9, 6], [6, 4]]


def test_an_unknown_size_is_named_in_the_error():
    with pytest.raises(ValueError, match="EfficientNetV2-'xl'"):
        EfficientNetV2('xl', centered_stride=True)
