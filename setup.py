"""The Python metadata; on a ROS install colcon builds the package and this is not used."""

import pathlib
import xml.etree.ElementTree as ElementTree

from setuptools import find_packages, setup

FOLDER = pathlib.Path(__file__).parent
manifest = ElementTree.parse(FOLDER / 'package.xml').getroot()

setup(
    name='metrabs_ros',
    version=manifest.findtext('version'),
    description=manifest.findtext('description'),
    long_description=(FOLDER / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license=manifest.findtext('license'),
    author=manifest.findtext('maintainer'),
    packages=find_packages(include=['metrabs_ros', 'metrabs_ros.*']),
    python_requires='>=3.10',
    package_data={
        'metrabs_ros.node': ['*.xml'],
        'metrabs_ros.recordings': ['msg/*.msg'],
        'metrabs_ros.weights': ['networks/*'],
    },
    install_requires=[
        'numpy',
        'opencv-python-headless<5',
        'openvino',
        'PyYAML',
        # metrabs_ros.recordings uses private interfaces of rosbags 0.11.
        'rosbags>=0.11.9,<0.12',
        'tqdm',
    ],
    extras_require={
        'hri': ['urdf-parser-py'],
        'metrabs': ['torch'],
        'onnx': ['torch', 'onnx', 'onnxscript'],
        'tensorrt': ['torch', 'torch-tensorrt'],
        'tensorrt-rtx': ['torch', 'tensorrt-rtx', 'onnx', 'onnxscript'],
        'ultralytics': ['ultralytics'],
        'report': ['matplotlib'],
        'parquet': ['pyarrow'],
        'ray': ['ray'],
        'view': ['rerun-sdk>=0.39'],
    },
    entry_points={'console_scripts': ['metrabs_ros = metrabs_ros.__main__:main']},
)
