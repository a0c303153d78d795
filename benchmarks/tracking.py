"""
Measure the accuracy of tracking in simulated scenes, and its CPU time.

Simulated scenes of walking people, with noise, missed and false detections, are scored with
motmetrics.  Also measured: jitter, delay, and published intermittent false detections.
"""

from __future__ import annotations

import pathlib
import sys
import time

import machine
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

import scenes

from metrabs_ros.camera import Camera
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33
from metrabs_ros.tracking.tracker import Tracker

RATES_HZ = (10, 15, 30)
SEEDS = range(3)
SCENE_S = 60.0
FALSE_RATES_HZ, FALSE_FRAMES = (5, 10, 15, 30, 60), 1000
CROWD, COST_FRAMES, COST_RATE_HZ = 50, 300, 30.0
"""Number of people, of frames, and frame rate of the CPU time measurement."""


def score_scenes() -> None:
    """Print the worst and the mean score of several runs of each scene."""
    print('scene, frames per second: IDF1 worst and mean, switches per minute worst and mean')
    for name, scene in scenes.SCENES.items():
        for rate_hz in RATES_HZ:
            runs = [scenes.score(scene(), rate_hz, SCENE_S, seed) for seed in SEEDS]
            idf1, switches = np.array(runs).T
            print(
                f'{name}, {rate_hz}: {idf1.min():.3f} {idf1.mean():.3f}, '
                f'{switches.max():.0f} {switches.mean():.1f}',
                flush=True,
            )


def measure_smoothing() -> None:
    """Print the jitter of a standing person, and the delay of a waving hand and of a step."""
    for rate_hz in RATES_HZ:
        truth, measured, filtered = scenes.track_person(scenes.stand, rate_hz, 240, misses=0.05)
        ratios = scenes.jitter_ratio(measured, filtered)
        bias_mm = np.abs((filtered - truth)[len(truth) // 4 :].mean(axis=0)).mean(axis=0)
        print(
            f'standing, {rate_hz} frames per second: '
            f'jitter reduced by factors {ratios.round(1)} (x y z), bias {bias_mm.round(1)} mm'
        )
    for amplitude_mm in (100, 200, 300):
        for noise in (False, True):
            truth, _, filtered = scenes.track_person(scenes.wave(amplitude_mm), 30, 60, noise)
            hand = np.s_[90:, scenes.WRIST, 0]
            lag_s, gain = scenes.lag_and_gain(truth[hand], filtered[hand], 30)
            print(
                f'hand waving with {amplitude_mm} mm at 2 Hz, noise {noise}: '
                f'lag {1000 * lag_s:.0f} ms, amplitude {100 * gain:.0f} %'
            )
    for rate_hz in RATES_HZ:
        for name, joints in (('hand', scenes.WRIST), ('person', slice(None))):

            def step(body: np.ndarray, time_s: float, joints: int | slice = joints) -> None:
                body[joints] += np.array([500.0, 0, 0]) if time_s >= 5 - 1e-6 else 0.0

            truth, _, filtered = scenes.track_person(step, rate_hz, 6, noise=False)
            off_mm = np.abs((filtered - truth)[5 * rate_hz :, scenes.WRIST, 0])
            reached_ms = 1000 * np.argmax(off_mm < 50) / rate_hz
            print(f'{name} moving by 0.5 m, {rate_hz} frames per second: {reached_ms:.0f} ms')


def count_false_people() -> None:
    """Print how often intermittent false detections are published."""
    print('false detections, frames per second: published per detected, worst of 3 positions')
    for pattern in scenes.PATTERNS:
        for rate_hz in FALSE_RATES_HZ:
            counts = scenes.count_false_people(pattern, rate_hz, FALSE_FRAMES)
            ratios = counts.published / counts.detected
            print(f'{pattern}, {rate_hz}: {ratios.max():.2f}', flush=True)


def measure_cost() -> None:
    """Print the CPU time per frame for a crowd."""
    rng = np.random.default_rng(0)
    camera = Camera(scenes.INTRINSICS)
    body_mm = rng.uniform(-1, 1, (33, 3)) * (250, 850, 120)
    positions_mm = rng.uniform((-6000, 0, 6000), (6000, 0, 20000), (CROWD, 3))
    poses_mm = positions_mm[:, None] + body_mm
    tracker, spent_s = Tracker(), []
    for i in range(COST_FRAMES):
        detections = scenes.people_from(scenes.add_noise(poses_mm, rng), camera, BLAZEPOSE_33)
        start_s = time.process_time()
        tracker.update(detections, i / COST_RATE_HZ, camera, scenes.IMAGE_SHAPE)
        spent_s.append(time.process_time() - start_s)
    median_s = np.median(spent_s)
    print(
        f'{CROWD} people with 33 joints: {1000 * median_s:.2f} ms per frame, '
        f'{100 * median_s * COST_RATE_HZ:.1f} % of a core at {COST_RATE_HZ:.0f} frames per second'
    )


def main() -> None:
    """Run all measurements."""
    print(machine.describe())
    measure_cost()
    measure_smoothing()
    score_scenes()
    count_false_people()


if __name__ == '__main__':
    sys.exit(main())
