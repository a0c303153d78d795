"""
Compare the time of NLF with that of MeTRAbs of the same size, and for few and many points.

    python benchmarks/nlf.py > benchmarks/results/nlf.txt

The calls of all models alternate, because the speed of a machine changes from minute to minute;
the median of the ratios of adjacent calls is compared with a target.  The weights are random.  The
exit status is 1 if a target is missed.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import machine
import numpy as np
import subjects

import metrabs_ros

SIZES = {'s': ('s_centered', 21), 'l': ('l_384', 7)}
"""Variant of the MeTRAbs checkpoint, and number of calls."""
PEOPLE = (1, 4)
MAX_OVER_METRABS = 1.15
"""Maximum time with 24 points, relative to MeTRAbs."""
FEW, MANY, MAX_MANY_OVER_FEW = 24, 300, 1.3
ALL = 945
"""The number of points of a published checkpoint, all of which are tracked in streams."""


def time_s(call: Callable[[], object]) -> float:
    """Return the time of a call in seconds."""
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def measure(folder: pathlib.Path, size: str) -> bool:
    """Measure, print, and return whether all targets are met."""
    variant, calls = SIZES[size]
    subjects.write_checkpoint(folder / 'metrabs', variant)
    subjects.write_checkpoint(folder / 'nlf', f'{subjects.NLF}{size}')
    metrabs, nlf = (
        metrabs_ros.load_model(folder / name, 'openvino', 'fp32') for name in ('metrabs', 'nlf')
    )
    image, rng = subjects.noise_image('1080p'), np.random.default_rng(0)
    points_m = {count: rng.normal(scale=0.4, size=(count, 3)) for count in (FEW, MANY, ALL)}
    met = True
    for people in PEOPLE:
        boxes = subjects.boxes(people, '1080p')
        models = [lambda boxes=boxes: metrabs.estimate_poses(image, boxes)] + [
            lambda boxes=boxes, own=own: nlf.estimate_poses(image, boxes, skeleton=own)
            for own in points_m.values()
        ]
        # The first calls prepare the weights of the points.
        times_s = np.array([[time_s(call) for call in models] for _ in range(calls + 2)])[2:]
        over_metrabs = np.median(times_s[:, 1] / times_s[:, 0])
        many_over_few = np.median(times_s[:, 2] / times_s[:, 1])
        all_over_few = np.median(times_s[:, 3] / times_s[:, 1])
        met &= bool(over_metrabs <= MAX_OVER_METRABS and many_over_few <= MAX_MANY_OVER_FEW)
        medians_ms = 1e3 * np.median(times_s, axis=0)
        print(
            f'{size.upper()}, people {people}: MeTRAbs {medians_ms[0]:.0f} ms, NLF with {FEW} '
            f'points {medians_ms[1]:.0f} ms ({over_metrabs:.2f}; target {MAX_OVER_METRABS}), '
            f'{MANY} points {medians_ms[2]:.0f} ms ({many_over_few:.2f} of {FEW}; target '
            f'{MAX_MANY_OVER_FEW}), {ALL} points {medians_ms[3]:.0f} ms ({all_over_few:.2f})',
            flush=True,
        )
    return met


def main() -> int:
    """Measure and print; return the exit status."""
    print(machine.describe())
    print('1080p, OpenVINO, fp32')
    met = True
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            met &= measure(pathlib.Path(folder), size)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main())
