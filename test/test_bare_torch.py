"""MeTRAbs on a GPU needs torch, NumPy and PyYAML, and nothing else."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_THE_REST = """
import importlib.machinery
import sys

ALLOWED = {'metrabs_ros', 'torch', 'torchgen', 'numpy', 'yaml', '_yaml'}
NEEDED_BY_TORCH = {'typing_extensions', 'sympy', 'mpmath', 'networkx', 'jinja2', 'markupsafe',
                   'filelock', 'fsspec', 'functorch'}

class OnlyThese(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition('.')[0] in ALLOWED | NEEDED_BY_TORCH | sys.stdlib_module_names:
            return super().find_spec(name, path, target)

sys.meta_path = [
    OnlyThese if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
]

import numpy as np
import torch
import metrabs_ros
from metrabs_ros.metrabs import source_image
from metrabs_ros.metrabs import estimator

# As a GPU's, on the processor.
estimator.source_image_on = source_image.DeviceImage
model = metrabs_ros.load_model(sys.argv[1], engine='torch', device='cpu')
image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
poses = model.estimate_poses(image, [[50, 20, 90, 200], [150, 30, 60, 180]], num_aug=2)
assert np.isfinite(poses['poses3d']).all()
print('poses of', len(poses['poses3d']))
"""


def test_no_other_package_is_imported(checkpoint_folder):
    command = [sys.executable, '-c', WITHOUT_THE_REST, str(checkpoint_folder('s_centered'))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == 'poses of 2\n', done.stderr
