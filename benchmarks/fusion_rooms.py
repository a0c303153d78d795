"""
Measure the fusion in simulated rooms, and its processor time.

    python benchmarks/fusion_rooms.py --seconds 60

Rooms with 2 to 8 cameras and 1 to 6 walking people; the cameras have noise, misses, false people,
exchanged sides, and stamps that differ by up to 50 ms.  In the corridors, the views of two cameras
do not overlap.  Scores are computed with motmetrics.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Sequence

import machine
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

import simulated_rooms as rooms

from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

ROOMS = ((2, 1), (2, 4), (3, 3), (4, 2), (4, 6), (6, 4), (8, 6))
"""Numbers of cameras and of people."""
RATES_HZ = (10, 15, 30)
GAPS_M = (0.5, 2.0, 3.0)
CORRIDOR_MATCH_MM = 1200.0
"""Three standard deviations of the distance that one camera measures."""
COST_CAMERAS, COST_PEOPLE, COST_RATE_HZ, COST_FRAMES = 4, 5, 30, 300


def line(label: str, score: rooms.Score) -> str:
    """Return the line of a room."""
    return (
        f'{label}: {score.idf1:.3f}, {score.switches_per_min:.1f}, {score.mpjpe_mm:.0f} of '
        f'{score.single_mpjpe_mm:.0f} mm, {score.longest_duplicate_s:.2f} s'
    )


def cost_frames() -> list[list[CameraPeople]]:
    """Return frame sets of synchronised cameras, with all 33 joints."""
    room = rooms.Room.random(COST_CAMERAS, COST_PEOPLE, 3)
    joints = np.arange(33) % 17
    cameras = [
        rooms.SimulatedCamera(name, camera, COST_PEOPLE, COST_RATE_HZ, 0, i)
        for i, (name, camera) in enumerate(room.cameras.items())
    ]

    def observe(camera: rooms.SimulatedCamera, time_s: float) -> CameraPeople:
        own, _ = camera.observe(room.people_mm(time_s), 1 + time_s)
        return dataclasses.replace(
            own,
            skeleton=BLAZEPOSE_33,
            points2d_px=own.points2d_px[:, joints],
            joint_confidence=own.joint_confidence[:, joints],
            poses3d_mm=own.poses3d_mm[:, joints],
            axis_std_mm=own.axis_std_mm[:, joints],
        )

    return [[observe(own, i / COST_RATE_HZ) for own in cameras] for i in range(COST_FRAMES)]


def measure_cost() -> str:
    """Return the processor time per frame set."""
    fusion, spent_s = PeopleFusion(BLAZEPOSE_33), []
    for frames in cost_frames():
        start_s = time.process_time()
        fusion.update(frames)
        spent_s.append(time.process_time() - start_s)
    low, middle, high = 1000 * np.percentile(spent_s, (10, 50, 99))
    return (
        f'{COST_CAMERAS} cameras, {COST_PEOPLE} people with 33 joints: {middle:.2f} ms of '
        f'processor time per frame set (median; 10 %: {low:.2f}, 99 %: {high:.2f})'
    )


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Run all rooms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60.0, help='simulated time of each room')
    parser.add_argument('--seeds', type=int, default=1)
    args = parser.parse_args(arguments)
    print(machine.describe())
    print(measure_cost())
    print(
        'IDF1, switches per minute, MPJPE of fused people and of single cameras, longest duplicate'
    )
    for seed in range(args.seeds):
        for cameras, people in ROOMS:
            for rate_hz in RATES_HZ:
                room = rooms.Room.random(cameras, people, seed)
                label = f'{cameras} cameras, {people} people, {rate_hz} Hz, seed {seed}'
                print(line(label, rooms.score(room, rate_hz, args.seconds, seed)), flush=True)
        for gap_m in GAPS_M:
            score = rooms.score(
                rooms.Room.corridor(gap_m),
                15,
                args.seconds,
                seed,
                max_lost=4.0,
                max_match_mm=CORRIDOR_MATCH_MM,
            )
            print(line(f'corridor, {gap_m} m not seen, seed {seed}', score), flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
