"""
Create the figures of the documentation.

These are a frame of the sample video, the geometry of depth, the skeletons and latent points.

    python docs/make_pictures.py
"""

from __future__ import annotations

import collections
import itertools
import pathlib
import sys

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'benchmarks'))

import synthetic_skeletons

import metrabs_ros
from metrabs_ros import drawing
from metrabs_ros.camera import Camera
from metrabs_ros.demo_video import default_footage
from metrabs_ros.options import View
from metrabs_ros.report.skeleton_picture import (
    FRONT,
    draw_autoencoder,
    draw_skeleton,
    in_body_frame,
    label_joints,
    side_colors,
)
from metrabs_ros.skeletons.affine_autoencoder import fit_autoencoder
from metrabs_ros.skeletons.affine_regression import most_common_pose
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33
from metrabs_ros.skeletons.pose_samples import PoseSamples
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

HERE = pathlib.Path(__file__).parent
SYNTHETIC_POSES = 3000
FRAMES = 200
RATE_HZ = 10.0
FOV_DEGREES = 55.0
JPEG_QUALITY = 82
INK, BLUE, ORANGE, GREY = '#22272e', '#2563eb', '#c2410c', '#8b949e'


def draw_demo(file: pathlib.Path) -> None:
    """Draw a frame of the sample video, and a top view of the paths of all people."""
    model = metrabs_ros.load_model('blazepose')
    tracker = PersonTracker(model)
    video = cv2.VideoCapture(str(default_footage()))
    paths_mm = collections.defaultdict(list)
    for i in range(FRAMES):
        _, picture = video.read()
        camera = Camera.from_fov(FOV_DEGREES, picture.shape)
        view = View(picture[..., ::-1], camera)
        (people,) = tracker.process([TimedView(view, i / RATE_HZ)])
        for person_id, place_mm in zip(people.ids.tolist(), people.positions_mm):
            paths_mm[person_id].append(place_mm)
    drawing.draw_people(picture, people)
    lasting = {key: path for key, path in paths_mm.items() if len(path) > 2 * RATE_HZ}
    plan = drawing.draw_top_view(lasting, picture.shape[0])
    both = np.concatenate([picture, plan], axis=1)
    cv2.imwrite(str(file), both, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def draw_depth(file: pathlib.Path) -> None:
    """Draw how the distance of a person depends on the focal length for the same image."""
    with mpl.rc_context({'font.size': 10, 'text.color': INK}):
        figure = Figure(figsize=(9.0, 2.5), layout='constrained')
        for axes, (focal_px, color) in zip(figure.subplots(1, 2), ((600, BLUE), (900, ORANGE))):
            _draw_camera(axes, focal_px, color)
        figure.savefig(file, dpi=110)


def _draw_camera(axes, focal_px: float, color: str) -> None:
    height_px, height_m = 300.0, 1.7
    plane_m = focal_px / 600
    image_m = plane_m * height_px / focal_px
    distance_m = focal_px * height_m / height_px
    feet = -0.85
    axes.add_patch(Polygon([(-0.45, -0.2), (-0.45, 0.2), (0, 0)], color=INK))
    for end in (feet, feet + height_m):
        axes.plot((0, distance_m), (0, end), color=GREY, linewidth=1)
    axes.plot((plane_m, plane_m), (-0.75, 0.75), color=INK, linewidth=1)
    axes.plot((plane_m,) * 2, (-image_m / 2, image_m / 2), color=color, linewidth=4)
    axes.text(plane_m + 0.06, 0.62, f'{height_px:.0f} px', color=color)
    _draw_person(axes, distance_m, feet, height_m, color)
    axes.text(distance_m + 0.3, 0, f'{height_m} m', va='center', color=color)
    arrow = {'arrowstyle': '<->', 'color': INK}
    for end, y, text in (
        (plane_m, -1.0, f'f = {focal_px} px'),
        (
            distance_m,
            -1.35,
            f'Z = {focal_px} · {height_m} m / {height_px:.0f} = {distance_m:.1f} m',
        ),
    ):
        axes.annotate('', (0, y), (end, y), arrowprops=arrow)
        axes.text(end / 2, y - 0.06, text, ha='center', va='top', fontsize=9)
    axes.set_xlim(-0.6, 6.1)
    axes.set_ylim(-1.75, 1.1)
    axes.set_aspect('equal')
    axes.axis('off')


def _draw_person(axes, x: float, feet: float, height_m: float, color: str) -> None:
    hip, neck, head = (feet + share * height_m for share in (0.52, 0.83, 0.93))
    limbs = [
        [(x, hip), (x, neck)],
        [(x - 0.16, feet), (x, hip), (x + 0.16, feet)],
        [(x - 0.24, hip + 0.1), (x, neck - 0.05), (x + 0.24, hip + 0.1)],
    ]
    for limb in limbs:
        for (x0, y0), (x1, y1) in itertools.pairwise(limb):
            axes.plot((x0, x1), (y0, y1), color=color, linewidth=3, solid_capstyle='round')
    axes.plot(x, head, 'o', color=color, markersize=8)


def draw_skeletons(file: pathlib.Path) -> None:
    """Draw the built-in skeletons of a pedestrian, estimated in a photograph, from the front."""
    photo = cv2.imread(str(HERE.parent / 'test' / 'data' / 'street.png'))
    poses_mm = metrabs_ros.load_model('blazepose').detect_poses(photo[..., ::-1])['poses3d']
    nose, ears, shoulders, ankles = (
        poses_mm[:, joints].mean(axis=1) for joints in ([0], [7, 8], [11, 12], [27, 28])
    )
    # The most upright person of those who face the camera.
    leaning_mm = np.abs(shoulders - ankles)[:, 0]
    leaning_mm[nose[:, 2] > ears[:, 2]] = np.inf
    body_mm = in_body_frame(poses_mm[leaning_mm.argmin()], BLAZEPOSE_33)
    all_joints = {'': BLAZEPOSE_33.within(BLAZEPOSE_33)}
    with mpl.rc_context({'font.size': 9, 'text.color': INK}):
        figure = Figure(figsize=(15, 15), layout='constrained')
        grid = list(figure.subplots(3, 3).flat)
        for axes in grid:
            axes.axis('off')
        for axes, (name, definition) in zip(grid, DEFINITIONS.items()):
            points_mm = definition.within(all_joints).positions(body_mm)
            draw_skeleton(axes, points_mm, definition.skeleton, FRONT)
            names = [
                joint + ('*' if deviation_mm else '')
                for joint, deviation_mm in zip(
                    definition.skeleton.joint_names, definition.deviations_mm
                )
            ]
            label_joints(axes, points_mm, names, side_colors(definition.skeleton), 8)
            axes.set_title(name, fontsize=13)
        legend = 'seen from the front\nblue: left side of the body\norange: right side\n'
        legend += 'green: middle\n* anatomical estimate'
        grid[-2].text(0.1, 0.7, legend, fontsize=13, va='top')
        figure.savefig(file, dpi=75)


def draw_latent_points(file: pathlib.Path) -> None:
    """Draw the latent points of an autoencoder that is fitted to synthetic poses."""
    synthetic = synthetic_skeletons.make(SYNTHETIC_POSES)
    pairs = [(int(a), int(b)) for a, b in synthetic.mirror_pairs]
    samples = PoseSamples(synthetic.poses_mm, tuple(synthetic.joint_names.tolist()), pairs)
    draw_autoencoder(fit_autoencoder(samples), most_common_pose(samples.poses_mm), file)


if __name__ == '__main__':
    draw_demo(HERE / 'demo.jpg')
    draw_depth(HERE / 'depth.png')
    draw_skeletons(HERE / 'skeletons.png')
    draw_latent_points(HERE / 'latent_points.png')
