"""
Measure the accuracy, times, lower bounds and memory of MeTRAbs and NLF on a GPU, without ROS.

The script needs torch with CUDA, NumPy, OpenCV and PyYAML, and takes about three minutes.
TensorRT is also measured if torch_tensorrt is installed, TensorRT for RTX if it is installed and
supports the GPU.

    python benchmarks/gpu.py [--output results.json] [--quick]

The results are printed, and written as JSON after each step.  Without a GPU the script runs on the
CPU, which only tests the script.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import bounds
import golden
import machine
import subjects
import torch
from stages import Stages

import metrabs_ros
from metrabs_ros.backends.selection import UNAVAILABLE, Machine, choose
from metrabs_ros.pose_estimator import PoseEstimator

NETWORKS = {
    's_centered': (bounds.metrabs, 's', 256),
    'l_384': (bounds.metrabs, 'l', 384),
    'nlf_s': (bounds.nlf, 's', 256),
}
"""Kind, size and crop side of the networks, by the name of the checkpoint."""
LOADS = ((1, 1), (3, 1), (4, 5))
"""Numbers of people and augmentations."""
PRECISIONS = {
    's_centered': ('fp16', 'bf16', 'fp32'),
    'l_384': ('fp16', 'fp32'),
    'nlf_s': ('fp16', 'fp32'),
}
MATRIX_SIZE = 8192
COPIED_BYTES = 4 << 30


class Report:
    """
    Results that are printed and written after each step.

    Parameters
    ----------
    file
        The JSON file, or None to print only.
    """

    def __init__(self, file: pathlib.Path | None) -> None:
        self._file = file
        self._steps: dict[str, list[dict[str, object]]] = {}
        self._start_s = time.perf_counter()

    def add(self, step: str, row: dict[str, object]) -> None:
        """Add a result of a step."""
        self._steps.setdefault(step, []).append(row)
        values = ', '.join(f'{name} {as_text(value)}' for name, value in row.items())
        print(f'{time.perf_counter() - self._start_s:5.0f} s  {step}: {values}', flush=True)
        if self._file is not None:
            self._file.write_text(json.dumps(self._steps, indent=1) + '\n')


def as_text(value: object) -> str:
    """Format a value with four significant digits."""
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def wait(device: torch.device) -> None:
    """Wait until all operations of a device have finished."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def median_ms(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Return the median time of a call, including the wait for the device."""
    times_s = []
    for _ in range(calls + 3):
        start_s = time.perf_counter()
        call()
        wait(device)
        times_s.append(time.perf_counter() - start_s)
    return 1e3 * float(np.median(times_s[3:]))


def measure_rates(device: torch.device, report: Report) -> tuple[float, float]:
    """Return the rate of matrix products in 1e12/s, and of copies in 1e12 bytes/s."""
    on_gpu = device.type == 'cuda'
    dtype = torch.float16 if on_gpu else torch.float32
    side = MATRIX_SIZE if on_gpu else 512
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product_ms = median_ms(lambda: a @ b, device, 20)
    source = torch.zeros(COPIED_BYTES if on_gpu else 1 << 24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_ms = median_ms(lambda: target.copy_(source), device, 20)
    tflops, tb_per_s = 2e-9 * side**3 / product_ms, 2e-9 * len(source) / copy_ms
    report.add('rates', {'matrix_product_tflops': tflops, 'copy_tb_per_s': tb_per_s})
    return tflops, tb_per_s


def measure_accuracy(
    folder_of: Callable[[str], str], engine: str, precision: str, device: str, report: Report
) -> None:
    """Compare poses with those of the official implementation in fp32."""
    models: dict[str, PoseEstimator] = {}
    found = []
    for case, official_mm in golden.cases():
        variant = case['variant']
        # In 16 bits all variants have the same errors, because the heads are always in fp32.
        if precision != 'fp32' and variant != 's_centered':
            continue
        if variant not in models:
            models[variant] = metrabs_ros.load_model(folder_of(variant), engine, precision, device)
        found.append(golden.errors(models[variant], case, official_mm))
    report.add('accuracy', {'engine': engine, 'precision': precision, **golden.summary(found)})


def measure_network(
    model: PoseEstimator, how: dict[str, object], rates: tuple[float, float], report: Report
) -> None:
    """Measure the time of the network for crops on the device."""
    build, size, side_px = NETWORKS[how['model']]
    work = bounds.count(build, size, side_px)
    device = torch.device(model.choice.device)
    for people, num_aug in LOADS:
        count = people * num_aug
        crops = torch.rand(count, 3, side_px, side_px, device=device)
        measured_ms = median_ms(lambda crops=crops: model.network(crops), device, 50)
        row = {'crops': count, 'network_ms': measured_ms}
        row['arithmetic_bound_ms'] = work.arithmetic_ms(count, rates[0])
        row['memory_bound_ms'] = work.memory_ms(count, rates[1])
        report.add('network', how | row)


def measure_pipeline(
    model: PoseEstimator, how: dict[str, object], calls: int, report: Report
) -> None:
    """Measure the time of `estimate_poses` for a 1080p image in host memory, by stages."""
    stages = Stages(model)
    image = subjects.noise_image('1080p')
    on_gpu = 'cuda' in model.choice.device
    for people, num_aug in LOADS:
        boxes = subjects.boxes(people, '1080p')
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()

        def call(boxes=boxes, num_aug=num_aug) -> object:
            return model.estimate_poses(image, boxes, num_aug=num_aug)

        measured = stages.measure(call, calls, warm_up=min(calls, 15))
        row = {'people': people, 'num_aug': num_aug, **measured}
        row['frames_per_s'] = 1e3 / measured['median_ms']
        row['gpu_memory_mib'] = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0.0
        report.add('pipeline_1080p', how | row)


def count_synchronisations(model: PoseEstimator) -> int:
    """Count the synchronisations with the GPU in a call; the expected number is one."""
    image, boxes = subjects.noise_image('1080p'), subjects.boxes(3, '1080p')
    model.estimate_poses(image, boxes)
    torch.cuda.set_sync_debug_mode('warn')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        model.estimate_poses(image, boxes)
    torch.cuda.set_sync_debug_mode('default')
    return sum('synchroniz' in str(warning.message) for warning in caught)


def available_engines(device: torch.device, report: Report) -> list[str]:
    """Return the engines to measure; the reasons why others are not available are reported."""
    engines = ['torch']
    for engine in ('tensorrt', 'tensorrt_rtx'):
        try:
            choose(engine, 'fp16', str(device), Machine.detect())
        except (ValueError, ImportError) as error:
            report.add('not_measured', {'engine': engine, 'reason': str(error)})
        else:
            engines.append(engine)
    return engines


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--output', type=pathlib.Path)
    parser.add_argument('--quick', action='store_true', help='one network, few calls')
    args = parser.parse_args()
    report = Report(args.output)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    on_gpu = device.type == 'cuda'
    gpu = f', {torch.cuda.get_device_name(device)}' if on_gpu else ''
    report.add('machine', {'name': f'{machine.describe()}{gpu}, torch {torch.__version__}'})
    with tempfile.TemporaryDirectory() as folder:

        def folder_of(variant: str) -> str:
            path = pathlib.Path(folder) / variant
            if not path.exists():
                subjects.write_checkpoint(path, variant)
            return str(path)

        for precision in ('fp32', 'fp16') if on_gpu else ('fp32',):
            measure_accuracy(folder_of, 'torch', precision, str(device), report)
        rates = measure_rates(device, report)
        for engine in available_engines(device, report):
            for variant in list(NETWORKS)[: 1 if args.quick else None]:
                for precision in PRECISIONS[variant] if on_gpu else ('fp32',):
                    if precision == UNAVAILABLE.get(engine):
                        continue
                    how = {'model': variant, 'engine': engine, 'precision': precision}
                    start_s = time.perf_counter()
                    model = metrabs_ros.load_model(
                        folder_of(variant), engine, precision, str(device)
                    )
                    report.add('load', how | {'seconds': time.perf_counter() - start_s})
                    if on_gpu:
                        count = count_synchronisations(model)
                        report.add('synchronisations', how | {'per_call': count})
                    measure_network(model, how, rates, report)
                    measure_pipeline(model, how, 2 if args.quick else 60, report)
            if engine != 'torch':
                measure_accuracy(folder_of, engine, 'fp16', str(device), report)


if __name__ == '__main__':
    main()
