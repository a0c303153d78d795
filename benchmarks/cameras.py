"""
Compare one model for four cameras with four models.

The time of four calls with one image each is compared with the time of one call with four images,
and the memory of one process with that of four processes.
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
    """Measure times and memory of this process, which loads one model."""
    model = metrabs_ros.load_model(folder)
    image, boxes = subjects.noise_image('1080p'), subjects.boxes(1, '1080p')
    images, boxes_of_images = [image] * CAMERAS, [boxes] * CAMERAS
    single_s, batched_s = [], []
    for _ in range(CALLS + 1):
        start_s = time.perf_counter()
        for _ in range(CAMERAS):
            model.estimate_poses(image, boxes)
        middle_s = time.perf_counter()
        model.estimate_poses_batched(images, boxes_of_images)
        single_s.append(middle_s - start_s)
        batched_s.append(time.perf_counter() - middle_s)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    results.put((np.median(single_s[1:]), np.median(batched_s[1:]), memory_mib))


def main() -> None:
    """Measure and print."""
    print(machine.describe())
    spawn = multiprocessing.get_context('spawn')
    with tempfile.TemporaryDirectory() as folder:
        subjects.write_checkpoint(folder, 's_centered')
        results = spawn.SimpleQueue()
        process = spawn.Process(target=measure, args=(folder, results))
        process.start()
        single_s, batched_s, memory_mib = results.get()
        process.join()
    print(
        f'{CAMERAS} cameras at 1080p with one person each, EfficientNetV2-S: {CAMERAS} calls '
        f'{1e3 * single_s:.0f} ms, one batched call {1e3 * batched_s:.0f} ms '
        f'({batched_s / single_s:.2f}); memory {memory_mib:.0f} MiB with one model, '
        f'{CAMERAS * memory_mib:.0f} MiB with {CAMERAS}'
    )


if __name__ == '__main__':
    main()
