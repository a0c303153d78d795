"""The documentation is correct: figures are up to date, links exist, commands are tested."""

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
README = PROJECT / 'README.md'
PAGES = [README, PROJECT / 'CONTRIBUTING.md', *sorted((PROJECT / 'docs').glob('*.md'))]
TESTED_COMMANDS = (PROJECT / 'docs' / 'testing.md').read_text()
VENV = pathlib.Path(sys.prefix)
MAX_LINE_CHARS = 160
MAX_README_WORDS = 1200

MESSAGES = (
    'there is no camera_info with the images',
    'is all zeros',
    'is this a build of torch with CUDA?',
    'cannot be configured',
    'is damaged or not the published file',
    'MeTRAbs checkpoint: it lacks',
    'by another view',
    'this host name',
    'the package hri_msgs is not installed',
    'needs the package urdf_parser_py',
)
"""Parts of messages in docs/troubleshooting.md, as they are in the source."""


def module_of(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_benchmark_tables_have_the_latest_results():
    table = module_of(PROJECT / 'benchmarks' / 'table.py')
    text = table.PAGE.read_text()
    assert table.with_tables(text) == text, 'run benchmarks/table.py'


def test_the_parameters_are_those_of_the_node():
    tables = module_of(PROJECT / 'docs' / 'make_tables.py')
    assert tables.PAGE.read_text() == tables.page(), 'run docs/make_tables.py'


def test_the_estimated_joints_are_those_of_the_definitions():
    tables = module_of(PROJECT / 'docs' / 'make_tables.py')
    text = tables.SKELETONS_PAGE.read_text()
    assert tables.with_estimates(text) == text, 'run docs/make_tables.py'


def prose_of(page):
    """Return the text of a page without blocks of code."""
    return re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)


def anchors_of(page):
    """Return the anchors that web pages give the headings of a page."""
    headings = re.findall(r'^#+ (.*)$', prose_of(page), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', h.lower()).strip().replace(' ', '-') for h in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_have_existing_targets(page):
    links = re.findall(r'\]\(([^)\s]+)\)', prose_of(page))
    for link in links:
        if link.startswith('https://'):
            continue
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link
    assert page.name == 'CONTRIBUTING.md' or links


def test_the_readme_links_all_pages():
    text = README.read_text()
    for page in PAGES[1:]:
        assert f']({page.relative_to(PROJECT)})' in text, page


def test_the_readme_is_short():
    assert len(README.read_text().split()) <= MAX_README_WORDS


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_lines_are_not_too_long(page):
    assert max(len(line) for line in page.read_text().splitlines()) <= MAX_LINE_CHARS


@pytest.mark.parametrize('message', MESSAGES)
def test_messages_that_are_explained_exist(message):
    assert message in (PROJECT / 'docs' / 'troubleshooting.md').read_text()
    sources = (PROJECT / 'metrabs_ros').rglob('*.py')
    assert any(message in source.read_text() for source in sources)


def commands():
    """Return all commands of the documentation, without comments."""
    return {
        command.strip()
        for page in PAGES
        for block in re.findall(r'```bash\n(.*?)```', page.read_text(), re.DOTALL)
        for line in block.strip().splitlines()
        for command in line.split('#')[0].split('&&')
    }


def table_after(heading):
    """Return the commands and the second column of each row of a table in docs/testing.md."""
    section = re.split(r'^## ', TESTED_COMMANDS[TESTED_COMMANDS.index(heading) :], flags=re.M)[0]
    rows = re.findall(r'^\| (`.*?) \| (.*) \|$', section, re.MULTILINE)
    return [(re.findall(r'`([^`]+)`', first), second) for first, second in rows]


def names_of_tests():
    """Return for each command prefix the test that runs it."""
    rows = table_after('Commands that tests run')
    return {command: second.strip('`') for commands, second in rows for command in commands}


@pytest.mark.parametrize('command', sorted(commands()))
def test_every_command_is_tested_or_has_a_reason_why_not(command):
    command = command.replace('python3 -m metrabs_ros.cli', 'metrabs_ros')
    reasons = table_after('Commands that no test runs')
    untested = [prefix for prefixes, reason in reasons for prefix in prefixes if reason]
    assert command.startswith((*untested, *names_of_tests()))


@pytest.mark.parametrize('name', sorted(set(names_of_tests().values())))
def test_tests_named_in_the_documentation_exist(name):
    file, _, function = name.partition('::')
    assert f'def {function}(' in (PROJECT / file).read_text()


PYTHON_CHECKS = {
    'README.md': 'assert pred["poses3d"].shape == (len(pred["boxes"]), 17, 3)',
    'python.md': 'assert len(people.ids) > 1 and people.seen.all()',
}


def test_python_examples_are_checked():
    assert {page.name for page in PAGES if '```python' in page.read_text()} == set(PYTHON_CHECKS)


@pytest.mark.parametrize('name', PYTHON_CHECKS)
def test_python_examples_give_what_they_describe(name):
    page = next(page for page in PAGES if page.name == name)
    blocks = re.findall(r'```python\n(.*?)```', page.read_text(), re.DOTALL)
    script = '\n'.join([*blocks, PYTHON_CHECKS[name]])
    subprocess.run([sys.executable, '-c', script], check=True, cwd=PROJECT)


@pytest.fixture
def image_folder(tmp_path):
    """Return a folder with copies of a photograph of a street."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(3):
        shutil.copy(PROJECT / 'test' / 'data' / 'street.png', folder / f'{i}.png')
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not (VENV / '.done').exists(), reason='make would set up a new environment')
def test_make_demo_plays_images(image_folder):
    environ = {k: v for k, v in os.environ.items() if k not in ('MAKEFLAGS', 'MAKELEVEL')}
    result = run_with_stall_timeout(
        ['make', 'demo', f'INPUT={image_folder}', f'VENV={VENV}'], cwd=PROJECT, env=environ
    )
    assert 'demo: 3 frames' in result.stdout, result.stdout + result.stderr


@pytest.mark.slow
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


@pytest.mark.slow
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
