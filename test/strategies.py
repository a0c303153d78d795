"""Cameras, lenses and people for property-based tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

IMAGE_SHAPE = (1080, 1920)

PINHOLE: list[float] = []
LENSES = (
    PINHOLE,
    [-0.28, 0.09, 0.0012, -0.0007],
    [-0.28, 0.09, 0.0012, -0.0007, -0.011],
    [0.12, -0.2, 0.001, 0.002, 0.05],
    [0.42, -0.11, -0.0006, 0.0011, 0.02, 0.75, -0.05, 0.03],
    [-0.21, 0.05, 0.0009, -0.0004, 0.008, 0.02, -0.01, 0.004, 0.0012, -0.0006, 0.0008, 0.0003],
)

lenses = st.sampled_from([np.array(lens) for lens in LENSES])
angles = st.floats(0, 2 * np.pi)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    """Return a camera for images of IMAGE_SHAPE, with any of the lenses, rolled by any angle."""
    # With shorter focal lengths no ray of the strongest lens reaches the image corners.
    focal_px = draw(st.floats(1500, 3000))
    aspect = draw(st.floats(0.95, 1.05))
    centre_x, centre_y = draw(st.floats(860, 1060)), draw(st.floats(480, 600))
    intrinsics = np.array([[focal_px, 0, centre_x], [0, aspect * focal_px, centre_y], [0, 0, 1]])
    roll = draw(angles)
    up = np.array([np.sin(roll), -np.cos(roll), 0])
    return Camera(intrinsics, draw(lenses), world_up_vector=up)


def standing_person(up: FloatArray, facing: float) -> FloatArray:
    """
    Return the joints of a standing person, [33, 3], millimetres, relative to the hip midpoint.

    Parameters
    ----------
    up
        [3], up direction in camera coordinates.
    facing
        Direction that the person faces: an angle about the up direction.
    """
    positions_mm = {
        'nose': (90, 0, 680),
        'eye_inner': (80, 15, 710),
        'eye': (78, 32, 712),
        'eye_outer': (70, 48, 712),
        'ear': (0, 75, 700),
        'mouth': (78, 25, 630),
        'shoulder': (0, 180, 480),
        'elbow': (20, 260, 210),
        'wrist': (120, 280, -20),
        'pinky': (160, 285, -90),
        'index': (180, 270, -95),
        'thumb': (160, 255, -60),
        'hip': (0, 105, 0),
        'knee': (60, 110, -410),
        'ankle': (-40, 115, -820),
        'heel': (-90, 115, -870),
        'foot_index': (110, 130, -880),
    }
    body = []
    for name in BLAZEPOSE_33.joint_names:
        words = [word for word in name.split('_') if word not in ('left', 'right')]
        forward, aside, height = positions_mm['_'.join(words)]
        body.append((forward, aside * (-1 if 'right' in name else 1), height))
    up = up / np.linalg.norm(up)
    ahead = np.cross(up, (1.0, 0, 0) if abs(up[0]) < 0.9 else (0, 1.0, 0))
    ahead /= np.linalg.norm(ahead)
    side = np.cross(up, ahead)
    forward = np.cos(facing) * ahead + np.sin(facing) * side
    return np.array(body) @ np.stack([forward, np.cross(up, forward), up])
