"""
How long MeTRAbs takes on a CPU, engine by engine, where the time goes, and how much memory it is.

Beside each time stands its ratio to the official PyTorch implementation's.  That is not here: its
time is taken as that of this package's own network in plain torch, measured in the same run, times
what the official one takes over its own network on the same pictures.  The memory is the peak of a
process of its own.  The weights are random; nothing here depends on them.

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
"""For people and augmentations on a 1080p picture, with EfficientNetV2-S."""
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
    """Measure an engine, and plain torch's network between its calls."""
    model = metrabs_ros.load_model(folder, engine, precision)
    plain = read_checkpoint(pathlib.Path(folder)).crop_model.eval()
    stages = Stages(model)
    for size, people, num_aug, coeffs in CASES:
        image, boxes = subjects.picture(size), subjects.boxes(people, size)
        crops = torch.rand(people * num_aug, 3, 256, 256)

        def call(image=image, boxes=boxes, coeffs=coeffs, num_aug=num_aug) -> object:
            return model.estimate_poses(image, boxes, distortion_coeffs=coeffs, num_aug=num_aug)

        found = stages.measure(call, calls)
        # In turn, as the machine's speed changes from minute to minute.
        with torch.inference_mode():
            in_turn_s = np.array([(clocked(call), clocked(plain, crops)) for _ in range(calls)])
        row = {
            'engine': engine,
            'precision': precision,
            'size': size,
            'people': people,
            'num_aug': num_aug,
            'lens': f'{len(coeffs)} coefficients',
            **found,
            'plain_torch_network_ms': 1e3 * float(np.median(in_turn_s[:, 1])),
        }
        factor = OFFICIAL_OVER_NETWORK.get((people, num_aug))
        if factor and not coeffs and size == '1080p':
            row['over_official'] = float(np.median(in_turn_s[:, 0] / in_turn_s[:, 1])) / factor
        rows.append(row)
        print(as_text(row), flush=True)


def clocked(function: Callable[..., object], *arguments: object) -> float:
    """Return how many seconds a call takes."""
    start_s = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start_s


def measure_memory(folder: str, engine: str, precision: str, results: object) -> None:
    """Measure the peak of memory of this process."""
    size, people, num_aug, _ = MEMORY_CASE
    model = metrabs_ros.load_model(folder, engine, precision)
    model.estimate_poses(subjects.picture(size), subjects.boxes(people, size), num_aug=num_aug)
    results.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def as_text(row: dict[str, object]) -> str:
    """Return a row of the table."""
    ratio = f'{row["over_official"]:.2f} of the official' if 'over_official' in row else ''
    return (
        f'{row["engine"]:>8} {row["precision"]}  {row["size"]}, {row["people"]} people x '
        f'{row["num_aug"]}, {row["lens"]}: {row["median_ms"]:.0f} ms (95th {row["p95_ms"]:.0f}) = '
        f'sampling {row["sampling_ms"]:.1f} + network {row["network_ms"]:.1f} + rest '
        f'{row["rest_ms"]:.1f}; plain torch network {row["plain_torch_network_ms"]:.0f}; {ratio}'
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--quick', action='store_true', help='few calls, nothing written')
    calls = 3 if parser.parse_args().quick else 15
    print(machine.describe())
    rows: list[dict[str, object]] = []
    spawn = multiprocessing.get_context('spawn')
    with tempfile.TemporaryDirectory() as folder:
        subjects.write_checkpoint(folder, 's_centered')
        for engine, precision in ENGINES:
            if precision == 'bf16' and not machine.supports_bf16():
                print('bf16 is only emulated on this processor: not measured')
                continue
            measure(folder, engine, precision, calls, rows)
        memory_gib = {}
        for engine in ('torch', 'openvino'):
            results = spawn.SimpleQueue()
            process = spawn.Process(target=measure_memory, args=(folder, engine, 'fp32', results))
            process.start()
            memory_gib[engine] = results.get()
            process.join()
            print(f'{engine}: 4K, 20 people, num_aug 5: {memory_gib[engine]:.2f} GiB at the most')
    if calls > 3:
        everything = {'machine': machine.describe(), 'rows': rows, 'memory_gib': memory_gib}
        RESULTS.write_text(json.dumps(everything, indent=1) + '\n')


if __name__ == '__main__':
    main()
