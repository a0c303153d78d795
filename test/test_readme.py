"""What the README says was measured is what was measured, and what it says to do can be done."""

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
from progress import end_of, run_while_it_progresses
from recorded_bags import people_in, write_bag, write_ros1_bag

PROJECT = pathlib.Path(__file__).parents[1]
README = (PROJECT / 'README.md').read_text()
PAGES = [PROJECT / name for name in ('README.md', 'CONTRIBUTING.md', 'docs/parameters.md')]
VENV = pathlib.Path(sys.prefix)

RUN_HERE = {
    'make demo': 'test_make_demo_plays_pictures',
    '.venv/bin/metrabs_ros demo --input': 'test_the_demo_takes_a_calibration',
    'metrabs_ros annotate': 'test_recordings_are_annotated_reported_and_shown',
    'metrabs_ros report': 'test_recordings_are_annotated_reported_and_shown',
    'metrabs_ros view': 'test_recordings_are_annotated_reported_and_shown',
    'colcon build': 'test/test_build.py::overlay',
    '.venv/bin/metrabs_ros view --camera': (
        'test/node/test_view_node.py::test_the_process_prints_its_address_and_exits_immediately'
    ),
}
"""The commands that tests run, by how they begin."""


def module_of(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_last_results():
    table = module_of(PROJECT / 'benchmarks' / 'table.py')
    assert table.with_tables(README) == README, 'run benchmarks/table.py'


def test_the_parameters_are_those_of_the_node():
    tables = module_of(PROJECT / 'docs' / 'make_tables.py')
    assert tables.PAGE.read_text() == tables.page(), 'run docs/make_tables.py'


def anchor_of(heading):
    """Return the anchor that pages on the web give a heading."""
    kept = re.sub(r'[^\w\- ]', '', heading.lower())
    return kept.strip().replace(' ', '-')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
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
    """Return the commands of the README, one by one."""
    for block in re.findall(r'```bash\n(.*?)```', README, re.DOTALL):
        for line in block.strip().splitlines():
            for command in line.split('#')[0].split('&&'):
                yield command.strip()


@pytest.mark.parametrize('command', sorted(set(commands())))
def test_every_command_is_run_by_a_test_or_says_why_not(command):
    excuses = README[README.index('## What is tested of this page') :]
    first_column = re.findall(r'^\| (`.*?) \|', excuses, re.MULTILINE)
    excused = re.findall(r'`([^`]+)`', ' '.join(first_column))
    command = command.replace('python3 -m metrabs_ros.cli', 'metrabs_ros')
    if command.startswith(tuple(excused)):
        return
    names = [name for start, name in RUN_HERE.items() if command.startswith(start)]
    assert names, command
    for name in names:
        file, _, function = name.rpartition('::')
        source = PROJECT / file if file else pathlib.Path(__file__)
        assert f'def {function}(' in source.read_text()


def test_the_python_does_what_it_says():
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
def pictures(tmp_path):
    """Return a folder of a few pictures of one street."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(3):
        shutil.copy(PROJECT / 'test' / 'data' / 'street.png', folder / f'{i}.png')
    return folder


@pytest.mark.skipif(not (VENV / '.done').exists(), reason='make sets up an environment of its own')
def test_make_demo_plays_pictures(pictures):
    environ = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MAKELEVEL')}
    result = run_while_it_progresses(
        ['make', 'demo', f'INPUT={pictures}', f'VENV={VENV}'], cwd=PROJECT, env=environ
    )
    assert 'demo: 3 frames' in result.stdout, result.stdout + result.stderr


def test_the_demo_takes_a_calibration(pictures, tmp_path):
    calibration = tmp_path / 'camera.yaml'
    calibration.write_text(
        'image_width: 768\nimage_height: 576\n'
        'camera_matrix: {rows: 3, cols: 3, data: [900, 0, 384, 0, 900, 288, 0, 0, 1]}\n'
        'distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n'
    )
    options = ['--input', pictures, '--calibration', calibration, '--output', tmp_path / 'out']
    result = metrabs_ros('demo', *options)
    assert 'demo: 3 frames' in result.stdout, result.stdout + result.stderr


def metrabs_ros(*arguments, **options):
    """Run the command line."""
    return run_while_it_progresses(
        [sys.executable, '-m', 'metrabs_ros.cli', *arguments], **options
    )


def test_recordings_are_annotated_reported_and_shown(tmp_path, street):
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
        assert end_of(view) == 130
    finally:
        view.kill()
