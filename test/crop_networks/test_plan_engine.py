"""The network runs as a plan from a file, in batches of the size that the plan accepts."""

from __future__ import annotations

import dataclasses

import fake_tensorrt
import pytest
import torch

import metrabs_ros
from metrabs_ros import loading
from metrabs_ros.backends.selection import Choice
from metrabs_ros.backends.tensorrt_plan import PlanError
from metrabs_ros.metrabs.checkpoint import read_checkpoint

ON_CPU = Choice('tensorrt', 'the precision of the plan', 'cpu', 'the substitute runs there')


@pytest.fixture
def package(monkeypatch):
    return fake_tensorrt.install(monkeypatch, 'tensorrt')


@pytest.fixture(scope='module')
def checkpoint(checkpoint_folder):
    return read_checkpoint(checkpoint_folder('s_centered'))


def plan_file(checkpoint, folder, batches=(1, 4, 16)):
    """Write a plan with the inputs and outputs of the exported network of a checkpoint."""
    network = checkpoint.exported_network('')
    tensors = {
        tensor.name: (mode, [-1, *tensor.shape], 'FLOAT')
        for mode, tensors in (('OUTPUT', network.outputs), ('INPUT', [network.input]))
        for tensor in tensors
    }
    file = folder / 'network.plan'
    file.write_bytes(fake_tensorrt.plan(tensors, batches))
    file.chmod(0o600)
    return file


def test_crops_are_run_in_batches_of_the_size_that_the_plan_accepts(package, checkpoint, tmp_path):
    run = loading.start_plan(checkpoint, ON_CPU, plan_file(checkpoint, tmp_path))
    assert package.batch_sizes == [1, 2, 3, 4]
    package.batch_sizes.clear()
    crops = torch.arange(37.0).view(-1, 1, 1, 1).expand(37, 3, 256, 256)
    image_points_px, metric_points_mm = run(crops)
    assert package.batch_sizes == [16, 16, 5]
    assert (image_points_px.shape, metric_points_mm.shape) == ((37, 36, 2), (37, 36, 3))
    # The substitute returns the mean of each crop plus the index of the output, in their order.
    torch.testing.assert_close(image_points_px[:, 0, 0], torch.arange(37.0))
    torch.testing.assert_close(metric_points_mm[:, 0, 0], torch.arange(37.0) + 1)


def test_a_plan_for_single_crops_runs_them_one_by_one(package, checkpoint, tmp_path):
    run = loading.start_plan(checkpoint, ON_CPU, plan_file(checkpoint, tmp_path, (1, 1, 1)))
    package.batch_sizes.clear()
    run(torch.zeros(3, 3, 256, 256))
    assert package.batch_sizes == [1, 1, 1]


def test_a_plan_of_another_network_is_rejected_with_both_shapes(package, checkpoint, tmp_path):
    large = dataclasses.replace(
        checkpoint, config=dataclasses.replace(checkpoint.config, side_px=384)
    )
    message = (
        r'engine_file .*network\.plan cannot be used: crops of the plan has the shape '
        r'\[-1, 384, 384\]|crops of the plan has the shape \[-1, 3, 384, 384\]; expected: crops '
        r'float32 \[batch, 3, 256, 256\]'
    )
    with pytest.raises(PlanError, match=message):
        loading.start_plan(checkpoint, ON_CPU, plan_file(large, tmp_path))


def test_a_plan_that_fails_or_has_no_finite_points_is_rejected(package, checkpoint, tmp_path):
    file = plan_file(checkpoint, tmp_path)
    package.offset = float('nan')
    with pytest.raises(PlanError, match=r'network\.plan cannot be used: .* not finite'):
        loading.start_plan(checkpoint, ON_CPU, file)
    package.fails = True
    with pytest.raises(PlanError, match=r'the plan does not run: .* illegal memory access'):
        loading.start_plan(checkpoint, ON_CPU, file)


def test_engine_file_needs_a_metrabs_network_and_a_gpu(checkpoint_folder, tmp_path):
    with pytest.raises(ValueError, match=r'engine_file .* is not available for blazepose'):
        metrabs_ros.load_model('blazepose', engine_file=tmp_path / 'network.plan')
    with pytest.raises(ValueError, match='engine_file needs an NVIDIA GPU'):
        metrabs_ros.load_model(
            checkpoint_folder('s_centered'), engine_file=tmp_path / 'network.plan'
        )
