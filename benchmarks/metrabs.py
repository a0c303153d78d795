"""
How much MeTRAbs costs beside its network, and how much memory it takes.

Both times are of the same calls, so that what else runs on the machine cancels out:
``estimate_poses`` on a picture of 1080p, and the network's own part of it.  The memory is that of
a process of its own that looks at 20 people in a picture of 4K, in 5 augmentations.

The weights are random; neither depends on them.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import pathlib
import resource
import tempfile
import time

import machine
import numpy as np

import metrabs_ros

CALLS = 30
BOXES = [[800, 90, 420, 900], [100, 200, 250, 700], [1300, 150, 350, 800], [500, 300, 200, 600]]
LENSES = {'pinhole': [], '5 coefficients': [-0.28, 0.09, 0.0012, -0.0007, -0.011]}
GENERATOR = pathlib.Path(__file__).parents[1] / 'test' / 'data' / 'golden' / 'make_checkpoint.py'


def write_checkpoint(folder: str) -> None:
    """Write a checkpoint with random weights of the small network."""
    spec = importlib.util.spec_from_file_location('make_checkpoint', GENERATOR)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.write_checkpoint(folder, 's_centered')


def picture(height: int, width: int) -> np.ndarray:
    """Return noise, which costs as much as anything else."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def measure_speed(folder: str) -> None:
    """Print the times of whole calls and of the network in them."""
    model = metrabs_ros.load_model(folder)
    network_s: list[float] = []
    network = model.network

    def timed(crops: object) -> object:
        start_s = time.perf_counter()
        points = network(crops)
        network_s.append(time.perf_counter() - start_s)
        return points

    model.network = timed
    image = picture(1080, 1920)
    for people in (1, 4):
        for lens, coeffs in LENSES.items():
            whole_s = []
            for _ in range(CALLS + 3):
                start_s = time.perf_counter()
                model.estimate_poses(image, BOXES[:people], distortion_coeffs=coeffs)
                whole_s.append(time.perf_counter() - start_s)
            ratios = np.array(whole_s[3:]) / np.array(network_s[-CALLS:])
            print(
                f'estimate_poses, 1080p, {people} people, {lens}: '
                f'{np.median(whole_s) * 1e3:.0f} ms, {np.median(ratios):.3f} times its network '
                f'(middle half {np.percentile(ratios, 25):.3f} to {np.percentile(ratios, 75):.3f})'
            )


def measure_memory(folder: str) -> None:
    """Print the peak of memory of this process."""
    model = metrabs_ros.load_model(folder)
    rng = np.random.default_rng(0)
    corners = rng.uniform((0, 0), (3000, 800), (20, 2))
    sizes = rng.uniform((200, 600), (900, 1400), (20, 2))
    model.estimate_poses(picture(2160, 3840), np.concatenate([corners, sizes], axis=1), num_aug=5)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f'4K, 20 people, num_aug 5: {peak_gib:.2f} GiB at the most')


def main() -> None:
    """Measure and print."""
    print(machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(folder)
        for measure in (measure_speed, measure_memory):
            process = multiprocessing.get_context('spawn').Process(target=measure, args=(folder,))
            process.start()
            process.join()


if __name__ == '__main__':
    main()
