"""
Measure the accuracy of the person scale for simulated people, with and without each cue.

People of 1.1 to 2.0 m, 1.5 to 12 m from a camera 0.3 to 2 m above the floor, whose poses have the
noise of a network.  Prints the depth error of the hips after one second.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time

import machine
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

import scaled_people

from metrabs_ros.tracking.tracker import Tracker

RATE_HZ, SETTLING_S, DURATION_S = 15.0, 1.0, 3.0
MAX_DEPTH_RANGE_MM = 6000.0
CUES = ('none', 'ground plane', 'depth image', 'stature')


def measure(scene: scaled_people.Scene, cue: str, seed: int) -> np.ndarray:
    """
    Track the person of a scene.

    Returns
    -------
    [F, 5], for each frame after a second: relative depth error of the hips, mean distance of the
    joints from their true positions in mm, share of coordinates within one and two standard
    deviations, factor.
    """
    rng = np.random.default_rng(seed)
    network = scaled_people.Network(rng, RATE_HZ)
    tracker = Tracker(min_hits=1)
    if cue == 'stature':
        tracker.stature_mm = scene.stature_mm
    rows = []
    for i in range(round(DURATION_S * RATE_HZ)):
        time_s = i / RATE_HZ
        detected = network(scene, time_s)
        depth = scaled_people.render_depth(scene, time_s, rng) if cue == 'depth image' else None
        people = tracker.update(
            detected,
            1 + time_s,
            scene.camera,
            scaled_people.IMAGE_SHAPE,
            ground=scene.ground if cue == 'ground plane' else None,
            depth=depth,
        )
        if time_s < SETTLING_S or not len(people):
            continue
        true_mm = scene.joints_mm(time_s)
        error_mm = people.poses3d_mm[0] - true_mm
        hips_mm = true_mm[[11, 12]].mean(axis=0)
        found_mm = people.positions_mm[0]
        normalised = np.abs(error_mm / people.axis_std_mm[0])
        rows.append(
            [
                np.linalg.norm(found_mm) / np.linalg.norm(hips_mm) - 1,
                np.linalg.norm(error_mm, axis=-1).mean(),
                (normalised < 1).mean(),
                (normalised < 2).mean(),
                found_mm[2] / detected.positions_mm[0, 2],
            ]
        )
    return np.array(rows)


def main() -> None:
    """Print a table for each cue and posture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--scenes', type=int, default=60)
    parser.add_argument('--cues', default=','.join(CUES))
    arguments = parser.parse_args()
    print(machine.describe())
    print('cue, posture: median depth error, 90th percentile, joints, within 1 and 2 std')
    for cue in arguments.cues.split(','):
        for name, posture in scaled_people.POSTURES.items():
            rng = np.random.default_rng(1)
            scenes = [scaled_people.Scene.random(posture, rng) for _ in range(arguments.scenes)]
            if cue == 'depth image':
                scenes = [own for own in scenes if own.distance_mm < MAX_DEPTH_RANGE_MM]
            start_s = time.process_time()
            rows = np.concatenate([measure(own, cue, i) for i, own in enumerate(scenes)])
            spent_ms = 1000 * (time.process_time() - start_s) / len(rows)
            depth, joints_mm, within, within_two, _ = rows.T
            print(
                f'{cue}, {name}: {100 * np.median(np.abs(depth)):.1f} % '
                f'{100 * np.percentile(np.abs(depth), 90):.1f} %, {np.median(joints_mm):.0f} mm, '
                f'{100 * within.mean():.0f} % {100 * within_two.mean():.0f} %  '
                f'({spent_ms:.1f} ms per frame with simulation)',
                flush=True,
            )


if __name__ == '__main__':
    sys.exit(main())
