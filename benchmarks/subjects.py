"""Inputs of the benchmarks: checkpoints with random weights, noise images, person boxes."""

from __future__ import annotations

import importlib.util
import pathlib
import types

import numpy as np

DATA = pathlib.Path(__file__).parents[1] / 'test' / 'data'
NLF = 'nlf_'
"""Start of the names of NLF checkpoints, before the size."""
SIZES = {'1080p': (1080, 1920), '4K': (2160, 3840), 'VGA': (480, 640)}
CHECKPOINTS = {'EfficientNetV2-S, 256 px': 's_centered', 'EfficientNetV2-L, 384 px': 'l_384'}


def write_checkpoint(folder: str | pathlib.Path, variant: str) -> None:
    """Write a checkpoint with random weights; time and memory do not depend on them."""
    if variant.startswith(NLF):
        generator = _load_module(DATA / 'nlf' / 'make_nlf_checkpoint.py')
        generator.write_checkpoint(folder, variant.removeprefix(NLF))
    else:
        generator = _load_module(DATA / 'golden' / 'make_checkpoint.py')
        generator.write_checkpoint(folder, variant)


def _load_module(file: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise_image(size: str) -> np.ndarray:
    """Return a noise image [H, W, 3], uint8; the time does not depend on the image content."""
    return np.random.default_rng(0).integers(0, 256, (*SIZES[size], 3), np.uint8)


def boxes(people: int, size: str) -> np.ndarray:
    """Return boxes [N, 4] of people in a row, with 60 to 80 percent of the image height."""
    height, width = SIZES[size]
    left = np.linspace(0.02, 0.8, people) * width
    tall = np.linspace(0.8, 0.6, people) * height
    return np.stack([left, 0.1 * height + 0 * left, 0.4 * tall, tall], axis=1)
