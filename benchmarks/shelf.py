"""
Measure the fusion of 2D detections of five cameras on the Shelf sequence.

    python benchmarks/shelf.py people2d.npz

The file has OpenPose detections (BODY_25) of frames 300 to 600, the cameras, and true positions of
up to four people.  evaluate.py next to it gives the percentage of correct parts.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

import machine
import numpy as np

from metrabs_ros.camera import Camera
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.skeletons.conventions import Skeleton

RATE_HZ = 25.0
BODY_25 = Skeleton(
    'body_25',
    (
        *('nose', 'neck', 'right_shoulder', 'right_elbow', 'right_wrist', 'left_shoulder'),
        *('left_elbow', 'left_wrist', 'mid_hip', 'right_hip', 'right_knee', 'right_ankle'),
        *('left_hip', 'left_knee', 'left_ankle', 'right_eye', 'left_eye', 'right_ear', 'left_ear'),
        *('left_big_toe', 'left_small_toe', 'left_heel'),
        *('right_big_toe', 'right_small_toe', 'right_heel'),
    ),
    (
        *((1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
        *((10, 11), (8, 12), (12, 13), (13, 14), (0, 15), (0, 16), (15, 17), (16, 18)),
        *((14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24)),
    ),
)


def read_frame_sets(data: dict[str, np.ndarray]) -> Iterator[list[CameraPeople]]:
    """Yield the detections of each frame."""
    cameras = []
    for k, r, t_m in zip(data['K'], data['R'], data['t_m']):
        extrinsic = np.eye(4)
        extrinsic[:3, :3], extrinsic[:3, 3] = r, 1000 * t_m
        cameras.append(Camera(k, extrinsic_matrix=extrinsic, world_up_vector=[0, 0, 1]))
    for f in range(int(data['frame'].max()) + 1):
        frames = []
        for c, camera in enumerate(cameras):
            own = data['points_px'][(data['frame'] == f) & (data['camera'] == c)]
            width, height = data['image_size'][c]
            frames.append(
                CameraPeople(
                    f'camera{c}',
                    camera,
                    1 + f / RATE_HZ,
                    BODY_25,
                    own[..., :2],
                    own[..., 2],
                    image_shape=(int(height), int(width)),
                )
            )
        yield frames


def fuse(data: dict[str, np.ndarray]) -> tuple[list[FusedPeople], np.ndarray]:
    """Return the people of each frame, and the processor time of each, seconds."""
    fusion = PeopleFusion(BODY_25, min_hits=1)
    results, spent_s = [], []
    for frames in read_frame_sets(data):
        start_s = time.process_time()
        results.append(fusion.update(frames))
        spent_s.append(time.process_time() - start_s)
    return results, np.array(spent_s)


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Fuse, evaluate, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=pathlib.Path, help='people2d.npz; evaluate.py is next to it')
    parser.add_argument('--output', type=pathlib.Path, help='write the result to an .npz file')
    args = parser.parse_args(arguments)
    spec = importlib.util.spec_from_file_location('evaluate', args.data.with_name('evaluate.py'))
    evaluation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluation)
    data = dict(np.load(args.data))
    results, spent_s = fuse(data)
    frame = np.repeat(np.arange(len(results)), [len(own) for own in results])
    ids = np.concatenate([own.ids for own in results])
    joints25_m = np.concatenate([own.poses3d_mm for own in results]) / 1000
    if args.output:
        np.savez(args.output, frame=frame, id=ids, joints25_m=joints25_m)
    print(machine.describe())
    print(evaluation.evaluate(data, frame, evaluation.shelf15(joints25_m), ids))
    print(
        f'{1000 * spent_s.mean():.2f} ms of processor time per frame set (mean), '
        f'{1000 * np.percentile(spent_s, 99):.2f} ms (99 %)'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
