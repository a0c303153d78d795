"""
Measure the extrinsic calibration from people, in simulated rooms and on a real recording.

    python benchmarks/calibration.py --recording FOLDER --cache /tmp/fusion

In rooms, three cameras see two people for a minute; see test/fusion/rooms.py.  The recording is
that of fusion.py: 1.7 s of a man on a beam, and a woman in the background.  Its published
calibration does not fit the videos; it is refined with the people of the same recording.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence

import machine
from accuracy import RESULTS
from accuracy_recording import (
    RATE_HZ,
    RecordingError,
    find_videos,
    read_cameras,
    read_truth,
)
from fusion import (
    Detections,
    combined,
    fuse,
    person_of,
    published_cameras,
    read_detections,
    summary,
)

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

from simulated_recordings import pose_errors, tracked_frames
from simulated_rooms import Room

from metrabs_ros.camera import Camera
from metrabs_ros.fusion.calibration import calibrate_cameras, refine_cameras
from metrabs_ros.fusion.observations import CameraPeople

ROOMS, CAMERAS, PEOPLE, SIMULATED_HZ, LENGTH_S = 5, 3, 2, 10.0, 60.0


def in_rooms() -> list[str]:
    """Return the errors in simulated rooms."""
    lines = ['simulated rooms: rotation degrees, position % of the distance, scale, tilt, CPU s']
    for seed in range(ROOMS):
        room = Room.random(CAMERAS, PEOPLE, seed)
        frames = tracked_frames(room, SIMULATED_HZ, LENGTH_S, seed)
        start_s = time.process_time()
        errors = pose_errors(calibrate_cameras(frames), room)
        spent_s = time.process_time() - start_s
        share = 100 * (errors.millimetres / errors.distances_mm).max()
        lines.append(
            f'  {errors.degrees.max():.2f}, {share:.2f}, {errors.scale:.3f}, '
            f'{errors.tilt_degrees:.2f}, {spent_s:.1f}'
        )
    return lines


def on_recording(
    cameras: dict[str, Camera], published: dict[str, Camera], people: Detections
) -> list[str]:
    """Return the errors of fused people with several calibrations of the recording."""
    truth = read_truth()

    def row(label: str, own: dict[str, Camera]) -> str:
        fused = fuse(own, people)
        values = summary(person_of([frame.poses3d_mm for frame in fused], truth), truth)
        return f'  {label}: {values["hips"]:.0f}, {values["mpjpe"]:.0f}'

    refined = refine_cameras(
        CameraPeople.from_people(name, camera, 1 + i / RATE_HZ, frame)
        for name, camera in published.items()
        for i, frame in enumerate(people[name])
    )
    return [
        'real recording: hips mm, MPJPE mm',
        row('published calibration', published),
        row('published, refined with the people', {c.name: c.camera for c in refined.cameras}),
        row('calibration by still dots on the floor', cameras),
    ]


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Measure, print and write the results; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--recording', type=pathlib.Path, help='folder with a copy of the videos')
    parser.add_argument('--cache', type=pathlib.Path, required=True, help='for the detections')
    args = parser.parse_args(arguments)
    try:
        recorded = read_cameras(find_videos(args.recording))
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 1
    cameras = {own.name: own.camera for own in recorded}
    file = recorded[0].video.parents[1] / 'calibration' / 'Calib.qca.txt'
    raw, tracked = (
        read_detections(recorded, 'blazepose', args.cache, kind) for kind in ('raw', 'tracked')
    )
    lines = [machine.describe(), *in_rooms()]
    for label, people in (
        ('image points of the network', combined(raw, tracked)),
        ('image points of skeletons, which are projections', tracked),
    ):
        lines.append(label)
        lines += on_recording(cameras, published_cameras(file, cameras), people)
    print('\n'.join(lines))
    (RESULTS / 'calibration.txt').write_text('\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
