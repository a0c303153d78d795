"""Plans run with the memory of torch; those that are damaged or do not fit are rejected."""

from __future__ import annotations

import os

import fake_tensorrt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.backends.tensorrt_plan import Plan, PlanError, TensorShape, read_plan_file

CPU = torch.device('cpu')
CROPS = {'crops': ('INPUT', [-1, 3, 8, 8], 'FLOAT')}
POINTS = {'image': ('OUTPUT', [-1, 5, 2], 'FLOAT'), 'metric': ('OUTPUT', [-1, 5, 3], 'FLOAT')}
INPUTS = [TensorShape('crops', (3, 8, 8))]
OUTPUTS = [TensorShape('image', (5, 2)), TensorShape('metric', (5, 3))]


@pytest.fixture
def package(monkeypatch):
    return fake_tensorrt.install(monkeypatch, 'tensorrt')


def start(content):
    return Plan('tensorrt', content, INPUTS, OUTPUTS, CPU)


def test_outputs_are_computed_from_inputs_of_any_memory_layout(package):
    plan = start(fake_tensorrt.plan(POINTS | CROPS))
    crops = torch.rand(4, 3, 8, 8).to(memory_format=torch.channels_last)[1:]
    image, metric = plan(crops)
    assert (image.shape, metric.shape) == ((3, 5, 2), (3, 5, 3))
    means = crops.mean((1, 2, 3))
    torch.testing.assert_close(image[:, 2, 1], means)
    torch.testing.assert_close(metric[:, 4, 2], means + 1)
    assert plan.max_batch == 16


def test_the_plan_runs_after_earlier_and_before_later_work_of_torch(package):
    start(fake_tensorrt.plan(CROPS | POINTS))(torch.zeros(1, 3, 8, 8))
    assert package.events == ['own waits for current', 'run on own', 'current waits for own']


def test_outputs_that_are_not_needed_are_computed_and_ignored(package):
    others = {
        'features': ('OUTPUT', [-1, 4, 2, 2], 'HALF'),
        'scores': ('OUTPUT', [-1], 'FLOAT'),
        'empty': ('OUTPUT', [-1, 0], 'FLOAT'),
    }
    plan = start(fake_tensorrt.plan(others | POINTS | CROPS))
    crops = torch.rand(3, 3, 8, 8)
    image, metric = plan(crops)
    torch.testing.assert_close(image[:, 2, 1], crops.mean((1, 2, 3)) + 3)
    torch.testing.assert_close(metric[:, 4, 2], crops.mean((1, 2, 3)) + 4)


def test_an_output_of_unknown_size_is_rejected_by_name(package):
    others = {'people': ('OUTPUT', [-1, -1, 2], 'FLOAT')}
    plan = start(fake_tensorrt.plan(others | POINTS | CROPS))
    with pytest.raises(RuntimeError, match=r'its output people has the shape \[1, -1, 2\]'):
        plan(torch.zeros(1, 3, 8, 8))
    assert not package.batch_sizes


def test_an_error_of_tensorrt_is_raised_with_its_reason(package):
    plan = start(fake_tensorrt.plan(CROPS | POINTS))
    package.fails = True
    with pytest.raises(RuntimeError, match='an illegal memory access'):
        plan(torch.zeros(1, 3, 8, 8))


def test_memory_of_another_size_than_that_of_the_plan_is_never_used(package):
    fixed = {'image': ('OUTPUT', [16, 5, 2], 'FLOAT')}
    plan = start(fake_tensorrt.plan(CROPS | POINTS | fixed))
    message = r'image has the shape \[16, 5, 2\] in the plan; expected: \[1, 5, 2\]'
    with pytest.raises(RuntimeError, match=message):
        plan(torch.zeros(1, 3, 8, 8))
    assert not package.batch_sizes


HALF = {'metric': ('OUTPUT', [-1, 5, 3], 'HALF')}
SWAPPED = {'crops': ('OUTPUT', [-1, 3, 8, 8], 'FLOAT'), 'image': ('INPUT', [-1, 5, 2], 'FLOAT')}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'cannot be loaded by tensorrt 10.3.0: magic tag does not match; build it on this'),
        (b'PK\x03\x04 another kind of file', 'magic tag does not match'),
        (fake_tensorrt.plan(CROPS), 'the plan has the inputs and outputs crops; expected: crops'),
        (fake_tensorrt.plan(CROPS | POINTS | {'x': CROPS['crops']}), 'crops, image, metric, x'),
        (fake_tensorrt.plan(CROPS | POINTS | SWAPPED), 'the inputs and outputs crops, image'),
        (
            fake_tensorrt.plan(CROPS | POINTS | {'crops': ('INPUT', [-1, 3, 9, 9], 'FLOAT')}),
            r'crops of the plan has the shape \[-1, 3, 9, 9\]; expected: crops float32 '
            r'\[batch, 3, 8, 8\], image float32',
        ),
        (
            fake_tensorrt.plan(CROPS | POINTS | {'image': ('OUTPUT', [-1, 7, 2], 'FLOAT')}),
            r'image of the plan has the shape \[-1, 7, 2\]',
        ),
        (
            fake_tensorrt.plan(CROPS | POINTS | HALF),
            'metric of the plan has the type HALF; expected: .*; build the plan from the file of '
            'metrabs_ros export',
        ),
        (
            fake_tensorrt.plan(CROPS | POINTS, (4, 8, 16)),
            'accepts batches of 4 to 16; .* in trtexec --minShapes=crops:1x3x8x8',
        ),
    ],
)
def test_plans_that_do_not_fit_are_rejected_with_the_reason(package, content, message):
    with pytest.raises(PlanError, match=message):
        start(content)


def test_a_plan_for_a_single_crop_is_accepted(package):
    fixed = {name: (mode, [1, *shape[1:]], kind) for name, (mode, shape, kind) in POINTS.items()}
    fixed |= {'crops': ('INPUT', [1, 3, 8, 8], 'FLOAT')}
    assert start(fake_tensorrt.plan(fixed, (1, 1, 1))).max_batch == 1


@given(content=st.binary(max_size=200))
def test_other_files_are_never_accepted(content):
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_tensorrt.install(monkeypatch, 'tensorrt')
        with pytest.raises((PlanError, TypeError)):
            start(content)


def test_a_plan_of_this_user_or_of_root_is_read(tmp_path, monkeypatch):
    file = tmp_path / 'l.plan'
    file.write_bytes(b'plan')
    file.chmod(0o644)
    assert read_plan_file(file) == b'plan'
    (tmp_path / 'link').symlink_to(file)
    assert read_plan_file(tmp_path / 'link') == b'plan'
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    if file.stat().st_uid == 0:
        assert read_plan_file(file) == b'plan'
    else:
        with pytest.raises(PlanError, match='belongs to user'):
            read_plan_file(file)


def test_the_file_that_is_checked_is_the_one_that_is_read(tmp_path, monkeypatch):
    file, other = tmp_path / 'l.plan', tmp_path / 'other.plan'
    for path in (file, other):
        path.write_bytes(path.name.encode())
        path.chmod(0o600)
    fstat = os.fstat

    def replace_and_fstat(descriptor):
        if other.exists():
            other.rename(file)
        return fstat(descriptor)

    monkeypatch.setattr(os, 'fstat', replace_and_fstat)
    assert read_plan_file(file) == b'l.plan'


def test_files_that_other_users_can_write_are_rejected(tmp_path):
    file = tmp_path / 'l.plan'
    file.write_bytes(b'plan')
    file.chmod(0o666)
    with pytest.raises(PlanError, match=r'writable by other users.*chmod go-w'):
        read_plan_file(file)


def test_missing_files_and_folders_are_rejected(tmp_path):
    with pytest.raises(PlanError, match='cannot be used: No such file'):
        read_plan_file(tmp_path / 'missing.plan')
    with pytest.raises(PlanError, match='is a folder; expected: a regular file'):
        read_plan_file(tmp_path)
