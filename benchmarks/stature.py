"""
Determine how large each network assumes people to be, from pedestrians at known distances.

    python benchmarks/stature.py --output benchmarks/results/stature.txt

The demo's video vtest.avi (of Debian's opencv-doc) is view 1 of sequence S2.L1 of the PETS 2009
benchmark, for which a calibration was published.  With it, the distance of a person follows from
the feet, which are on the ground plane.  A network that assumes people to be 5 % too small places
them 5 % too near.  The factor that corrects this is the inverse of the median ratio of predicted
to true distances, each pedestrian counting once.

The sum of bone lengths (`People.statures_mm`) is printed for comparison.  It does not determine
distances: it contains the extents along the viewing direction, which differ between the networks,
while distances follow from the extents across it.

The pedestrians' own stature must be that of the population.  It follows from the height of the
nose above the ground, and is printed: the mean of adults is about 1.70 m (NCD Risk Factor
Collaboration, "A century of trends in adult human height", eLife 2016: men 1.71 m, women 1.59 m
in the world; 1.77 m and 1.64 m in the United Kingdom, where the video was recorded).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterator, Sequence

import cv2
import machine
import numpy as np

import metrabs_ros
from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.blazepose.estimator import BlazePoseEstimator
from metrabs_ros.camera import Camera
from metrabs_ros.demo_video import default_footage
from metrabs_ros.options import Options, View
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.tracking.tracker import Tracker

MODELS = ('blazepose', 'blazepose_lite', 'blazepose_heavy')
EVERY, RATE_HZ = 5, 7.0
"""Every fifth image is used; PETS 2009 has 7 frames per second."""

FOCAL_MM, PIXEL_MM, CENTRE_PX = 5.5549183034, (5.1273271277e-3, 4.65e-3), (324.22149053, 282.5665)
HORIZONTAL_SCALE, KAPPA_PER_MM2 = 1.0937855397, 5.1113043639e-3
TRANSLATION_MM = (828.73214225, -3175.4796051, 35469.298547)
ROTATION_RAD = (2.0405458695, -0.89337703748, -0.43056124791)
"""Calibration of PETS 2009, view 1, in Tsai's model: rotations about x, then y, then z."""

MIN_CONFIDENCE = 0.8
"""Minimum confidence of nose and ankles."""
MAX_BEND_DEGREES = 30.0
"""Maximum angle between trunk and legs of people that count as upright."""
ANKLE_HEIGHT_MM = 90.0
NOSE_TO_STATURE = 0.91
"""Height of the nose of a standing person, as a share of stature (Drillis and Contini, 1966)."""
MIN_DETECTIONS = 5
"""Pedestrians that were measured less often are left out."""


@dataclasses.dataclass(frozen=True)
class Measurements:
    """
    N measured people in images.

    Parameters
    ----------
    ids
        [N], one id for each pedestrian.
    distance_ratios
        [N], predicted distance of the hips, divided by the true one.
    statures_mm
        [N], true stature by the height of the nose.
    bone_statures_mm
        [N], `People.statures_mm`.
    """

    ids: np.ndarray
    distance_ratios: FloatArray
    statures_mm: FloatArray
    bone_statures_mm: FloatArray

    @classmethod
    def concatenate(cls, parts: Sequence[Measurements]) -> Measurements:
        """Concatenate one or more sets of measurements."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(own, name) for own in parts]) for name in names))


def pets_camera() -> Camera:
    """Return the camera of vtest.avi; the world has z up, and the ground at z = 0."""
    turns = [cv2.Rodrigues(angle * axis)[0] for angle, axis in zip(ROTATION_RAD, np.eye(3))]
    extrinsic_matrix = np.eye(4)
    extrinsic_matrix[:3, :3] = turns[2] @ turns[1] @ turns[0]
    extrinsic_matrix[:3, 3] = TRANSLATION_MM
    focal_px = FOCAL_MM / np.array(PIXEL_MM) * (HORIZONTAL_SCALE, 1)
    intrinsic_matrix = np.array(
        [[focal_px[0], 0, CENTRE_PX[0]], [0, focal_px[1], CENTRE_PX[1]], [0, 0, 1]]
    )
    # Tsai's model maps distorted to undistorted points, OpenCV's the other way: inverse series.
    kappa = KAPPA_PER_MM2 * FOCAL_MM**2
    coeffs = np.array([-kappa, 3 * kappa**2, 0, 0, -12 * kappa**3])
    return Camera(intrinsic_matrix, coeffs, extrinsic_matrix, (0.0, 0.0, 1.0))


def is_upright(people: People) -> BoolArray:
    """Return which people are upright, in the image, and have visible nose and ankles, [N]."""
    names = people.skeleton.joint_names
    joints = [names.index(name) for name in ('nose', 'left_ankle', 'right_ankle')]
    is_visible = (people.joint_confidence[:, joints] > MIN_CONFIDENCE).all(axis=1)
    hips_mm = people.midpoint('hip')
    bend = angles_degrees(
        people.midpoint('shoulder') - hips_mm, hips_mm - people.midpoint('ankle')
    )
    return is_visible & people.in_view.all(axis=1) & (bend < MAX_BEND_DEGREES)


def angles_degrees(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the angles [N] between vectors [N, 3]."""
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(np.clip((first * second).sum(axis=-1) / lengths, -1, 1)))


def world_rays(points_px: FloatArray, camera: Camera) -> FloatArray:
    """Return viewing rays [..., 3] of image points [..., 2], along the axes of the world."""
    return camera.unproject(points_px) @ camera.extrinsic_matrix[:3, :3]


def points_at_height(points_px: FloatArray, height_mm: float, camera: Camera) -> FloatArray:
    """Return the points [..., 3] of the world at a height that are seen at pixels [..., 2]."""
    rays = world_rays(points_px, camera)
    return camera.position_mm + rays * ((height_mm - camera.position_mm[2]) / rays[..., 2:])


def points_above(points_px: FloatArray, positions_mm: FloatArray, camera: Camera) -> FloatArray:
    """Return the points [N, 3] at pixels [N, 2] that are as far away on the map as positions."""
    rays = world_rays(points_px, camera)
    on_map_mm = np.linalg.norm((positions_mm - camera.position_mm)[:, :2], axis=-1)
    steps = on_map_mm / np.linalg.norm(rays[:, :2], axis=-1)
    return camera.position_mm + rays * steps[:, None]


def measure_people(people: People, ids: np.ndarray, camera: Camera) -> Measurements:
    """
    Compare the distances of upright people with those that follow from their feet.

    Parameters
    ----------
    people
        N people, camera frame.
    ids
        [N], an id of each person.
    camera
        The camera; in its world, z is up and the ground is at z = 0.
    """
    ankles_px = np.stack(
        [
            people.poses2d_px[:, people.skeleton.part('ankle', side)].mean(axis=1)
            for side in ('left', 'right')
        ]
    )
    feet_mm = points_at_height(ankles_px, ANKLE_HEIGHT_MM, camera).mean(axis=0)
    hips_mm = points_above(camera.project(people.positions_mm), feet_mm, camera)
    true_mm = np.linalg.norm(hips_mm - camera.position_mm, axis=-1)
    noses_px = people.poses2d_px[:, people.skeleton.part('nose')].mean(axis=1)
    noses_mm = points_above(noses_px, feet_mm, camera)[:, 2]
    return Measurements(
        ids, people.distances_mm / true_mm, noses_mm / NOSE_TO_STATURE, people.statures_mm
    )


def medians_by_person(values: FloatArray, ids: np.ndarray) -> FloatArray:
    """Return the medians of the values [N] of each person with enough of them, [P]."""
    unique, counts = np.unique(ids, return_counts=True)
    return np.array([np.median(values[ids == i]) for i in unique[counts >= MIN_DETECTIONS]])


def frames(file: pathlib.Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield stamps in seconds and images, uint8, RGB, of every fifth frame of a video."""
    video = cv2.VideoCapture(str(file))
    for i in itertools.count():
        has_image, image = video.read()
        if not has_image:
            return
        if i % EVERY == 0:
            yield 1 + i / RATE_HZ, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def measure_video(file: pathlib.Path) -> dict[str, Measurements]:
    """Return the measurements of each model."""
    camera = pets_camera()
    models = {name: load_network(name) for name in MODELS}
    trackers = {name: Tracker(min_hits=1, smoothing=0) for name in MODELS}
    parts: dict[str, list[Measurements]] = {name: [] for name in MODELS}
    for stamp_s, image in frames(file):
        view = View(image, camera)
        # All models have the same detector.
        keypoints = models[MODELS[0]].detect(view, Options())
        for name, model in models.items():
            people, _ = model.confirm(view, keypoints)
            trackers[name].update(people, stamp_s, camera, image.shape)
            ids = trackers[name].detection_ids
            is_used = is_upright(people) & (ids != UNKNOWN_ID)
            parts[name].append(measure_people(people.select(is_used), ids[is_used], camera))
        print(f'{stamp_s - 1:.1f} s', end='\r', file=sys.stderr)
    return {name: Measurements.concatenate(own) for name, own in parts.items()}


def load_network(name: str) -> BlazePoseEstimator:
    """Return a model whose detector and pose network are called one after the other."""
    model = metrabs_ros.load_model(name)
    assert isinstance(model, BlazePoseEstimator)
    return model


def report(name: str, measured: Measurements) -> list[str]:
    """Return the lines of the results of a model."""
    ratios = medians_by_person(measured.distance_ratios, measured.ids)
    # Of the median, for a normal distribution.
    error = 1.25 * ratios.std(ddof=1) / np.sqrt(len(ratios))
    ratio = np.median(ratios)
    return [
        f'{name}: factor {1 / ratio:.3f} +- {error / ratio**2:.3f}',
        f'  predicted / true distance: {spread(ratios, 3)} of {len(ratios)} pedestrians; '
        f'{spread(measured.distance_ratios, 3)} of {len(measured.ids)} detections',
        '  true stature: '
        f'{spread(medians_by_person(measured.statures_mm, measured.ids), 0)} mm of pedestrians',
        f'  sum of bone lengths: {spread(measured.bone_statures_mm, 0)} mm of detections',
    ]


def spread(values: FloatArray, digits: int) -> str:
    """Return the median and the quartiles as text."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return f'{median:.{digits}f} (quartiles {low:.{digits}f}, {high:.{digits}f})'


def main() -> None:
    """Measure, print and optionally write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--video', type=pathlib.Path, help='an existing copy of vtest.avi')
    parser.add_argument('--output', type=pathlib.Path)
    args = parser.parse_args()
    video = args.video or default_footage()
    if video.suffix != '.avi':
        raise SystemExit(f'{video} is not vtest.avi; give a copy of it with --video')
    lines = [machine.describe()]
    for name, measured in measure_video(video).items():
        lines += report(name, measured)
    print('\n'.join(lines))
    if args.output:
        args.output.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
