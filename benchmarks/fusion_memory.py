"""
Measure whether the memory of the fusion grows over an hour of simulated time.

    python benchmarks/fusion_memory.py --hours 1

A minute of detections of a simulated room is repeated with later stamps; at each seam, all people
jump, so that tracks are lost and started.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import pickle
import sys
from collections.abc import Sequence

import machine

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

import simulated_rooms as rooms

from metrabs_ros.fusion.frame_sets import FrameSets
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.skeletons.conventions import COCO_17

CAMERAS, PEOPLE, RATE_HZ, LENGTH_S = 3, 3, 10, 60.0
REPORTS = 6
STATUS = pathlib.Path('/proc/self/status')


def resident_kib() -> int:
    """Return the resident memory of this process."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1])


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Fuse repeatedly, and print the memory from time to time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--hours', type=float, default=1.0)
    args = parser.parse_args(arguments)
    room = rooms.Room.random(CAMERAS, PEOPLE, 0)
    cameras = rooms.simulated_cameras(room, RATE_HZ, 0)
    frames = [frame for frame, _ in rooms.frames(room, cameras, LENGTH_S)]
    fusion, sets = PeopleFusion(COCO_17), FrameSets()
    print(machine.describe())
    print(f'{CAMERAS} cameras, {PEOPLE} people, {RATE_HZ} Hz')
    repeats = max(REPORTS, round(3600 * args.hours / LENGTH_S))
    for i in range(repeats):
        for frame in frames:
            later = dataclasses.replace(frame, stamp_s=frame.stamp_s + i * LENGTH_S)
            for complete in sets.add(later):
                fused = fusion.update(complete)
        if (i + 1) % (repeats // REPORTS) == 0:
            print(
                f'{(i + 1) * LENGTH_S / 60:.0f} min: {len(pickle.dumps(fusion)) / 1024:.0f} KiB '
                f'of state, {resident_kib() / 1024:.1f} MiB resident, {len(fused)} people, '
                f'last id {fused.ids.max(initial=0)}',
                flush=True,
            )
    return 0


if __name__ == '__main__':
    sys.exit(main())
