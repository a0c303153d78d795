"""Replacements for ROS 2 packages that are not available on PyPI."""

import os
import pathlib
import sys

from setuptools import setup

PACKAGES = ('tf2_py', 'tf2_ros', 'message_filters', 'cv_bridge')

for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
    index = pathlib.Path(prefix) / 'share/ament_index/resource_index/packages'
    real = [package for package in PACKAGES if prefix and (index / package).exists()]
    if real:
        sys.exit(
            f'{prefix} is a ROS installation with {", ".join(real)}; the replacements are not '
            'needed'
        )

setup(
    name='ros_from_pypi',
    version='0.1.0',
    description='Replacements for ROS 2 packages that are not available on PyPI',
    license='Apache-2.0',
    packages=[*PACKAGES, 'cv_bridge.boost'],
    python_requires='>=3.10',
    install_requires=['numpy', 'opencv-python-headless<5'],
)
