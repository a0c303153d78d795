"""
URDF of a person with given segment lengths, compatible with the `human_description` package.

Names, axes and limits of the joints are those of its template, because tools of ROS4HRI look them
up.  The lengths are the person's own.  One pair of limits differs, that of `y_hip`: in the
template, it is the same on both sides about the same axis, so that the left leg can only turn
inwards, and the right leg outwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from metrabs_ros.arrays import FloatArray

SEGMENTS = (
    *('head_radius', 'neck', 'shoulder', 'upper_arm', 'forearm'),
    *('torso', 'hips', 'thigh', 'shank'),
)
"""
Segments whose lengths define a person.

`shoulder` is half the distance between the shoulders, `hips` the distance between the hips, and
`torso` the distance between the midpoints of the hips and of the shoulders.
"""
PROPORTIONS = np.array([0.5, 0.25, 0.8, 1.6, 1.0, 2.75, 1.2, 1.5, 2.0]) / 7.5
"""Lengths of the segments in the template, as shares of the stature."""
MM_PER_M = 1000.0
"""URDF files are in metres (REP 103)."""
LIMB_RADIUS_M = 0.03
EFFORT, SPEED = '1000', '0.5'
"""Limits that URDF requires, as in the template."""
Y_HIP_LIMITS = (-1.5, 1.5)
"""Limits of the yaw of the legs; -0.1 and 0.6 in the template."""
SIDES = {'l': 1, 'r': -1}
"""Signs of the y axis, which points to the left, on both sides of the body."""

Vector = Sequence[float]


def urdf_text(body_id: str, lengths_mm: FloatArray) -> str:
    """
    Return the URDF of a person.

    The root link is at the midpoint of the hips, x points forward, y to the left, and z to the
    head.  With all angles 0, the person stands and the arms hang down.

    Parameters
    ----------
    body_id
        Suffix of the names of all links and joints.
    lengths_mm
        [9], lengths of `SEGMENTS`, millimetres.
    """
    robot = ElementTree.Element('robot', name='human')
    for name, colour in (('skin', '1 0.7 0 1'), ('joint', '0.9 0.6 0 1'), ('eye', '0 0 0 1')):
        material = ElementTree.SubElement(robot, 'material', name=name)
        ElementTree.SubElement(material, 'color', rgba=colour)
    parts = _Parts(robot, body_id)
    length = dict(zip(SEGMENTS, (lengths_mm / MM_PER_M).tolist()))
    _add_trunk(parts, length)
    _add_head(parts, length)
    for side in SIDES:
        _add_arm(parts, side, length)
    for side in SIDES:
        _add_leg(parts, side, length)
    return ElementTree.tostring(robot, encoding='unicode')


class _Parts:
    """Adds links and joints to a robot; their names end with the id of the body."""

    def __init__(self, robot: ElementTree.Element, body_id: str) -> None:
        self._robot = robot
        self._id = body_id

    def link(self, name: str) -> ElementTree.Element:
        return ElementTree.SubElement(self._robot, 'link', name=f'{name}_{self._id}')

    def joint(
        self,
        name: str,
        parent: str,
        child: str,
        xyz: Vector,
        axis: Vector | None = None,
        limits: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add a joint that rotates about an axis; without an axis, a fixed one."""
        kind = 'fixed' if axis is None else 'revolute'
        joint = ElementTree.SubElement(self._robot, 'joint', name=f'{name}_{self._id}', type=kind)
        ElementTree.SubElement(joint, 'parent', link=f'{parent}_{self._id}')
        ElementTree.SubElement(joint, 'child', link=f'{child}_{self._id}')
        ElementTree.SubElement(joint, 'origin', xyz=_text(xyz), rpy='0 0 0')
        if axis is not None:
            ElementTree.SubElement(joint, 'axis', xyz=_text(axis))
            low, high = (f'{limit:g}' for limit in limits)
            ElementTree.SubElement(
                joint, 'limit', lower=low, upper=high, effort=EFFORT, velocity=SPEED
            )


def _add_trunk(parts: _Parts, length: dict[str, float]) -> None:
    hips, torso, shoulder = length['hips'], length['torso'], length['shoulder']
    body = parts.link('body')
    _add_cylinder(body, hips, (0, 0, 0), (np.pi / 2, 0, 0))
    parts.link('waist')
    parts.joint('waist', 'body', 'waist', (0, 0, 0), (0, 1, 0), (-0.2, 1.0))
    link = parts.link('torso')
    _add_cylinder(link, torso, (0, 0, -torso / 2))
    _add_cylinder(link, 2 * shoulder, (0, 0, 0), (np.pi / 2, 0, 0))
    _add_cylinder(link, length['neck'], (0, 0, length['neck'] / 2))
    parts.joint('torso', 'waist', 'torso', (0, 0, torso))


def _add_head(parts: _Parts, length: dict[str, float]) -> None:
    radius = length['head_radius']
    for name in ('r_head', 'y_head', 'p_head'):
        parts.link(name)
    parts.joint('r_head', 'torso', 'r_head', (0, 0, length['neck']), (1, 0, 0), (-1.0, 1.0))
    parts.joint('y_head', 'r_head', 'y_head', (0, 0, 0), (0, 0, 1), (-1.4, 1.4))
    parts.joint('p_head', 'y_head', 'p_head', (0, 0, 0), (0, -1, 0), (-1.5, 1.5))
    head = parts.link('head')
    _add_sphere(head, radius, (-radius / 2, 0, 0), 'skin')
    for side in SIDES.values():
        eye = (0.4 * radius, side * 0.4 * radius, 0)
        _add_sphere(head, radius / 5, eye, 'eye')
    parts.joint('head', 'p_head', 'head', (radius / 2, 0, radius))


def _add_arm(parts: _Parts, side: str, length: dict[str, float]) -> None:
    sign, upper, fore = SIDES[side], length['upper_arm'], length['forearm']
    start = (0, sign * length['shoulder'], 0)
    names = [f'{side}_{part}' for part in ('y_shoulder', 'p_shoulder', 'shoulder', 'elbow')]
    yaw, pitch, shoulder, elbow = names
    _add_sphere(parts.link(yaw), LIMB_RADIUS_M, (0, 0, 0), 'joint')
    parts.joint(yaw, 'torso', yaw, start, (0, 0, -sign), (-1.1, 1.9))
    parts.link(pitch)
    parts.joint(pitch, yaw, pitch, (0, 0, 0), (sign, 0, 0), (-0.4, 3.3))
    _add_limb(parts.link(shoulder), upper)
    parts.joint(f'{side}_r_shoulder', pitch, shoulder, (0, 0, 0), (0, 0, sign), (-1.7, 1.5))
    _add_limb(parts.link(elbow), fore)
    parts.joint(elbow, shoulder, elbow, (0, 0, -upper), (0, -1, 0), (0.0, 2.5))
    wrist = f'{side}_wrist'
    parts.link(wrist)
    parts.joint(wrist, elbow, wrist, (0, 0, -fore))


def _add_leg(parts: _Parts, side: str, length: dict[str, float]) -> None:
    sign, thigh, shank = SIDES[side], length['thigh'], length['shank']
    start = (0, sign * length['hips'] / 2, 0)
    names = [f'{side}_{part}' for part in ('y_hip', 'p_hip', 'hip', 'knee')]
    yaw, pitch, hip, knee = names
    _add_sphere(parts.link(yaw), LIMB_RADIUS_M, (0, 0, 0), 'joint')
    # As in the template, this axis is the same on both sides.
    parts.joint(yaw, 'body', yaw, start, (0, 0, -1), Y_HIP_LIMITS)
    parts.link(pitch)
    parts.joint(pitch, yaw, pitch, (0, 0, 0), (sign, 0, 0), (-0.4, 3.3))
    _add_limb(parts.link(hip), thigh)
    parts.joint(f'{side}_r_hip', pitch, hip, (0, 0, 0), (0, -1, 0), (-0.4, 0.7))
    _add_limb(parts.link(knee), shank)
    parts.joint(knee, hip, knee, (0, 0, -thigh), (0, -1, 0), (-2.5, 0.0))
    ankle = f'{side}_ankle'
    parts.link(ankle)
    parts.joint(ankle, knee, ankle, (0, 0, -shank))


def _add_limb(link: ElementTree.Element, length: float) -> None:
    """Add the shape of a limb that hangs down from the origin."""
    _add_cylinder(link, length, (0, 0, -length / 2))
    _add_sphere(link, LIMB_RADIUS_M, (0, 0, -length), 'skin')


def _add_cylinder(
    link: ElementTree.Element, length: float, xyz: Vector, rpy: Vector = (0, 0, 0)
) -> None:
    geometry = _add_visual(link, xyz, rpy, 'skin')
    ElementTree.SubElement(
        geometry, 'cylinder', length=f'{length:.6g}', radius=f'{LIMB_RADIUS_M:g}'
    )


def _add_sphere(link: ElementTree.Element, radius: float, xyz: Vector, material: str) -> None:
    geometry = _add_visual(link, xyz, (0, 0, 0), material)
    ElementTree.SubElement(geometry, 'sphere', radius=f'{radius:.6g}')


def _add_visual(
    link: ElementTree.Element, xyz: Vector, rpy: Vector, material: str
) -> ElementTree.Element:
    """Add a shape to a link and return the element of its geometry."""
    visual = ElementTree.SubElement(link, 'visual')
    ElementTree.SubElement(visual, 'origin', xyz=_text(xyz), rpy=_text(rpy))
    geometry = ElementTree.SubElement(visual, 'geometry')
    ElementTree.SubElement(visual, 'material', name=material)
    return geometry


def _text(values: Vector) -> str:
    return ' '.join(f'{value:.6g}' for value in values)
