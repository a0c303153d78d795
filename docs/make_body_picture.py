"""
Draw the URDF of ROS4HRI bodies next to the skeletons that they are computed from.

    python docs/make_body_picture.py

The skeletons are defined by directions, not by joint angles, so that the picture shows whether
joints bend the right way.
"""

from __future__ import annotations

import pathlib

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from urdf_parser_py.urdf import URDF, Cylinder

from metrabs_ros.conversions.transforms import rotation_matrix
from metrabs_ros.kinematics.body_tracks import Bodies, BodyTracks
from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.human_urdf import urdf_text
from metrabs_ros.kinematics.kinematic_tree import parse_urdf
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17

PICTURE = pathlib.Path(__file__).parent / 'ros4hri.png'
UP = np.array([0.0, 0.0, 1.0])
LEFT, RIGHT, MIDDLE, EYE = '#c2410c', '#2563eb', '#57606a', '#22272e'
ELEVATION, AZIMUTH = 12, 40
"""Direction of the view in degrees: from the front, and from the left side of the person."""
LENGTHS_MM = {'upper_arm': 290, 'forearm': 250, 'thigh': 420, 'shank': 410}
HALF_SIZE_MM = (600, 600, 850)
DOWN = (0, 0, -1)
STANDING = {
    'left': ((0, 0.15, -1), (0.1, 0.05, -1), DOWN, DOWN),
    'right': ((0, -0.15, -1), (0.1, -0.05, -1), DOWN, DOWN),
}
POSES = {
    'standing': STANDING,
    'waving with the right hand': {
        **STANDING,
        'right': ((0, -1, -0.2), (0.2, -0.2, 1), DOWN, DOWN),
    },
    'sitting': {
        'left': ((0.3, 0.1, -1), (1, -0.1, -0.2), (1, 0.1, 0), DOWN),
        'right': ((0.3, -0.1, -1), (1, 0.1, -0.2), (1, -0.1, 0), DOWN),
    },
    'left knee raised': {
        'left': ((-0.6, 0.1, -1), (1, 0, -0.2), (1, 0, -0.3), (-0.2, 0, -1)),
        'right': ((0.5, -0.1, -1), (1, 0.1, 0.4), DOWN, DOWN),
    },
    'bending forward': {
        'lean': 50,
        'left': ((0.4, 0.1, -1), (0.4, 0, -1), DOWN, DOWN),
        'right': ((0.4, -0.1, -1), (0.4, 0, -1), DOWN, DOWN),
    },
    'pointing with the left hand': {
        'left': ((1, 0.2, 0.1), (1, 0, 0.1), (-0.1, 0.1, -1), (-0.3, 0, -1)),
        'right': ((0, -0.2, -1), (0.6, 1, 0.3), (0.2, -0.1, -1), (-0.1, 0, -1)),
    },
}
"""Directions of upper arm, forearm, thigh and shank: forward, left, up; lean in degrees."""
BONES = (
    *((5, 6), (11, 12), (0, 1), (0, 2), (1, 3), (2, 4)),
    *((5, 7), (7, 9), (5, 11), (11, 13), (13, 15)),
    *((6, 8), (8, 10), (6, 12), (12, 14), (14, 16)),
)


def landmarks_of(pose: dict) -> np.ndarray:
    """Return the joints of a pose, [17, 3], in millimetres."""
    place = {'nose': np.array([110.0, 0, 610])}
    for side, sign in (('left', 1), ('right', -1)):
        place[f'{side}_eye'] = np.array([90.0, sign * 32, 645])
        place[f'{side}_ear'] = np.array([0.0, sign * 75, 628])
        place[f'{side}_shoulder'] = np.array([0.0, sign * 175, 470])
    angle = np.radians(pose.get('lean', 0))
    lean = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    place = {name: lean @ point for name, point in place.items()}
    for side, sign in (('left', 1), ('right', -1)):
        place[f'{side}_hip'] = np.array([0.0, sign * 95, 0])
        steps = zip(
            ('shoulder', 'elbow', 'hip', 'knee'), ('elbow', 'wrist', 'knee', 'ankle'), LENGTHS_MM
        )
        for (start, end, segment), direction in zip(steps, pose[side]):
            unit = np.array(direction) / np.linalg.norm(direction)
            place[f'{side}_{end}'] = place[f'{side}_{start}'] + LENGTHS_MM[segment] * unit
    return np.array([place[name] for name in COCO_17.joint_names])


def solve(landmarks_mm: np.ndarray) -> Bodies:
    """Return the body of a person that stays in a pose until its lengths are stable."""
    people = People.from_detections(
        COCO_17,
        np.zeros((1, 4)),
        np.ones(1),
        landmarks_mm[None],
        np.zeros((1, 17, 2)),
        (1, 1),
    )
    tracks = BodyTracks(human_model())
    for stamp_s in np.arange(0, 3, 0.1):
        bodies = tracks.solve(tracks.update(people, UP, stamp_s))
    return bodies


def colour_of(name: str) -> str:
    """Return the colour of a joint or link, by its side."""
    if name.startswith(('left_', 'l_')):
        return LEFT
    return RIGHT if name.startswith(('right_', 'r_')) and 'head' not in name else MIDDLE


def draw_skeleton(axes, landmarks_mm: np.ndarray) -> None:
    """Draw the joints and bones."""
    for a, b in BONES:
        names = COCO_17.joint_names[a], COCO_17.joint_names[b]
        sides = {colour_of(name) for name in names}
        colour = sides.pop() if len(sides) == 1 else MIDDLE
        axes.plot(*landmarks_mm[[a, b]].T, color=colour, linewidth=2)
    axes.scatter(*landmarks_mm.T, c=[colour_of(name) for name in COCO_17.joint_names], s=10)


def draw_urdf(axes, bodies: Bodies) -> None:
    """Draw the shapes of the published URDF at the published joint angles."""
    text = urdf_text('p1', bodies.lengths_mm[0])
    tree = parse_urdf(text, '_p1')
    rotations, positions_mm = tree.forward(bodies.angles)
    rotations = bodies.rotations[0] @ rotations[0]
    positions_mm = bodies.origins_mm[0] + positions_mm[0] @ bodies.rotations[0].T
    for link in URDF.from_xml_string(text.encode()).links:
        i = tree.index(link.name.removesuffix('_p1'))
        for visual in link.visuals:
            colour = EYE if visual.material.name == 'eye' else colour_of(link.name)
            surface_mm = 1000 * surface_of(visual)
            x, y, z = np.moveaxis(surface_mm @ rotations[i].T + positions_mm[i], -1, 0)
            axes.plot_surface(x, y, z, color=colour, linewidth=0, shade=True)


def surface_of(visual) -> np.ndarray:
    """Return points [U, V, 3] on the shape of a visual, in the frame of its link, metres."""
    around = np.linspace(0, 2 * np.pi, 13)
    shape = visual.geometry
    if isinstance(shape, Cylinder):
        circle = shape.radius * np.stack([np.cos(around), np.sin(around)], axis=-1)
        ends = np.array([-shape.length / 2, shape.length / 2])
        points = np.stack(
            [*np.broadcast_arrays(circle[:, None, 0], circle[:, None, 1], ends)], axis=-1
        )
    else:
        height = np.linspace(-np.pi / 2, np.pi / 2, 9)
        points = shape.radius * np.stack(
            [
                np.cos(around)[:, None] * np.cos(height),
                np.sin(around)[:, None] * np.cos(height),
                np.broadcast_to(np.sin(height), (13, 9)),
            ],
            axis=-1,
        )
    # The URDF of bodies only has rotations about the x axis.
    half = visual.origin.rpy[0] / 2
    turn = rotation_matrix(np.sin(half), 0, 0, np.cos(half))
    return points @ turn.T + visual.origin.xyz


def main() -> None:
    """Draw the picture."""
    with mpl.rc_context({'font.size': 9}):
        figure = Figure(figsize=(10.5, 7.0))
        for i, (name, pose) in enumerate(POSES.items()):
            landmarks_mm = landmarks_of(pose)
            bodies = solve(landmarks_mm)
            row, column = divmod(i, 3)
            for k in (0, 1):
                left = (column + 0.5 * k) / 3
                axes = figure.add_axes(
                    (left - 0.03, 0.47 - 0.5 * row, 0.225, 0.53), projection='3d'
                )
                if k == 0:
                    draw_skeleton(axes, landmarks_mm)
                else:
                    draw_urdf(axes, bodies)
                low_mm, high_mm = landmarks_mm.min(axis=0), landmarks_mm.max(axis=0)
                for j, set_limits in enumerate((axes.set_xlim, axes.set_ylim, axes.set_zlim)):
                    middle_mm, half_mm = (low_mm[j] + high_mm[j]) / 2, HALF_SIZE_MM[j]
                    set_limits(middle_mm - half_mm, middle_mm + half_mm)
                axes.set_box_aspect(HALF_SIZE_MM, zoom=1.2)
                axes.view_init(ELEVATION, AZIMUTH)
                axes.set_axis_off()
            figure.text((column + 0.5) / 3, 0.965 - 0.5 * row, name, ha='center')
        figure.savefig(PICTURE, dpi=90)


if __name__ == '__main__':
    main()
