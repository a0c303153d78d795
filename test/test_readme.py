"""The measurements in the README are the latest results, and its commands work."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from browser import free_ports
from progress import run_with_stall_timeout, wait_for_exit
from recorded_bags import people_in, write_bag, write_ros1_bag

PROJECT = pathlib.Path(__file__).parents[1]
README = (PROJECT / 'README.md').read_text()
PAGES = [PROJECT / name for name in ('README.md', 'CONTRIBUTING.md', 'docs/parameters.md')]
VENV = pathlib.Path(sys.prefix)

RUN_HERE = {
    'make demo': 'test_make_demo_plays_images',
    '.venv/bin/metrabs_ros demo --input': 'test_the_demo_uses_a_calibration',
    'metrabs_ros annotate': 'test_annotate_report_and_view_process_recordings',
    'metrabs_ros report': 'test_annotate_report_and_view_process_recordings',
    'metrabs_ros view': 'test_annotate_report_and_view_process_recordings',
    'colcon build': 'test/test_build.py::overlay',
    '.venv/bin/metrabs_ros view --camera': (
        'test/node/test_view_node.py::test_the_process_prints_its_address_and_exits_immediately'
    ),
}
"""Beginnings of the commands that tests run, and the tests."""


def module_of(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_contain_the_latest_results():
    table = module_of(PROJECT / 'benchmarks' / 'table.py')
    assert table.with_tables(README) == README, 'run benchmarks/table.py'


def test_the_documented_parameters_are_those_of_the_node():
    tables = module_of(PROJECT / 'docs' / 'make_tables.py')
    assert tables.PAGE.read_text() == tables.page(), 'run docs/make_tables.py'


def anchor_of(heading):
    """Return the anchor of a heading, as GitHub creates it."""
    words = re.sub(r'[^\w\- ]', '', heading.lower())
    return words.strip().replace(' ', '-')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_have_existing_targets(page):
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
    links = re.findall(r'\]\(([^)\s]+)\)', text)
    anchors = {anchor_of(heading) for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE)}
    for link in links:
        if link.startswith('https://'):
            continue
        target, _, anchor = link.partition('#')
        assert (page.parent / target).exists(), link
        assert not anchor or target or anchor in anchors, link
    assert page.name == 'CONTRIBUTING.md' or links


def commands():
    """Yield the shell commands of the README."""
    for block in re.findall(r'```bash\n(.*?)```', README, re.DOTALL):
        for line in block.strip().splitlines():
            for command in line.split('#')[0].split('&&'):
                yield command.strip()


@pytest.mark.parametrize('command', sorted(set(commands())))
def test_every_command_is_run_by_a_test_or_listed_as_untested(command):
    section = README[README.index('## What is tested of this page') :]
    first_column = re.findall(r'^\| (`.*?) \|', section, re.MULTILINE)
    untested = re.findall(r'`([^`]+)`', ' '.join(first_column))
    command = command.replace('python3 -m metrabs_ros.cli', 'metrabs_ros')
    if command.startswith(tuple(untested)):
        return
    names = [name for start, name in RUN_HERE.items() if command.startswith(start)]
    assert names, command
    for name in names:
        file, _, function = name.rpartition('::')
        source = PROJECT / file if file else pathlib.Path(__file__)
        assert f'def {function}(' in source.read_text()


def test_the_python_examples_work():
    blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    assert len(blocks) == 2
    script = '\n'.join(
        [
            *blocks,
            'assert pred["poses3d"].shape == (len(pred["boxes"]), 17, 3)',
            'assert len(people.ids) > 1 and people.seen.all()',
        ]
    )
    subprocess.run([sys.executable, '-c', script], check=True, cwd=PROJECT)


@pytest.fixture
def image_folder(tmp_path):
    """Return a folder with copies of a photograph of a street."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(3):
        shutil.copy(PROJECT / 'test' / 'data' / 'street.png', folder / f'{i}.png')
    return folder


@pytest.mark.skipif(not (VENV / '.done').exists(), reason='make would set up a new environment')
def test_make_demo_plays_images(image_folder):
    environ = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MAKELEVEL')}
    result = run_with_stall_timeout(
        ['make', 'demo', f'INPUT={image_folder}', f'VENV={VENV}'], cwd=PROJECT, env=environ
    )
    assert 'demo: 3 frames' in result.stdout, result.stdout + result.stderr


def test_the_demo_uses_a_calibration(image_folder, tmp_path):
    calibration = tmp_path / 'camera.yaml'
    calibration.write_text(
        'image_width: 768\nimage_height: 576\n'
        'camera_matrix: {rows: 3, cols: 3, data: [900, 0, 384, 0, 900, 288, 0, 0, 1]}\n'
        'distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n'
    )
    options = ['--input', image_folder, '--calibration', calibration, '--output', tmp_path / 'out']
    result = metrabs_ros('demo', *options)
    assert 'demo: 3 frames' in result.stdout, result.stdout + result.stderr


def metrabs_ros(*arguments, **options):
    """Run the command line."""
    return run_with_stall_timeout([sys.executable, '-m', 'metrabs_ros.cli', *arguments], **options)


def test_annotate_report_and_view_process_recordings(tmp_path, street):
    image = street[..., ::-1]
    write_bag(tmp_path / 'recording', [image])
    bags = [write_ros1_bag(tmp_path / f'{name}.bag', [image]) for name in 'ab']
    assert metrabs_ros('annotate', 'recording/', '-o', 'people/', cwd=tmp_path).returncode == 0
    several = metrabs_ros('annotate', *bags, '--workers', '4', '--csv', cwd=tmp_path)
    assert several.returncode == 0, several.stderr
    for folder in ('people', 'a_people', 'b_people'):
        assert len(people_in(tmp_path / folder)[0][1]) > 1
    assert (tmp_path / 'a_people' / 'joints.csv').exists()
    assert metrabs_ros('report', 'people/', cwd=tmp_path).returncode == 0
    assert (tmp_path / 'people' / 'report.html').exists()
    web, data = free_ports(2)
    view = subprocess.Popen(
        [
            *(sys.executable, '-m', 'metrabs_ros.cli', 'view', 'people/'),
            *('--web-port', str(web), '--data-port', str(data)),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert 'view: open http://' in view.stdout.readline()
        view.send_signal(signal.SIGINT)
        assert wait_for_exit(view) == 130
    finally:
        view.kill()
