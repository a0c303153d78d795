"""MeTRAbs and NLF on a GPU need only the packages torch, NumPy and PyYAML."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib.machinery
import sys

ALLOWED = {'metrabs_ros', 'torch', 'torchgen', 'numpy', 'yaml', '_yaml'}
TORCH_DEPENDENCIES = {'typing_extensions', 'sympy', 'mpmath', 'networkx', 'jinja2', 'markupsafe',
                   'filelock', 'fsspec', 'functorch'}

class AllowedFinder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition('.')[0] in ALLOWED | TORCH_DEPENDENCIES | sys.stdlib_module_names:
            return super().find_spec(name, path, target)

sys.meta_path = [
    AllowedFinder if finder is importlib.machinery.PathFinder else finder
    for finder in sys.meta_path
]

import numpy as np
import torch
import metrabs_ros
from metrabs_ros.crop_networks import source_image
from metrabs_ros.crop_networks import crop_estimator

# Use the code for GPUs on the CPU.
crop_estimator.create_source_image = source_image.DeviceImage
model = metrabs_ros.load_model(sys.argv[1], engine='torch', device='cpu')
image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
poses = model.estimate_poses(image, [[50, 20, 90, 200], [150, 30, 60, 180]], num_aug=2)
assert np.isfinite(poses['poses3d']).all()
print('poses of', len(poses['poses3d']))
"""


def test_no_other_packages_are_imported(checkpoint_folder, nlf_folder):
    for folder in (checkpoint_folder('s_centered'), nlf_folder()):
        command = [sys.executable, '-c', SCRIPT, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout == 'poses of 2\n', done.stderr
