"""The arguments of models reach their networks, and damaged networks are reported at once."""

from __future__ import annotations

import shutil

import pytest

import metrabs_ros
from metrabs_ros import loading
from metrabs_ros.backends import openvino
from metrabs_ros.metrabs.estimator import MetrabsEstimator
from metrabs_ros.movenet import network
from metrabs_ros.nlf.estimator import NlfEstimator
from metrabs_ros.weights import bundled
from metrabs_ros.weights.store import WeightsError


@pytest.fixture
def started(monkeypatch):
    """Return the threads and precision of the MoveNet networks that are started."""
    arguments = []

    class MoveNet:
        def __init__(self, model_file, threads, precision):
            arguments.append((threads, precision))

    monkeypatch.setattr(network, 'MoveNet', MoveNet)
    return arguments


@pytest.mark.parametrize('supports_bf16', [False, True])
@pytest.mark.parametrize('precision', ['auto', 'fp32', 'bf16'])
def test_the_precision_of_the_model_applies_to_the_detector(
    monkeypatch, started, supports_bf16, precision
):
    monkeypatch.setattr(openvino, 'cpu_supports_bf16', lambda: supports_bf16)
    expected = 'bf16' if supports_bf16 and precision != 'fp32' else 'fp32'
    model = loading.load_blazepose(precision=precision, threads=1)
    assert started == [(1, expected)]
    assert ('the detector runs in' in model.choice.reason) == (model.choice.precision != expected)


@pytest.mark.parametrize('precision', ['auto', 'fp32'])
def test_the_precision_of_metrabs_applies_to_its_detector(
    monkeypatch, started, checkpoint_folder, street, precision
):
    monkeypatch.setattr(openvino, 'cpu_supports_bf16', lambda: True)
    model = loading.load_model(
        checkpoint_folder('s_centered'), 'torch', precision, 'cpu', 'auto', threads=1
    )
    assert not started
    with pytest.raises(TypeError, match='not callable'):
        model.detect_poses(street)
    assert started == [(1, 'fp32' if precision == 'fp32' else 'bf16')]


@pytest.mark.parametrize('damage', ['missing', 'altered'])
@pytest.mark.parametrize('file', ['movenet_multipose.xml', 'movenet_multipose.bin'])
def test_a_damaged_detector_is_reported_when_the_model_is_loaded(
    monkeypatch, tmp_path, checkpoint_folder, damage, file
):
    folder = shutil.copytree(bundled.FOLDER, tmp_path / 'networks')
    monkeypatch.setattr(bundled, 'FOLDER', folder)
    if damage == 'missing':
        (folder / file).unlink()
    else:
        with (folder / file).open('ab') as damaged:
            damaged.write(b' ')
    for name in ('blazepose', checkpoint_folder('s_centered')):
        with pytest.raises(WeightsError, match=f'{file}.*install metrabs_ros again'):
            loading.load_model(name, 'auto', 'auto', 'cpu', 'auto', threads=1)


def test_the_files_in_a_folder_decide_between_metrabs_and_nlf(checkpoint_folder, nlf_folder):
    for folder, kind in (
        (checkpoint_folder('s_centered'), MetrabsEstimator),
        (nlf_folder(), NlfEstimator),
    ):
        model = metrabs_ros.load_model(folder, engine='torch', device='cpu')
        assert type(model) is kind
        assert model.choice.engine == 'torch'


def test_a_folder_without_a_checkpoint_is_explained(tmp_path):
    (tmp_path / 'weights.pt').touch()
    expected = r'contains no checkpoint; expected for MeTRAbs: config\.yaml.* for NLF: nlf_s_crop'
    for path in (tmp_path, tmp_path / 'weights.pt'):
        with pytest.raises(WeightsError, match=expected):
            metrabs_ros.load_model(path)


@pytest.mark.parametrize('name', ['missing.torchscript', 'missing/nlf_s_crop.pt', 'nlf_m'])
def test_a_missing_checkpoint_is_explained(name):
    with pytest.raises(ValueError, match=f"'{name}' does not exist: .* metrabs_s, nlf_l, nlf_s"):
        metrabs_ros.load_model(name)
