"""Rules for the structure of the package: layers, imports, versions, declared dependencies."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

import metrabs_ros

PROJECT = pathlib.Path(__file__).parents[1]
PACKAGE = PROJECT / 'metrabs_ros'
NODE = PACKAGE / 'node'
ROS_MODULES = re.compile(
    r'rclpy|tf2_\w+|message_filters|cv_bridge|\w+_interfaces|\w+_msgs|launch(_\w+)?'
)

OPTIONAL = (
    *(('recordings', 'rosbags'), ('report', 'rosbags'), ('report', 'matplotlib')),
    *(('view', 'rosbags'), ('view', 'rerun')),
)
"""Directories that need packages that may not be installed."""

MODULES = [file for file in PACKAGE.rglob('*.py') if NODE not in file.parents]
DIRECTORIES = sorted(file.parent.name for file in PACKAGE.glob('*/__init__.py'))
GUIDE = (PROJECT / 'CONTRIBUTING.md').read_text()
OTHER_MODULES = 'core'
"""The group of the modules that no other group lists."""


def imported_by(file: pathlib.Path) -> set[str]:
    """Return the full names of all modules that a file imports, also within functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return names


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_node_directory_imports_ros(file):
    for name in imported_by(file):
        assert not ROS_MODULES.fullmatch(name.split('.')[0]), f'{file} imports {name}'
        assert not name.startswith(('metrabs_ros.node', 'metrabs_ros.msg'))


def section_after(marker: str) -> str:
    """Return the text of CONTRIBUTING.md after a marker, up to the next marker or heading."""
    text = GUIDE[GUIDE.index(f'<!-- {marker}: read by test/test_architecture.py -->') + 1 :]
    return re.split(r'<!-- |^## ', text, maxsplit=1, flags=re.MULTILINE)[0]


def documented_imports() -> dict[str, set[str]]:
    """Return for each group of modules the groups that it may import, in the documented order."""
    rows = re.findall(r'^(\w+) +->(.*)$', section_after('imports'), re.MULTILINE)
    return {group: set(imports.split()) for group, imports in rows}


def module_groups() -> dict[str, str]:
    """Return the group of each module at the top level that a group lists."""
    rows = re.findall(r'^\| (\w+) \| (`.*) \|$', section_after('groups of modules'), re.MULTILINE)
    return {name: group for group, names in rows for name in re.findall(r'`(\w+)`', names)}


def group_of(module: str) -> str:
    """Return the group of a top-level module or directory of the package."""
    return module if module in DIRECTORIES else module_groups().get(module, OTHER_MODULES)


def imports_within_the_package() -> Iterator[tuple[str, str, str]]:
    """Yield the importing group, the imported group, and the file and module for messages."""
    for file in sorted(PACKAGE.rglob('*.py')):
        importing = group_of(file.relative_to(PACKAGE).parts[0].removesuffix('.py'))
        for name in imported_by(file):
            root, *parts = name.split('.')
            # Messages are generated; of `from metrabs_ros.camera import Camera` the module counts.
            if root != 'metrabs_ros' or not parts or parts[0] == 'msg':
                continue
            is_module = (PACKAGE / f'{parts[0]}.py').exists() or parts[0] in DIRECTORIES
            if is_module and group_of(parts[0]) != importing:
                yield importing, group_of(parts[0]), f'{file.relative_to(PROJECT)}: {name}'


def test_imports_are_those_that_the_contributing_guide_allows():
    allowed = {(a, b) for a, imports in documented_imports().items() for b in imports}
    examples = {(a, b): example for a, b, example in imports_within_the_package()}
    missing = {example for pair, example in examples.items() if pair not in allowed}
    assert not missing, 'imports that the table in CONTRIBUTING.md does not allow'
    assert allowed == set(examples), (
        'the table in CONTRIBUTING.md allows imports that do not exist'
    )


def test_groups_only_import_groups_further_down():
    groups = list(documented_imports())
    for position, (group, imports) in enumerate(documented_imports().items()):
        assert imports <= set(groups[position + 1 :]), f'{group} imports a group above it'
    assert set(groups) == {*DIRECTORIES, *module_groups().values(), OTHER_MODULES}


def test_grouped_modules_exist():
    for module in module_groups():
        assert (PACKAGE / f'{module}.py').exists(), module


def test_the_contributing_guide_lists_all_directories():
    tree = GUIDE[GUIDE.index('## Structure') : GUIDE.index('## Which directory')]
    inside = re.findall(r'^  (\w+(?:/|\.py))  +\w', tree, re.MULTILINE)
    assert {name[:-1] for name in inside if name.endswith('/')} == set(DIRECTORIES)
    assert all((PACKAGE / name).exists() for name in inside)
    outside = re.findall(r'^(\w+)/  +\w', tree, re.MULTILINE)
    assert {'msg', 'launch', 'config', 'docs', 'examples', 'test', 'benchmarks'} <= set(outside)
    assert all((PROJECT / name).is_dir() for name in outside)


@pytest.mark.parametrize('directory', DIRECTORIES)
def test_each_directory_says_in_one_sentence_what_it_contains(directory):
    docstring = ast.get_docstring(ast.parse((PACKAGE / directory / '__init__.py').read_text()))
    assert docstring, directory
    assert re.fullmatch(r'[^.]{20,}\.', ' '.join(docstring.split())), docstring


def test_everything_outside_the_node_directory_runs_without_ros():
    names = [
        '.'.join(file.relative_to(PROJECT).with_suffix('').parts).removesuffix('.__init__')
        for file in MODULES
        if not any(
            file.parent.name == directory and importlib.util.find_spec(package) is None
            for directory, package in OPTIONAL
        )
    ]
    script = f"""
import builtins, re, sys
real_import = builtins.__import__
def without_ros(name, *rest):
    assert not re.fullmatch({ROS_MODULES.pattern!r}, name.split('.')[0]), name
    return real_import(name, *rest)
builtins.__import__ = without_ros
for name in {sorted(names)!r}:
    __import__(name)
"""
    subprocess.run([sys.executable, '-c', script], check=True, cwd=PROJECT)


def test_the_demo_runs_without_torch():
    script = """
import sys
sys.modules['torch'] = None
import numpy as np
import metrabs_ros
from metrabs_ros.cli import main
from metrabs_ros.node import demo_camera, demo_viewer, pose_node
metrabs_ros.load_model('blazepose').detect_poses(np.zeros((240, 320, 3), np.uint8))
try:
    metrabs_ros.load_model('metrabs_s')
except ImportError as error:
    assert 'pip install torch' in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, '-c', script], check=True, cwd=PROJECT)


def test_no_folder_of_tests_looks_like_an_optional_package():
    """Without __init__.py, a folder on the path of the tests is found as a package, too."""
    folders = {folder.name for folder in (PROJECT / 'test').iterdir() if folder.is_dir()}
    selected = {'torch_tensorrt', 'tensorrt', 'tensorrt_rtx', 'openvino', 'onnx', 'onnxscript'}
    assert not folders & (selected | {package for _, package in OPTIONAL})


def test_all_versions_agree():
    manifest = ElementTree.parse(PROJECT / 'package.xml').getroot()
    assert manifest.findtext('version') == metrabs_ros.__version__
    changes = (PROJECT / 'CHANGELOG.rst').read_text()
    assert f'\n{metrabs_ros.__version__} (' in changes


def test_package_xml_declares_what_the_node_imports():
    manifest = ElementTree.parse(PROJECT / 'package.xml').getroot()
    declared = {element.text for element in manifest if element.tag.endswith('depend')}
    required = {
        *('rclpy', 'cv_bridge', 'message_filters', 'tf2_ros', 'sensor_msgs', 'geometry_msgs'),
        *('visualization_msgs', 'diagnostic_msgs', 'std_msgs', 'std_srvs', 'launch_ros'),
        *('python3-numpy', 'python3-opencv', 'python3-yaml'),
    }
    for file in NODE.glob('*.py'):
        roots = {name.split('.')[0] for name in imported_by(file)}
        required |= {name for name in roots if ROS_MODULES.fullmatch(name)}
    assert required <= declared
