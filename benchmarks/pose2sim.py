"""
Compare the fusion with the triangulation of Pose2Sim on the same 2D points and calibration.

    cp -r Pose2Sim/Demo_SinglePerson /tmp/project                # of the wheel pose2sim
    # in /tmp/project: Pose2Sim.calibration()
    python benchmarks/pose2sim.py /tmp/project --recording FOLDER --cache /tmp/fusion --write
    # in /tmp/project, with pose_model = 'BODY' and tracked_keypoint = 'RShoulder' in Config.toml:
    # Pose2Sim.personAssociation(), Pose2Sim.triangulation(), Pose2Sim.filtering()
    python benchmarks/pose2sim.py /tmp/project --recording FOLDER --cache /tmp/fusion

The 2D points are those that BlazePose finds in the recording of fusion.py; `--write` writes them
as OpenPose JSON files, which Pose2Sim reads.  `--fit` writes also the calibration by still dots of
fusion.py for Pose2Sim, instead of the published one.  Without these options, the people are fused
with the calibration that Pose2Sim uses, and the reprojection errors of the fusion and of all .trc
files of the project are computed in the same way: distances in pixels between the 2D points of the
man and the projections of his joints in all frames and views, with the lens.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

import cv2
import machine
import numpy as np
from accuracy_recording import (
    RATE_HZ,
    RecordedCamera,
    RecordingError,
    find_videos,
    read_cameras,
    read_truth,
)
from fusion import Detections, person_of, read_detections

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.recordings.rig_calibration import read_rig
from metrabs_ros.skeletons.conventions import COCO_17

SMOOTHING = (0.0, 0.5)
"""Without a filter over time, as in Pose2Sim's triangulation, and the default."""
MIN_CONFIDENCE = 0.3
"""The threshold of Pose2Sim's configuration."""
MAX_ERROR_PX = 15.0
"""Views that are off by more are outliers, as in Pose2Sim's configuration."""
SIDES = {'R': 'right_', 'L': 'left_'}
HEADER_LINES = 5


def write_points(folder: pathlib.Path, detections: Detections) -> None:
    """Write the 2D points of each camera as OpenPose does."""
    for name, frames in detections.items():
        own = folder / 'pose' / f'{name}_json'
        own.mkdir(parents=True, exist_ok=True)
        for i, people in enumerate(frames):
            values = np.dstack([people.network_poses2d_px, people.joint_confidence])
            content = {
                'version': 1.3,
                'people': [{'pose_keypoints_2d': v.ravel().tolist()} for v in values],
            }
            (own / f'{name}_{i:06d}.json').write_text(json.dumps(content))


def write_calibration(folder: pathlib.Path, cameras: Sequence[RecordedCamera]) -> None:
    """Write cameras as Pose2Sim does; the newest file counts."""
    lines = []
    for own in cameras:
        extrinsic = own.camera.extrinsic_matrix
        values = {
            'name': own.name,
            'size': [float(size) for size in own.image_shape[::-1]],
            'matrix': own.camera.intrinsic_matrix.tolist(),
            'distortions': own.camera.distortion_coeffs[:4].tolist(),
            'rotation': cv2.Rodrigues(extrinsic[:3, :3])[0].ravel().tolist(),
            'translation': (extrinsic[:3, 3] / 1000).tolist(),
        }
        lines += [f'[{own.name}]', *(f'{k} = {json.dumps(v)}' for k, v in values.items())]
        lines.append('fisheye = false')
    (folder / 'calibration' / 'Calib_fitted.toml').write_text('\n'.join(lines) + '\n')


def calibrated_cameras(folder: pathlib.Path) -> dict[str, Camera]:
    """Return the cameras of Pose2Sim's calibration; intrinsics are not scaled, as in Pose2Sim."""
    files = (folder / 'calibration').glob('*.toml')
    rig = read_rig(max(files, key=lambda file: file.stat().st_ctime), 'map', print)
    return {
        name: dataclasses.replace(
            to_camera(own.calibration, (own.calibration.height, own.calibration.width)),
            extrinsic_matrix=own.extrinsic_matrix,
            world_up_vector=np.array([0, 0, 1.0]),
        )
        for name, own in rig.items()
    }


def fuse(
    cameras: Mapping[str, Camera], detections: Detections, smoothing: float
) -> tuple[list[FusedPeople], float]:
    """Return the fused people of each frame set, and the processor time in seconds."""
    start_s = time.process_time()
    fusion = PeopleFusion(COCO_17, smoothing=smoothing)
    fused = [
        fusion.update(
            [
                CameraPeople.from_people(name, cameras[name], 1 + i / RATE_HZ, people)
                for name, people in zip(detections, frame_set)
            ]
        )
        for i, frame_set in enumerate(zip(*detections.values()))
    ]
    return fused, time.process_time() - start_s


def read_trc(file: pathlib.Path, frames: int) -> np.ndarray:
    """Return the joints [F, 17, 3] of a .trc file, world frame with z up, mm; NaN without."""
    lines = file.read_text().splitlines()
    names = [name for name in lines[3].split('\t')[2:] if name]
    values = np.genfromtxt(lines[HEADER_LINES:], delimiter='\t')
    result = np.full((frames, len(COCO_17), 3), np.nan)
    for k, name in enumerate(names):
        own = SIDES.get(name[0], '') + name[1:].lower() if name[0] in SIDES else name.lower()
        # Columns are frame, time, then y, z and x of each joint, in metres.
        y, z, x = 1000 * values[:, 2 + 3 * k : 5 + 3 * k].T
        joint = COCO_17.joint_names.index(own)
        result[values[:, 0].astype(int), joint] = np.stack([x, y, z], axis=1)
    return result


def points_of_man(detections: Detections, cameras: Mapping[str, Camera]) -> dict[str, np.ndarray]:
    """Return the 2D points [F, 17, 2] nearest to the true person; NaN where not seen."""
    truth, result = read_truth(), {}
    for name, frames in detections.items():
        result[name] = np.full((len(frames), len(COCO_17), 2), np.nan)
        camera = cameras[name]
        projected = camera.project(camera.from_world(truth.poses_mm[0]))
        for true_px, frame in zip(projected, truth.frames):
            people = frames[frame]
            if not len(people):
                continue
            off = np.nanmedian(
                np.linalg.norm(people.network_poses2d_px - true_px, axis=-1), axis=1
            )
            best = int(np.argmin(off))
            seen = people.joint_confidence[best] >= MIN_CONFIDENCE
            result[name][frame, seen] = people.network_poses2d_px[best, seen]
    return result


def reprojection_errors(
    poses_mm: np.ndarray, points_px: Mapping[str, np.ndarray], cameras: Mapping[str, Camera]
) -> np.ndarray:
    """Return the distances [C, F, 17] in pixels of poses [F, 17, 3]; NaN where not seen."""
    return np.stack(
        [
            np.linalg.norm(camera.project(camera.from_world(poses_mm)) - points_px[name], axis=-1)
            for name, camera in cameras.items()
        ]
    )


def summary(errors_px: np.ndarray) -> str:
    """Return the line of the results for distances [K]."""
    inlier = errors_px < MAX_ERROR_PX
    return (
        f'median {np.median(errors_px):.2f} px, mean {errors_px.mean():.2f} px; '
        f'{100 * inlier.mean():.1f} % within {MAX_ERROR_PX:g} px, of them mean '
        f'{errors_px[inlier].mean():.2f} px'
    )


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Write the 2D points, or measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('project', type=pathlib.Path, help='copy of Demo_SinglePerson')
    parser.add_argument('--recording', type=pathlib.Path, help='folder with a copy of the videos')
    parser.add_argument('--cache', type=pathlib.Path, required=True, help='for the detections')
    parser.add_argument('--write', action='store_true', help='write the 2D points for Pose2Sim')
    parser.add_argument('--fit', action='store_true', help='write also the fitted calibration')
    args = parser.parse_args(arguments)
    try:
        recorded = read_cameras(find_videos(args.recording))
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 1
    detections = read_detections(recorded, 'blazepose', args.cache, 'raw')
    if args.write or args.fit:
        write_points(args.project, detections)
        if args.fit:
            write_calibration(args.project, recorded)
        return 0
    cameras = calibrated_cameras(args.project)
    print(machine.describe())
    truth, results = read_truth(), {}
    for smoothing in SMOOTHING:
        fused, spent_s = fuse(cameras, detections, smoothing)
        man_mm = person_of([own.poses3d_mm for own in fused], truth)
        poses_mm = np.full((len(fused), len(COCO_17), 3), np.nan)
        poses_mm[truth.frames] = man_mm
        results[f'fusion, smoothing {smoothing}'] = poses_mm
        print(f'{spent_s:.2f} s of processor time to fuse {len(fused)} frame sets')
    for file in sorted((args.project / 'pose-3d').glob('*.trc')):
        results[file.name] = read_trc(file, len(fused))
    points_px = points_of_man(detections, {own.name: own.camera for own in recorded})
    errors = {n: reprojection_errors(p, points_px, cameras) for n, p in results.items()}
    common = np.logical_and.reduce([np.isfinite(own) for own in errors.values()])
    print(f'reprojection errors of {common.sum()} 2D points of the man that all results explain:')
    for name, own in errors.items():
        print(f'  {name}: {summary(own[common])}')
    print('the same joints compared with the truth of accuracy.py')
    known, true_mm = common.any(axis=0), np.full_like(poses_mm, np.nan)
    true_mm[truth.frames] = truth.poses_mm[0]
    for name, own in results.items():
        off_mm = np.linalg.norm(own - true_mm, axis=-1)[known]
        off_mm = off_mm[np.isfinite(off_mm)]
        print(f'  {name}: median {np.median(off_mm):.0f} mm, mean {off_mm.mean():.0f} mm')
    return 0


if __name__ == '__main__':
    sys.exit(main())
