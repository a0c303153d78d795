#!/usr/bin/env python3
"""
Run pose nodes under mixed load for a long time; check for leaks, failures and missing frames.

    python test/endurance/run.py --minutes 20 --output endurance_output

One node runs BlazePose on raw images, another a small MeTRAbs checkpoint with random weights on
compressed images and with detections from a topic.  The load includes malformed messages, jumping
stamps, missing transforms, changing lifecycle states and parameters, subscribers that connect,
disconnect or stop reading, the browser view and annotate.  The exit status is 0 if all checks
pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault('ROS_DOMAIN_ID', str(random.SystemRandom().randint(1, 100)))
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')

from metrabs_ros import demo

for variable in demo.PROFILES_VARIABLES:
    os.environ.setdefault(variable, str(demo.FASTDDS_PROFILES_FILE))

import checks
import cv2
import load
import numpy as np
import rclpy
from processes import WITHOUT_SHARED_MEMORY, ObservedProcess, Sample

TEST = pathlib.Path(__file__).resolve().parents[1]
WARM_UP = 0.25
"""Fraction of the time after which memory, threads and descriptors must not grow."""
SAMPLE_PERIOD_S = 5.0
START_TIMEOUT_S = 300.0
VIEW_PORT = 19090
BLAZEPOSE = {'model': 'blazepose', 'depth_transport': 'raw'}


@dataclasses.dataclass
class Subject:
    """
    Pose node under test and its load.

    Parameters
    ----------
    process
        Process of the node.
    robot
        Load of the node.
    samples
        Resource usage of the process over time.
    """

    process: ObservedProcess
    robot: load.Robot
    samples: list[Sample] = dataclasses.field(default_factory=list)

    def steady_samples(self) -> list[Sample]:
        """Return the comparable samples after warm-up."""
        first_s, last_s = self.samples[0].time_s, self.samples[-1].time_s
        warm_s = first_s + WARM_UP * (last_s - first_s)
        return [s for s in self.samples if s.is_active and s.time_s > warm_s]

    def failures(self, duration_s: float) -> list[str]:
        """Return all error messages."""
        failures = list(self.robot.failures)
        if not self.robot.skeletons:
            failures.append('no skeletons were published')
        steady = self.steady_samples()
        times_s = [s.time_s for s in steady]
        try:
            failures += checks.memory_failures(times_s, [s.rss_bytes for s in steady])
            failures += checks.count_failures(
                times_s, [s.threads for s in steady], [s.descriptors for s in steady]
            )
        except ValueError as error:
            failures.append(str(error))
        failures += checks.log_failures(self.process.log.read_bytes(), duration_s)
        return [f'{self.robot.get_namespace()}: {sentence}' for sentence in failures]

    def summary(self) -> dict[str, Any]:
        """Return the results as a dictionary."""
        steady = self.steady_samples()
        rss = [s.rss_bytes / 2**20 for s in steady]
        times_s = [s.time_s for s in steady]
        has_enough_samples = len(steady) >= checks.MIN_SAMPLES
        return {
            'namespace': self.robot.get_namespace(),
            'skeleton_messages': self.robot.skeletons,
            'max_unaccounted_frames': self.robot.max_unaccounted,
            'max_silence_s': round(self.robot.max_silence_s, 1),
            'samples': len(steady),
            'rss_mib_mean': round(float(np.mean(rss)), 1) if rss else None,
            'rss_growth_percent': (
                round(100 * checks.growth(times_s, rss) / float(np.mean(rss)), 2)
                if has_enough_samples
                else None
            ),
            'threads': [steady[0].threads, steady[-1].threads] if steady else None,
            'descriptors': [steady[0].descriptors, steady[-1].descriptors] if steady else None,
            'log_bytes': self.process.log.stat().st_size,
            'diagnostics': self.robot.diagnostics,
        }


def main() -> int:
    """Run the test; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--minutes', type=float, default=20.0)
    parser.add_argument('--output', type=pathlib.Path, default=pathlib.Path('endurance_output'))
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    os.environ['METRABS_ROS_CACHE'] = str(output / 'cache')
    # Read when the first node is created.
    os.environ.update(WITHOUT_SHARED_MEMORY)
    rclpy.init()
    street = photo('street')
    subjects = [
        start('blazepose', BLAZEPOSE, street, False, output, args.seed),
        start('metrabs', metrabs_parameters(output), street, True, output, args.seed + 1),
    ]
    load.spin([subject.robot for subject in subjects])
    ending = threading.Event()
    # The nodes must be active before the load starts.
    for subject in subjects:
        wait_for_start(subject)
    start_s = time.monotonic()
    repeaters = [r for s in subjects for r in _start_load(s.robot, output, ending)]
    end_s = start_s + 60 * args.minutes
    failures = _observe(subjects, end_s)
    ending.set()
    duration_s = time.monotonic() - start_s
    for repeater in repeaters:
        repeater.join(load.ANSWER_TIMEOUT_S)
    for subject in subjects:
        failures += subject.failures(duration_s)
        status = subject.process.end()
        if status != 0:
            failures.append(f'{subject.robot.get_namespace()}: ended with exit status {status}')
    _write(output, subjects, repeaters, failures, duration_s)
    rclpy.try_shutdown()
    print('\n'.join(failures) or 'no failures')
    sys.stdout.flush()
    os._exit(1 if failures else 0)


def start(
    name: str,
    parameters: dict[str, Any],
    image: np.ndarray,
    compressed: bool,
    output: pathlib.Path,
    seed: int,
) -> Subject:
    """Start a node with parameters, and create the robot that loads it."""
    parameters = {**load.DEFAULTS, **parameters}
    options = [part for n, v in parameters.items() for part in ('-p', f'{n}:={json.dumps(v)}')]
    log = output / f'{name}.log'
    log.unlink(missing_ok=True)
    process = ObservedProcess(
        [
            *(sys.executable, '-m', 'metrabs_ros.node.pose_node', '--ros-args'),
            *('-r', f'__ns:=/{name}', *options),
        ],
        log,
    )
    return Subject(process, load.Robot(f'/{name}', image, compressed, random.Random(seed)))


def metrabs_parameters(output: pathlib.Path) -> dict[str, Any]:
    """Write a small checkpoint with random weights; return the parameters that select it."""
    path = TEST / 'data' / 'golden' / 'make_checkpoint.py'
    spec = importlib.util.spec_from_file_location('make_checkpoint', path)
    make_checkpoint = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_checkpoint)
    folder = output / 'checkpoint'
    if not folder.exists():
        make_checkpoint.write_checkpoint(folder, 's_centered')
    return {
        'model': str(folder),
        'detector': 'topic',
        'image_transport': 'compressed',
        # With random weights no pose is plausible.
        'suppress_implausible_poses': False,
    }


def photo(name: str) -> np.ndarray:
    """Return a photograph of test/data, RGB."""
    return np.ascontiguousarray(cv2.imread(str(TEST / 'data' / f'{name}.png'))[..., ::-1])


def wait_for_start(subject: Subject) -> None:
    """Wait until the node has loaded its model, then activate it."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not subject.robot.diagnostics or 'none' in subject.robot.diagnostics['engine']:
        if subject.process.exit_status is not None or time.monotonic() > deadline_s:
            sys.exit(f'the node did not start; see {subject.process.log}')
        time.sleep(0.5)
    subject.robot.activate()


def _start_load(
    robot: load.Robot, output: pathlib.Path, ending: threading.Event
) -> list[load.Repeater]:
    name = robot.get_namespace().strip('/')
    subscriber = functools.partial(
        load.run_subscriber_process, f'/{name}', robot.random, output / f'{name}_subscriber.log'
    )
    frame_period_s = 1 / load.RATE_HZ
    actions: dict[str, tuple[Callable[[], None], tuple[float, float]]] = {
        'send a frame': (robot.send_frame, (frame_period_s, frame_period_s)),
        'send a malformed message': (robot.send_malformed_message, (0.05, 0.5)),
        'send a transform': (robot.send_transform, (0.05, 0.05)),
        'send a depth image': (robot.send_depth, (0.1, 0.3)),
        'change states': (robot.change_states, (20, 60)),
        'change a parameter': (robot.change_parameter, (0.5, 3)),
        'call services': (robot.call_services, (5, 15)),
        'subscribe': (robot.subscribe_for_a_while, (1, 10)),
        'watch for silence': (robot.watch_silence, (1, 1)),
        'run a subscriber': (subscriber, (5, 20)),
    }
    port = VIEW_PORT if name == 'blazepose' else VIEW_PORT + 10
    view = functools.partial(load.run_view, robot, output / f'{name}_view.log', port)
    actions['run the view'] = view, (60, 120)
    if name == 'blazepose':
        pictures = output / 'pictures'
        shutil.rmtree(pictures, ignore_errors=True)
        pictures.mkdir()
        for photo in ('street', 'office'):
            shutil.copy(TEST / 'data' / f'{photo}.png', pictures)
        annotate = functools.partial(load.run_annotate, robot, pictures, output / 'annotated')
        actions['run annotate'] = annotate, (60, 180)
    repeaters = [
        load.Repeater(f'{name}: {action}', robot, act, periods_s, ending)
        for action, (act, periods_s) in actions.items()
    ]
    for repeater in repeaters:
        repeater.start()
    return repeaters


def _observe(subjects: list[Subject], end_s: float) -> list[str]:
    """Take samples until the end; return an error message if a node has ended."""
    printed_s = 0.0
    while time.monotonic() < end_s:
        for subject in subjects:
            status = subject.process.exit_status
            if status is not None:
                name = subject.robot.get_namespace()
                return [f'{name}: ended with exit status {status}; see {subject.process.log}']
            subject.samples.append(subject.process.sample(subject.robot.is_settled()))
        if time.monotonic() - printed_s > 60:
            printed_s = time.monotonic()
            for subject in subjects:
                last = subject.samples[-1]
                print(
                    f'{(end_s - printed_s) / 60:.0f} min left, {subject.robot.get_namespace()}: '
                    f'{last.rss_bytes / 2**20:.0f} MiB, {last.threads} threads, '
                    f'{last.descriptors} descriptors, {subject.robot.skeletons} messages, '
                    f'{len(subject.robot.failures)} failures',
                    flush=True,
                )
        time.sleep(SAMPLE_PERIOD_S)
    return []


def _write(
    output: pathlib.Path,
    subjects: list[Subject],
    repeaters: list[load.Repeater],
    failures: list[str],
    duration_s: float,
) -> None:
    results = {
        'minutes': round(duration_s / 60, 1),
        'failures': failures,
        'actions': [[repeater.name, repeater.count] for repeater in repeaters],
        'nodes': [subject.summary() for subject in subjects],
        'samples': {
            s.robot.get_namespace(): [dataclasses.astuple(sample) for sample in s.samples]
            for s in subjects
        },
    }
    (output / 'endurance.json').write_text(json.dumps(results))
    summary = {name: value for name, value in results.items() if name != 'samples'}
    print(json.dumps(summary, indent=1))
    _plot(output / 'memory.png', subjects)


def _plot(file: pathlib.Path, subjects: list[Subject]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3 * len(subjects)), layout='constrained')
    axes = figure.subplots(len(subjects), squeeze=False)[:, 0]
    for axis, subject in zip(axes, subjects):
        start_s = subject.samples[0].time_s
        for samples, colour, label in (
            (subject.samples, '0.7', 'all'),
            (subject.steady_samples(), 'tab:blue', 'active, after warm-up'),
        ):
            minutes = [(sample.time_s - start_s) / 60 for sample in samples]
            mib = [sample.rss_bytes / 2**20 for sample in samples]
            axis.plot(minutes, mib, '.', color=colour, label=label)
        axis.set(title=subject.robot.get_namespace(), xlabel='min', ylabel='RSS in MiB')
        axis.legend()
    figure.savefig(file)


if __name__ == '__main__':
    main()
