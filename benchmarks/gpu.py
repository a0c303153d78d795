"""
Measure times, lower bounds and accuracy of MeTRAbs on a GPU, without ROS.

The script needs torch with CUDA, NumPy and PyYAML.  TensorRT is also measured if torch_tensorrt is
installed.

    python benchmarks/gpu.py [--output results.json] [--quick]

The results are printed and written as JSON.  Without a GPU the script runs on the CPU, which only
tests the script.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import sys
import tempfile
import time
import warnings

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import machine
import subjects
import torch
from stages import Stages
from torch.utils.flop_counter import FlopCounterMode

import metrabs_ros
from metrabs_ros.metrabs.checkpoint import read_checkpoint

CASES = (
    ('VGA', 3, 1),
    ('1080p', 1, 1),
    ('1080p', 3, 1),
    ('1080p', 6, 1),
    ('1080p', 3, 5),
    ('1080p', 6, 5),
    ('4K', 3, 1),
)
QUICK_CASES = (('VGA', 2, 1),)
MATRIX_SIZE = 8192


def matrix_rate_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations per second of large matrix products, in 1e12."""
    side = MATRIX_SIZE if device.type == 'cuda' else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    wait(device)
    start_s = time.perf_counter()
    for _ in range(10):
        a @ b
    wait(device)
    return 10 * 2 * side**3 / (time.perf_counter() - start_s) / 1e12


def wait(device: torch.device) -> None:
    """Wait until all operations of a device have finished."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def gflop_per_crop(folder: str) -> float:
    """Count the floating-point operations of the network for one crop, in 1e9."""
    checkpoint = read_checkpoint(pathlib.Path(folder))
    side_px = checkpoint.config.side_px
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        checkpoint.crop_model.eval()(torch.zeros(1, 3, side_px, side_px))
    return counter.get_total_flops() / 1e9


def measure(
    name: str, folder: str, engine: str, precision: str, device: torch.device, quick: bool
) -> list[dict[str, object]]:
    """Measure an engine with all cases."""
    start_s = time.perf_counter()
    model = metrabs_ros.load_model(folder, engine, precision, str(device))
    start_up_s = time.perf_counter() - start_s
    stages, rows = Stages(model), []
    for size, people, num_aug in QUICK_CASES if quick else CASES:
        image, boxes = subjects.noise_image(size), subjects.boxes(people, size)
        if device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(device)

        def call(image=image, boxes=boxes, num_aug=num_aug) -> object:
            return model.estimate_poses(image, boxes, num_aug=num_aug)

        found = stages.measure(call, calls=2 if quick else 60, warm_up=2 if quick else 15)
        memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == 'cuda' else 0
        rows.append(
            {
                'model': name,
                'engine': engine,
                'precision': precision,
                'size': size,
                'people': people,
                'num_aug': num_aug,
                **found,
                'frames_per_s': 1e3 / found['median_ms'],
                'gpu_memory_mib': memory,
                'start_up_s': start_up_s,
            }
        )
        print(as_text(rows[-1]), flush=True)
    return rows


def synchronisations(folder: str, device: torch.device) -> int:
    """Count the synchronisations with the GPU in a call; the expected number is one."""
    model = metrabs_ros.load_model(folder, 'torch', 'fp16', str(device))
    image, boxes = subjects.noise_image('1080p'), subjects.boxes(3, '1080p')
    model.estimate_poses(image, boxes)
    torch.cuda.set_sync_debug_mode('warn')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        model.estimate_poses(image, boxes)
    torch.cuda.set_sync_debug_mode('default')
    return sum('synchroniz' in str(warning.message) for warning in caught)


def parity(folder: str, engine: str, precision: str, device: torch.device) -> dict[str, float]:
    """Compare poses with those of torch in fp32 on the same device."""
    image, boxes = subjects.noise_image('1080p'), subjects.boxes(3, '1080p')
    reference_mm, poses_mm = (
        metrabs_ros.load_model(folder, *how).estimate_poses(image, boxes, num_aug=2)['poses3d']
        for how in (('torch', 'fp32', str(device)), (engine, precision, str(device)))
    )
    error_mm = np.linalg.norm(poses_mm - reference_mm, axis=-1)
    relative_error = error_mm / np.linalg.norm(reference_mm, axis=-1)
    return {
        'median_mm': float(np.median(error_mm)),
        'worst_mm': float(error_mm.max()),
        'median_percent_of_distance': 100 * float(np.median(relative_error)),
    }


def as_text(row: dict[str, object]) -> str:
    """Format a result for printing."""
    return (
        f'{row["model"]}, {row["engine"]} {row["precision"]}, {row["size"]}, {row["people"]} '
        f'people x {row["num_aug"]}: {row["median_ms"]:.2f} ms (95th {row["p95_ms"]:.2f}), '
        f'{row["frames_per_s"]:.0f} frames per second; stages: sampling {row["sampling_ms"]:.2f}, '
        f'network {row["network_ms"]:.2f}, rest {row["rest_ms"]:.2f}; '
        f'{row["gpu_memory_mib"]:.0f} MiB'
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--output', type=pathlib.Path)
    parser.add_argument('--quick', action='store_true', help='one small case, few calls')
    args = parser.parse_args()
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    where = machine.describe()
    if device.type == 'cuda':
        where += f', {torch.cuda.get_device_name(device)}, torch {torch.__version__}'
    print(where)
    half = torch.float16 if device.type == 'cuda' else torch.float32
    result: dict[str, object] = {
        'machine': where,
        'matrix_rate_tflops': matrix_rate_tflops(device, half),
        'rows': [],
        'networks': {},
        'parity': [],
    }
    engines = ['torch']
    if device.type == 'cuda' and importlib.util.find_spec('torch_tensorrt') is not None:
        engines.append('tensorrt')
    precisions = ['fp16', 'bf16', 'fp32'] if device.type == 'cuda' else ['fp32']
    checkpoints = dict(list(subjects.CHECKPOINTS.items())[: 1 if args.quick else None])
    for name, variant in checkpoints.items():
        with tempfile.TemporaryDirectory() as folder:
            subjects.write_checkpoint(folder, variant)
            gflop = gflop_per_crop(folder)
            floor_ms = 3 * gflop / result['matrix_rate_tflops']
            result['networks'][name] = {'gflop_a_crop': gflop, 'floor_of_three_crops_ms': floor_ms}
            print(
                f'{name}: {gflop:.1f} GFLOP per crop; three crops need {floor_ms:.2f} ms at the '
                f'rate of matrix products, {result["matrix_rate_tflops"]:.1f} TFLOP/s'
            )
            if device.type == 'cuda':
                result['networks'][name]['synchronisations'] = synchronisations(folder, device)
                print('synchronisations in a call:', result['networks'][name]['synchronisations'])
            for engine in engines:
                for precision in precisions:
                    how = (engine, precision, device)
                    result['rows'] += measure(name, folder, *how, args.quick)
                    result['parity'].append(
                        {'model': name, 'engine': engine, 'precision': precision}
                        | parity(folder, *how)
                    )
                    print('    difference to torch in fp32:', result['parity'][-1], flush=True)
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
