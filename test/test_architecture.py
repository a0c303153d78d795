"""Rules for imports, versions and declared dependencies of the package."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import metrabs_ros

PROJECT = pathlib.Path(__file__).parents[1]
PACKAGE = PROJECT / 'metrabs_ros'
ROS_PACKAGE = PACKAGE / 'node'
ROS_MODULES = re.compile(
    r'rclpy|tf2_\w+|message_filters|cv_bridge|\w+_interfaces|\w+_msgs|launch(_\w+)?'
)

OPTIONAL = (
    *(('recordings', 'rosbags'), ('report', 'rosbags'), ('report', 'matplotlib')),
    *(('view', 'rosbags'), ('view', 'rerun')),
)
"""Subpackages and the optional packages that they need."""

MODULES = [file for file in PACKAGE.rglob('*.py') if ROS_PACKAGE not in file.parents]


def imported_by(file: pathlib.Path) -> set[str]:
    """Return the full names of the modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    return names


@pytest.mark.parametrize('file', MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_the_node_package_imports_ros(file):
    for name in imported_by(file):
        assert not ROS_MODULES.fullmatch(name.split('.')[0]), f'{file} imports {name}'
        assert not name.startswith(('metrabs_ros.node', 'metrabs_ros.msg'))


def test_modules_outside_of_the_node_package_are_importable_without_ros():
    names = [
        '.'.join(file.relative_to(PROJECT).with_suffix('').parts).removesuffix('.__init__')
        for file in MODULES
        if not any(
            file.parent.name == subpackage and importlib.util.find_spec(package) is None
            for subpackage, package in OPTIONAL
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


def test_blazepose_and_the_demo_do_not_need_torch():
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


def test_package_xml_and_changelog_have_the_version_of_the_package():
    manifest = ElementTree.parse(PROJECT / 'package.xml').getroot()
    assert manifest.findtext('version') == metrabs_ros.__version__
    changes = (PROJECT / 'CHANGELOG.rst').read_text()
    assert f'\n{metrabs_ros.__version__} (' in changes


def test_package_xml_declares_the_imports_of_the_node():
    manifest = ElementTree.parse(PROJECT / 'package.xml').getroot()
    declared = {element.text for element in manifest if element.tag.endswith('depend')}
    required = {
        *('rclpy', 'cv_bridge', 'message_filters', 'tf2_ros', 'sensor_msgs', 'geometry_msgs'),
        *('visualization_msgs', 'diagnostic_msgs', 'std_msgs', 'std_srvs', 'launch_ros'),
        *('python3-numpy', 'python3-opencv', 'python3-yaml'),
    }
    for file in ROS_PACKAGE.glob('*.py'):
        roots = {name.split('.')[0] for name in imported_by(file)}
        required |= {name for name in roots if ROS_MODULES.fullmatch(name)}
    assert required <= declared
