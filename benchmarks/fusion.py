"""
Measure the fusion of several cameras on a recording of a real person.

    python benchmarks/fusion.py --recording FOLDER --cache /tmp/fusion

Four calibrated cameras see a man who balances on a beam; see accuracy.py.  BlazePose and
`PersonTracker` run on the images of each camera, and `PeopleFusion` on the detections.  Compared
are single cameras, all cameras, all pairs that look from directions at least 60 degrees apart, and
all cameras with the published calibration, which does not fit the videos.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence

import accuracy_metrics as metrics
import machine
import numpy as np
from accuracy import BODY, CONFIGURATIONS, HIPS, RESULTS
from accuracy_recording import (
    RATE_HZ,
    WORLD_UP,
    RecordedCamera,
    RecordingError,
    Truth,
    find_videos,
    read_cameras,
    read_truth,
)

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.options import View
from metrabs_ros.people import People
from metrabs_ros.placement.uncertainty import with_axis_std
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

MIN_ANGLE_DEGREES = 60.0
REMAINS_S, SETTLED_S = (0.5, 1.0), 0.2
"""When all cameras but one stop, and from when on after that the errors count."""
SIZES = (0.9, 1.0, 1.1)
"""Factors of the monocular distances, as of people smaller or larger than the network assumes."""
MIN_COUNTED_S = 0.25
"""The first frames, in which tracks are not confirmed yet, do not count."""
CACHED = (
    *('poses3d_mm', 'poses2d_px', 'network_poses2d_px', 'joint_confidence', 'confidence'),
    *('boxes_px', 'in_view', 'axis_std_mm', 'joint_std_mm', 'ids'),
)
Detections = dict[str, list[People]]
"""People of each image, camera frame, by the name of the camera."""


def detect(own: RecordedCamera, model_name: str) -> tuple[list[People], list[People]]:
    """Return the detections and the tracked people in each image of a camera."""
    model = metrabs_ros.load_model(model_name, threads=1)
    convention = model.convention(COCO_17.name)
    camera = Camera(own.camera.intrinsic_matrix, own.camera.distortion_coeffs)
    tracker = PersonTracker(model, **CONFIGURATIONS['default'].tracking)
    detected, tracked = [], []
    for i, image in enumerate(own.images()):
        timed_view = TimedView(View(image, camera), 1 + i / RATE_HZ)
        (people,) = tracker.process([timed_view])
        result = tracker.detections()
        assert result is not None
        raw = dataclasses.replace(with_axis_std(result.people), ids=result.ids)
        detected.append(raw.in_convention(convention))
        tracked.append(people.in_convention(convention))
    return detected, tracked


def save(file: pathlib.Path, frames: Sequence[People]) -> None:
    """Write people of several images to a file."""
    arrays = {name: np.concatenate([getattr(own, name) for own in frames]) for name in CACHED}
    np.savez(file, frame=np.repeat(np.arange(len(frames)), [len(f) for f in frames]), **arrays)


def load(file: pathlib.Path, frames: int) -> list[People]:
    """Return the people of each image of a file."""
    with np.load(file) as arrays:
        frame = arrays['frame']
        all_people = People(COCO_17, **{name: arrays[name] for name in CACHED})
    return [all_people.select(frame == i) for i in range(frames)]


def read_detections(
    cameras: Sequence[RecordedCamera], model_name: str, cache: pathlib.Path, kind: str
) -> Detections:
    """Return the detections (`raw`) or the tracked people (`tracked`) of all cameras."""
    cache.mkdir(parents=True, exist_ok=True)
    result = {}
    for own in cameras:
        files = {k: cache / f'{model_name}_{own.name}_{k}.npz' for k in ('raw', 'tracked')}
        if not files['tracked'].exists():
            for file, frames in zip(files.values(), detect(own, model_name)):
                save(file, frames)
        count = sum(1 for _ in own.images())
        result[own.name] = load(files[kind], count)
    return result


def published_cameras(file: pathlib.Path, refined: Mapping[str, Camera]) -> dict[str, Camera]:
    """
    Return the cameras with the poses of a .qca.txt file of Qualisys: z up, millimetres.

    Qualisys' cameras look along -z with y up.  The intrinsics are those of the refined cameras.
    """
    cameras = {}
    for own in ElementTree.parse(file).getroot().iterfind('cameras/camera'):
        pose = own.find('transform')
        rows = [[float(pose.get(f'r{i}{j}')) for j in (1, 2, 3)] for i in (1, 2, 3)]
        rotation = np.diag([1.0, -1.0, -1.0]) @ np.array(rows)
        extrinsic = np.eye(4)
        extrinsic[:3, :3] = rotation
        extrinsic[:3, 3] = -rotation @ [float(pose.get(axis)) for axis in 'xyz']
        name = own.get('serial')
        cameras[name] = dataclasses.replace(
            refined[name], extrinsic_matrix=extrinsic, world_up_vector=WORLD_UP
        )
    return cameras


def combined(detections: Detections, tracked: Detections) -> Detections:
    """Return tracked people with the image points and confidences of their detections."""
    return {
        name: [_combined(*own) for own in zip(detections[name], tracked[name])] for name in tracked
    }


def _combined(detected: People, tracked: People) -> People:
    tracked = tracked.select(tracked.seen & np.isin(tracked.ids, detected.ids))
    rows = np.array([np.flatnonzero(detected.ids == i)[0] for i in tracked.ids], np.intp)
    return dataclasses.replace(
        tracked,
        network_poses2d_px=detected.network_poses2d_px[rows],
        joint_confidence=detected.joint_confidence[rows],
    )


def fuse(cameras: Mapping[str, Camera], detections: Detections) -> list[FusedPeople]:
    """Return the fused people of each image of some cameras."""
    fusion = PeopleFusion(COCO_17)
    count = max(len(detections[name]) for name in cameras)
    return [
        fusion.update(
            [
                CameraPeople.from_people(name, camera, 1 + i / RATE_HZ, detections[name][i])
                for name, camera in cameras.items()
                if i < len(detections[name])
            ]
        )
        for i in range(count)
    ]


def person_of(poses_mm: Sequence[np.ndarray], truth: Truth) -> np.ndarray:
    """Return the pose [F, 17, 3] nearest to the true person in each frame with truth; or NaN."""
    result = np.full_like(truth.poses_mm[0], np.nan)
    for k, frame in enumerate(truth.frames):
        if frame >= len(poses_mm) or not len(poses_mm[frame]):
            continue
        errors = metrics.joint_errors(poses_mm[frame], truth.poses_mm[0, k])
        result[k] = poses_mm[frame][np.argmin(errors)]
    return result


def summary(poses_mm: np.ndarray, truth: Truth) -> dict[str, float]:
    """Return the mean errors of poses [F, 17, 3], and in how many frames there is one."""
    true_mm = truth.poses_mm[0]
    counted = truth.frames >= MIN_COUNTED_S * RATE_HZ
    poses_mm, true_mm = poses_mm[counted], true_mm[counted]
    found = np.isfinite(poses_mm).all(axis=(1, 2))
    error_mm = np.linalg.norm(poses_mm - true_mm, axis=-1)
    hips_mm = poses_mm[:, HIPS].mean(axis=1) - true_mm[:, HIPS].mean(axis=1)
    period_s = (truth.frames[1] - truth.frames[0]) / RATE_HZ
    acceleration = metrics.acceleration_errors(poses_mm[:, BODY], true_mm[:, BODY], period_s)
    return {
        'frames': found.mean(),
        'hips': np.nanmean(np.linalg.norm(hips_mm, axis=-1)),
        'mpjpe': np.nanmean(error_mm[:, BODY]),
        'm/s2': acceleration.mean() if len(acceleration) else np.nan,
    }


def angle_degrees(one: Camera, other: Camera, point_mm: np.ndarray) -> float:
    """Return the angle between the directions from a point to two cameras."""
    directions = [c.position_mm - point_mm for c in (one, other)]
    cosine = np.dot(*directions) / np.prod([np.linalg.norm(d) for d in directions])
    return float(np.degrees(np.arccos(cosine)))


def of_size(detections: Detections, factor: float) -> Detections:
    """Return people whose size differs by a factor from that which the network assumes."""
    return {
        name: [
            dataclasses.replace(
                own, poses3d_mm=factor * own.poses3d_mm, axis_std_mm=factor * own.axis_std_mm
            )
            for own in frames
        ]
        for name, frames in detections.items()
    }


def hips_of_remaining(
    cameras: Mapping[str, Camera], detections: Detections, truth: Truth
) -> tuple[float, float]:
    """
    Return the errors of the hips in mm while one camera remains, mean over the cameras.

    Returns
    -------
    After the other cameras have stopped, and if this camera was the only one from the start.
    """
    errors: list[tuple[float, float]] = []
    for name, stop_s in itertools.product(cameras, REMAINS_S):
        stop = round(stop_s * RATE_HZ)
        seen = {k: own if k == name else own[:stop] for k, own in detections.items()}
        counted = truth.frames >= stop + SETTLED_S * RATE_HZ
        own_errors = []
        for used in (cameras, {name: cameras[name]}):
            poses_mm = person_of([own.poses3d_mm for own in fuse(used, seen)], truth)
            hips_mm = (poses_mm - truth.poses_mm[0])[counted][:, HIPS].mean(axis=1)
            own_errors.append(float(np.nanmean(np.linalg.norm(hips_mm, axis=-1))))
        errors.append((own_errors[0], own_errors[1]))
    together, alone = np.mean(errors, axis=0).tolist()
    return together, alone


def report(
    cameras: Sequence[RecordedCamera],
    detections: Detections,
    tracked: Detections,
    calibration: pathlib.Path,
) -> list[str]:
    """Return the lines of the results."""
    truth = read_truth()
    by_name = {own.name: own.camera for own in cameras}
    middle_mm = np.nanmean(truth.poses_mm[0][:, HIPS], axis=(0, 1))
    lines = ['cameras: frames with the person, hips mm, MPJPE mm, acceleration error m/s2']

    def row(label: str, poses_mm: Sequence[np.ndarray]) -> None:
        values = summary(person_of(poses_mm, truth), truth)
        lines.append(
            f'{label}: {100 * values["frames"]:.0f} %, {values["hips"]:.0f}, '
            f'{values["mpjpe"]:.0f}, {values["m/s2"]:.1f}'
        )

    for name, camera in by_name.items():
        row(f'{name} alone, tracked', [camera.to_world(p.poses3d_mm) for p in tracked[name]])
    both = combined(detections, tracked)
    for name, camera in by_name.items():
        row(f'{name} alone, fused', [p.poses3d_mm for p in fuse({name: camera}, both)])
    published = published_cameras(calibration, by_name)
    for kind, people, own_cameras in (
        ('tracked people with the image points of detections', both, by_name),
        ('detections', detections, by_name),
        ('tracked people', tracked, by_name),
        ('published calibration', both, published),
        ('published calibration, tracked people', tracked, published),
    ):
        fused = fuse(own_cameras, people)
        row(f'all, {kind}', [own.poses3d_mm for own in fused])
        ids = np.unique(np.concatenate([own.ids for own in fused]))
        lines.append(f'  people: {max(map(len, fused))} at most at a time, {len(ids)} ids')
    for one, other in itertools.combinations(by_name, 2):
        angle = angle_degrees(by_name[one], by_name[other], middle_mm)
        pair = {name: by_name[name] for name in (one, other)}
        if angle >= MIN_ANGLE_DEGREES:
            fused = fuse(pair, both)
            row(f'{one} and {other}, {angle:.0f} degrees', [own.poses3d_mm for own in fused])
    lines.append('one camera, after the others have stopped; alone from the start: hips mm')
    for factor in SIZES:
        together, alone = hips_of_remaining(by_name, of_size(both, factor), truth)
        lines.append(f'  monocular distances times {factor}: {together:.0f}; {alone:.0f}')
    return lines


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Measure, print and write the results; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', default='blazepose')
    parser.add_argument('--recording', type=pathlib.Path, help='folder with a copy of the videos')
    parser.add_argument('--cache', type=pathlib.Path, required=True, help='for the detections')
    args = parser.parse_args(arguments)
    try:
        cameras = read_cameras(find_videos(args.recording))
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 1
    people = [
        read_detections(cameras, args.model, args.cache, kind) for kind in ('raw', 'tracked')
    ]
    calibration = cameras[0].video.parents[1] / 'calibration' / 'Calib.qca.txt'
    lines = [machine.describe(), *report(cameras, *people, calibration)]
    print('\n'.join(lines))
    (RESULTS / 'fusion.txt').write_text('\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
