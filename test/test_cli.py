"""The command line has all commands, and prints each error on one line."""

from __future__ import annotations

import importlib
import io
import os
import pathlib
import pkgutil
import stat
import sys

import pytest

from metrabs_ros import cli, commands, loading
from metrabs_ros.weights import store

UNUSUAL = 'no\nsuch \x1b[31m\udcff'
"""A name with a newline, a control character and a byte that is not UTF-8."""


def test_each_module_with_a_parser_is_a_command():
    modules = [
        importlib.import_module(f'{commands.__name__}.{module.name}')
        for module in pkgutil.iter_modules(commands.__path__)
    ]
    with_parser = [module for module in modules if hasattr(module, 'add_parser')]
    assert sorted(cli.COMMANDS, key=str) == sorted(with_parser, key=str)


@pytest.mark.parametrize(
    'arguments',
    [
        ('demo', '--input', UNUSUAL),
        ('annotate', UNUSUAL),
        ('report', UNUSUAL),
        ('calibrate', UNUSUAL),
        ('convert-skeleton', UNUSUAL, '--skeleton', 'smpl_24', '-o', UNUSUAL),
        ('convert-skeleton', UNUSUAL, '--skeleton', UNUSUAL, '-o', UNUSUAL),
        ('fit-joints', UNUSUAL, '--name', 'own', '-o', UNUSUAL),
        ('fit-skeletons', UNUSUAL, '-o', f'{UNUSUAL}.npz'),
        ('fetch', 'blazepose_heavy', '--url', UNUSUAL),
        ('build-engine', UNUSUAL),
        ('export', UNUSUAL, '--onnx', UNUSUAL),
    ],
    ids=lambda arguments: arguments[0],
)
def test_errors_are_printed_on_one_line_without_control_characters(
    arguments, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path / 'cache'))
    assert cli.main([*arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('metrabs_ros: ')
    assert line.isprintable()


def test_models_with_unusual_names_are_named_in_the_results(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, 'build_engine', lambda *arguments: 'tensorrt')
    monkeypatch.setattr(loading, 'export_onnx', lambda *arguments: b'network')
    assert cli.main(['build-engine', UNUSUAL]) == 0
    assert cli.main(['export', UNUSUAL, '--onnx', UNUSUAL]) == 0
    assert pathlib.Path(UNUSUAL).read_bytes() == b'network'
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(r'no\nsuch \x1b[31m\udcff' in line for line in lines)


def test_an_interrupted_command_has_the_status_of_a_shell(capsys, monkeypatch):
    def fetch(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, 'fetch', fetch)
    assert cli.main(['fetch', 'metrabs_l']) == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_closed_standard_streams_are_opened_before_other_files(monkeypatch):
    # Otherwise the next file has the descriptor 2, to which C libraries write messages.
    saved = os.dup(2)
    monkeypatch.setattr(sys, 'stderr', None)
    os.close(2)
    try:
        assert cli.main(['fetch', 'blazepose']) == 0
        assert os.fstat(2).st_rdev == os.stat(os.devnull).st_rdev
        print('discarded', file=sys.stderr, flush=True)
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def test_names_that_the_encoding_of_the_output_lacks_are_escaped(tmp_path, monkeypatch):
    existing = [tmp_path / 'é1_people', tmp_path / '漢2_people']
    for folder in existing:
        folder.mkdir()
        (tmp_path / folder.name.replace('_people', '.png')).touch()
    output = io.BytesIO()
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(output, 'latin-1'))
    assert cli.main(['annotate', *map(str, sorted(tmp_path.glob('*.png')))]) == 0
    sys.stdout.flush()
    lines = output.getvalue().decode('latin-1').splitlines()
    assert [line.split()[0] for line in lines] == [
        f'{tmp_path}/é1_people',
        f'{tmp_path}/\\u6f222_people',
    ]


@pytest.mark.parametrize(
    'command',
    [
        ('export', 'nlf_s', '--overwrite', '--onnx'),
        ('fit-joints', 'examples.npz', '--name', 'own_1', '--overwrite', '-o'),
    ],
)
def test_devices_and_pipes_are_not_replaced_by_files(tmp_path, capsys, command):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    assert cli.main([*command, str(pipe)]) == 1
    assert capsys.readouterr().err == (
        f'metrabs_ros: {pipe} is a device or a pipe; name the file to write\n'
    )
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)


def test_inputs_are_not_replaced_by_outputs(tmp_path, capsys):
    examples, config = tmp_path / 'poses.npz', tmp_path / 'config.yaml'
    for file in (examples, config):
        file.write_text('mine')
    for command in (
        ('fit-joints', examples, '--name', 'own_1', '--overwrite', '-o', examples),
        ('fit-skeletons', examples, '--overwrite', '-o', examples),
        ('export', tmp_path, '--overwrite', '--onnx', config),
        ('export', 'nlf_s', '--skeleton', examples, '--overwrite', '--onnx', examples),
    ):
        assert cli.main(list(map(str, command))) == 1
        message = f'metrabs_ros: the output {command[-1]} is an input; name another file\n'
        assert capsys.readouterr().err == message
    assert examples.read_text() == config.read_text() == 'mine'
