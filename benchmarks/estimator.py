"""
Measure the time of MeTRAbs on a CPU for each engine and stage, and the memory.

Each time is compared with that of the official PyTorch implementation.  The official time is
estimated: the time of the network of this package in plain torch, measured in the same run, is
multiplied by the ratio of the official total time to the official network time.  The memory is the
peak of a separate process.  The weights are random, because they have no influence on the results.

    python benchmarks/estimator.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pathlib
import resource
import tempfile
import time
from collections.abc import Callable

import machine
import numpy as np
import subjects
import torch
from stages import Stages

import metrabs_ros
from metrabs_ros.metrabs.checkpoint import read_checkpoint

RESULTS = pathlib.Path(__file__).parent / 'results' / 'estimator.json'
OFFICIAL_OVER_NETWORK = {(1, 1): 97 / 68, (4, 1): 258 / 240, (4, 5): 1780 / 1650}
"""Ratio of the total time to the network time of the official implementation, by the numbers of
people and augmentations, for a 1080p image and EfficientNetV2-S."""
ENGINES = (('torch', 'fp32'), ('openvino', 'fp32'), ('openvino', 'bf16'))
CASES = (
    ('1080p', 1, 1, []),
    ('1080p', 4, 1, []),
    ('1080p', 4, 5, []),
    ('1080p', 4, 1, [-0.28, 0.09, 0.0012, -0.0007, -0.011]),
    ('4K', 4, 1, []),
)
MEMORY_CASE = ('4K', 20, 5, [])


def measure(
    folder: str, engine: str, precision: str, calls: int, rows: list[dict[str, object]]
) -> None:
    """Measure an engine, and the network in plain torch between its calls."""
    model = metrabs_ros.load_model(folder, engine, precision)
    plain = read_checkpoint(pathlib.Path(folder)).crop_model.eval()
    stages = Stages(model)
    for size, people, num_aug, coeffs in CASES:
        image, boxes = subjects.noise_image(size), subjects.boxes(people, size)
        crops = torch.rand(people * num_aug, 3, 256, 256)

        def call(image=image, boxes=boxes, coeffs=coeffs, num_aug=num_aug) -> object:
            return model.estimate_poses(image, boxes, distortion_coeffs=coeffs, num_aug=num_aug)

        measured = stages.measure(call, calls)
        # The calls alternate, because the speed of the machine changes from minute to minute.
        with torch.inference_mode():
            in_turn_s = np.array(
                [(time_call(call), time_call(plain, crops)) for _ in range(calls)]
            )
        row = {
            'engine': engine,
            'precision': precision,
            'size': size,
            'people': people,
            'num_aug': num_aug,
            'lens': f'{len(coeffs)} coefficients',
            **measured,
            'plain_torch_network_ms': 1e3 * float(np.median(in_turn_s[:, 1])),
        }
        factor = OFFICIAL_OVER_NETWORK.get((people, num_aug))
        if factor and not coeffs and size == '1080p':
            row['over_official'] = float(np.median(in_turn_s[:, 0] / in_turn_s[:, 1])) / factor
        rows.append(row)
        print(as_text(row), flush=True)


def time_call(function: Callable[..., object], *arguments: object) -> float:
    """Return the time of a call in seconds."""
    start_s = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start_s


def measure_memory(folder: str, engine: str, precision: str, results: object) -> None:
    """Measure the peak memory of this process."""
    size, people, num_aug, _ = MEMORY_CASE
    model = metrabs_ros.load_model(folder, engine, precision)
    model.estimate_poses(subjects.noise_image(size), subjects.boxes(people, size), num_aug=num_aug)
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def as_text(row: dict[str, object]) -> str:
    """Format a result for printing."""
    ratio = f'{row["over_official"]:.2f} of the official' if 'over_official' in row else ''
    return (
        f'{row["engine"]:>8} {row["precision"]}  {row["size"]}, {row["people"]} people x '
        f'{row["num_aug"]}, {row["lens"]}: {row["median_ms"]:.0f} ms (95th {row["p95_ms"]:.0f}) = '
        f'sampling {row["sampling_ms"]:.1f} + network {row["network_ms"]:.1f} + rest '
        f'{row["rest_ms"]:.1f}; plain torch network {row["plain_torch_network_ms"]:.0f}; {ratio}'
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--quick', action='store_true', help='few calls; write no results')
    calls = 3 if parser.parse_args().quick else 15
    print(machine.describe())
    rows: list[dict[str, object]] = []
    spawn = multiprocessing.get_context('spawn')
    with tempfile.TemporaryDirectory() as folder:
        subjects.write_checkpoint(folder, 's_centered')
        for engine, precision in ENGINES:
            if precision == 'bf16' and not machine.supports_bf16():
                print('bf16 is not measured, because this processor only emulates it')
                continue
            measure(folder, engine, precision, calls, rows)
        memory_gib = {}
        for engine in ('torch', 'openvino'):
            results = spawn.SimpleQueue()
            process = spawn.Process(target=measure_memory, args=(folder, engine, 'fp32', results))
            process.start()
            memory_gib[engine] = results.get()
            process.join()
            print(f'{engine}: 4K, 20 people, num_aug 5: peak memory {memory_gib[engine]:.2f} GiB')
    if calls > 3:
        report = {'machine': machine.describe(), 'rows': rows, 'memory_gib': memory_gib}
        RESULTS.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
