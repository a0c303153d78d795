"""
Measure the extrinsic calibration from people, in simulated rooms and on a real recording.

    python benchmarks/calibration.py --recording FOLDER --cache /tmp/fusion

The people are read from skeletons as the command calibrate does, with the image points of the
network or with projections of the positions, which skeletons without them have.  In rooms, three
cameras see two people for a minute; see test/simulated_rooms.py.  The recording is
that of fusion.py: 1.7 s of a man on a beam, and a woman in the background.  Its published
calibration does not fit the videos; it is refined with the people of the same recording.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

import cv2
import machine
import numpy as np
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

from simulated_recordings import in_camera, pose_errors, tracked_frames
from simulated_rooms import Room

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.fusion.calibration import calibrate_cameras, refine_cameras
from metrabs_ros.people import People
from metrabs_ros.recordings.recorded_people import RecordedPeople, fitted_intrinsics

ROOMS, CAMERAS, PEOPLE, SIMULATED_HZ, LENGTH_S = 5, 3, 2, 10.0, 60.0


def in_rooms(with_network_points: bool) -> list[str]:
    """Return the errors in simulated rooms, from skeletons as the command calibrate reads them."""
    lines = ['simulated rooms: rotation degrees, position % of the distance, scale, tilt, CPU s']
    for seed in range(ROOMS):
        room = Room.random(CAMERAS, PEOPLE, seed)
        seen = tracked_frames(room, SIMULATED_HZ, LENGTH_S, seed)
        cameras = []
        for name in room.cameras:
            own = [frame for frame in seen if frame.camera_name == name]
            people = [in_camera(frame) for frame in own]
            if not with_network_points:
                people = without_network_points(people)
            cameras.append(in_skeletons(name, [frame.stamp_s for frame in own], people))
        start_s = time.process_time()
        calibration = calibrate_cameras(frame for own in cameras for frame in own.frames())
        spent_s = time.process_time() - start_s
        errors = pose_errors(calibration, room)
        share = 100 * (errors.millimetres / errors.distances_mm).max()
        lines.append(
            f'  {errors.degrees.max():.2f}, {share:.2f}, {errors.scale:.3f}, '
            f'{errors.tilt_degrees:.2f}, {spent_s:.1f}'
        )
    return lines


def without_network_points(people: Sequence[People]) -> list[People]:
    """Return people of skeletons that have only projections of the positions."""
    return [dataclasses.replace(own, network_poses2d_px=own.poses2d_px) for own in people]


def in_skeletons(name: str, stamps_s: Sequence[float], people: Sequence[People]) -> RecordedPeople:
    """Return people of a camera as the command calibrate reads them, without the lens."""
    matrix = fitted_intrinsics(people)
    return RecordedPeople(name, '', list(stamps_s), list(people), matrix)


def turns_degrees(one: Mapping[str, Camera], other: Mapping[str, Camera]) -> FloatArray:
    """Return the rotations [C] between two calibrations of each camera."""
    return np.degrees(
        [
            np.linalg.norm(
                cv2.Rodrigues(camera.extrinsic_matrix[:3, :3] @ other[name].rotation_to_world)[0]
            )
            for name, camera in one.items()
        ]
    )


def on_recording(
    cameras: dict[str, Camera],
    published: dict[str, Camera],
    people: Detections,
    seen: Detections,
) -> list[str]:
    """
    Return the errors of fused people with several calibrations of the recording.

    Parameters
    ----------
    cameras, published
        The cameras with the calibration by still dots, and with the published one.
    people
        The people that are fused.
    seen
        The people that the calibration uses.
    """
    truth = read_truth()

    def row(label: str, own: dict[str, Camera]) -> str:
        fused = fuse(own, people)
        values = summary(person_of([frame.poses3d_mm for frame in fused], truth), truth)
        turns = turns_degrees(own, cameras)
        return f'  {label}: {values["hips"]:.0f}, {values["mpjpe"]:.0f}, {turns.max():.2f}'

    refined = refine_cameras(
        frame
        for name, camera in published.items()
        for frame in in_skeletons(
            name, [1 + i / RATE_HZ for i in range(len(seen[name]))], seen[name]
        ).frames(camera.extrinsic_matrix)
    )
    placed = {
        own.name: dataclasses.replace(
            published[own.name], extrinsic_matrix=own.camera.extrinsic_matrix
        )
        for own in refined.cameras
    }
    return [
        'real recording: hips mm, MPJPE mm, rotation degrees from the calibration by still dots',
        row('published calibration', published),
        row('published, refined with the people', placed),
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
    people = combined(raw, tracked)
    projected = {name: without_network_points(own) for name, own in people.items()}
    published = published_cameras(file, cameras)
    lines = [machine.describe()]
    for label, with_network_points, seen in (
        ('image points of the network', True, people),
        ('projections of the positions', False, projected),
    ):
        lines += [label, *in_rooms(with_network_points)]
        lines += on_recording(cameras, published, people, seen)
    print('\n'.join(lines))
    (RESULTS / 'calibration.txt').write_text('\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
