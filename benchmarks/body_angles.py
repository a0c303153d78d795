"""
Measure how well the joint angles of ROS4HRI bodies reproduce tracked people, and their time.

    python benchmarks/body_angles.py

The person is the man in the recording of accuracy.py: as tracked in each of its four cameras, and
his true joints.  Limbs are at a limit if one of their angles is; an angle jumps if it changes by
more than 30 degrees in 33 ms.
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence

import accuracy_recording
import machine
import numpy as np

import metrabs_ros
from metrabs_ros.kinematics.body_tracks import Bodies, BodyTracks, residuals_mm
from metrabs_ros.kinematics.human_model import HumanModel, human_model
from metrabs_ros.kinematics.joint_angles import ARMS, LEGS
from metrabs_ros.kinematics.landmarks import ANKLES, ELBOWS, HIPS, KNEES, WRISTS
from metrabs_ros.options import View
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

UP_CAMERA, UP_WORLD = np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
JUMP_S, JUMP_DEGREES = 1 / 30, 30.0
"""Steps over which angles are compared, and their maximum change."""
MANY, REPEATS = 20, 300


def tracked_people(recording: accuracy_recording.RecordedCamera) -> Iterator[People]:
    """Yield the tracked people in each image of a camera, camera frame."""
    camera = dataclasses.replace(recording.camera, extrinsic_matrix=np.eye(4))
    tracker = PersonTracker(metrabs_ros.load_model('blazepose'))
    for i, image in enumerate(recording.images()):
        stamp_s = i / accuracy_recording.RATE_HZ
        (people,) = tracker.process([TimedView(View(image, camera), stamp_s)])
        yield people


def select_man(people: People, man_mm: np.ndarray) -> People:
    """Return the person nearest to a position [3] in the frame of the people."""
    if not len(people):
        return people
    apart_mm = np.linalg.norm(people.positions_mm - man_mm, axis=-1)
    return people.select(np.array([apart_mm.argmin()]))


def true_people(joints_mm: np.ndarray) -> Iterator[People]:
    """Yield a person for the true joints [F, 17, 3] of each frame; NaN for unknown ones."""
    for own_mm in joints_mm:
        known = np.isfinite(own_mm).all(axis=-1)
        if not known[HIPS].all():
            continue
        people = People.from_detections(
            COCO_17,
            np.zeros((1, 4)),
            np.ones(1),
            np.where(known[:, None], own_mm, own_mm[known].mean(axis=0))[None],
            np.zeros((1, 17, 2)),
            (1, 1),
        )
        yield dataclasses.replace(
            people, joint_confidence=known[None].astype(float), ids=np.ones(1, np.int64)
        )


def bodies_of(
    people: Sequence[People], rate_hz: float, up: np.ndarray, model: HumanModel
) -> list[Bodies]:
    """Return the bodies of people in successive images."""
    tracks = BodyTracks(model)
    return [tracks.solve(tracks.update(own, up, i / rate_hz)) for i, own in enumerate(people)]


def report(name: str, bodies: Sequence[Bodies], model: HumanModel) -> None:
    """Print the errors and the share of limbs at their limits."""
    everyone = Bodies.concatenate(bodies)
    errors_mm = residuals_mm(everyone, model)
    medians = ', '.join(
        f'{part} {np.nanmedian(errors_mm[:, own]):.0f}'
        for part, own in (('elbows', ELBOWS), ('wrists', WRISTS), ('knees', KNEES))
    )
    ends_mm = np.concatenate([errors_mm[:, WRISTS], errors_mm[:, ANKLES]])
    tree = model.tree
    at_limit = np.minimum(everyone.angles - tree.lower, tree.upper - everyone.angles) < 1e-6
    limbs = at_limit[:, np.concatenate([ARMS, LEGS])].any(axis=-1)
    ends_known = np.concatenate([everyone.known[:, WRISTS], everyone.known[:, ANKLES]], axis=1)
    print(
        f'{name}: {len(everyone)} bodies; link ends {np.nanmedian(ends_mm):.1f} mm (median), '
        f'{medians}, ankles {np.nanmedian(errors_mm[:, ANKLES]):.0f} mm; '
        f'{100 * limbs[ends_known].mean():.1f} % of limbs at a limit',
        flush=True,
    )


def count_jumps(bodies: Sequence[Bodies], step: int) -> int:
    """Return how many angles change by more than the limit within a number of frames."""
    count = 0
    for before, after in zip(bodies, bodies[step:]):
        rows, columns = np.nonzero(before.ids[:, None] == after.ids)
        change_degrees = np.degrees(np.abs(after.angles[columns] - before.angles[rows]))
        count += int(np.count_nonzero(change_degrees > JUMP_DEGREES))
    return count


def print_time(people: People, model: HumanModel) -> None:
    """Print the processor time of frames with many people."""
    many = people.select(np.zeros(MANY, np.intp))
    many = dataclasses.replace(many, ids=np.arange(1, MANY + 1))
    tracks = BodyTracks(model)
    start_s, frames_s, angles_s = time.process_time(), 0.0, 0.0
    for i in range(REPEATS):
        start_s = time.process_time()
        bodies = tracks.update(many, UP_CAMERA, i / 30)
        middle_s = time.process_time()
        tracks.solve(bodies)
        frames_s += middle_s - start_s
        angles_s += time.process_time() - middle_s
    print(
        f'{MANY} people: body frames and lengths {1000 * frames_s / REPEATS:.2f} ms, '
        f'joint angles {1000 * angles_s / REPEATS:.2f} ms of processor time per frame'
    )


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Track the people of the recording, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--recording', type=pathlib.Path, help='folder; default: downloaded')
    args = parser.parse_args(arguments)
    print(machine.describe())
    model, rate_hz = human_model(), accuracy_recording.RATE_HZ
    everyone, jumps = [], 0
    truth_mm = accuracy_recording.read_truth().poses_mm[0]
    man_mm = np.nanmean(truth_mm[:, HIPS], axis=(0, 1))
    for recording in accuracy_recording.read_cameras(
        accuracy_recording.find_videos(args.recording)
    ):
        here_mm = recording.camera.from_world(man_mm)
        people = [select_man(own, here_mm) for own in tracked_people(recording)]
        bodies = bodies_of(people, rate_hz, UP_CAMERA, model)
        jumps += count_jumps(bodies, round(JUMP_S * rate_hz))
        report(recording.name, bodies, model)
        everyone += bodies
    report('all cameras', everyone, model)
    truth = bodies_of(list(true_people(truth_mm)), rate_hz / 2, UP_WORLD, model)
    report('true joints', truth, model)
    jumps += count_jumps(truth, 1)
    print(f'{jumps} angles change by more than {JUMP_DEGREES:g} degrees within {JUMP_S:.3f} s')
    print_time(people[-1], model)
    return 0


if __name__ == '__main__':
    sys.exit(main())
