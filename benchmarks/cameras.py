"""
What four cameras cost through one model, against four models.

Compared are the times of four calls for one camera each with one call for all four, taken in turn,
and the memory of a process with one model with that of four of them.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time

import machine
import numpy as np
import subjects

import metrabs_ros

CAMERAS = 4
CALLS = 12


def measure(folder: str, results: object) -> None:
    """Measure in this process, which has one model."""
    model = metrabs_ros.load_model(folder)
    image, boxes = subjects.picture('1080p'), subjects.boxes(1, '1080p')
    images, everybody = [image] * CAMERAS, [boxes] * CAMERAS
    alone_s, together_s = [], []
    for _ in range(CALLS + 1):
        start_s = time.perf_counter()
        for _ in range(CAMERAS):
            model.estimate_poses(image, boxes)
        middle_s = time.perf_counter()
        model.estimate_poses_batched(images, everybody)
        alone_s.append(middle_s - start_s)
        together_s.append(time.perf_counter() - middle_s)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    results.put((np.median(alone_s[1:]), np.median(together_s[1:]), memory_mib))


def main() -> None:
    """Measure and print."""
    print(machine.describe())
    spawn = multiprocessing.get_context('spawn')
    with tempfile.TemporaryDirectory() as folder:
        subjects.write_checkpoint(folder, 's_centered')
        results = spawn.SimpleQueue()
        process = spawn.Process(target=measure, args=(folder, results))
        process.start()
        alone_s, together_s, memory_mib = results.get()
        process.join()
    print(
        f'{CAMERAS} cameras at 1080p with a person each, EfficientNetV2-S: one after the other '
        f'{1e3 * alone_s:.0f} ms, together {1e3 * together_s:.0f} ms '
        f'({together_s / alone_s:.2f}); memory {memory_mib:.0f} MiB with one model, '
        f'{CAMERAS * memory_mib:.0f} MiB with {CAMERAS}'
    )


if __name__ == '__main__':
    main()
