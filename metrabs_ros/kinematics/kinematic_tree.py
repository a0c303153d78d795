"""Kinematic tree of a URDF, and its forward kinematics for several people at once."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.kinematics.human_urdf import MM_PER_M

ROOT = -1
"""Parent of the root link."""
FIXED = -1
"""Angle of links that are fixed to their parent."""


@dataclasses.dataclass(frozen=True)
class KinematicTree:
    """
    L links, each connected to its parent by a joint; A of the joints rotate.

    Parameters
    ----------
    link_names
        [L], parents first.
    parents
        [L], index of each link's parent; `ROOT` for the root.
    angle_indices
        [L], index of the angle between each link and its parent; `FIXED` if it has none.
    axes
        [L, 3], unit vectors; zero for fixed links.
    origins_mm
        [L, 3], position in the frame of the parent; frames are parallel at angles of 0.
    angle_names
        [A], names of the rotating joints, in the order of the URDF.
    lower, upper
        [A], limits of the angles, radians.
    """

    link_names: tuple[str, ...]
    parents: NDArray[np.intp]
    angle_indices: NDArray[np.intp]
    axes: FloatArray
    origins_mm: FloatArray
    angle_names: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray

    def __len__(self) -> int:
        """Return the number of links."""
        return len(self.link_names)

    def index(self, link: str) -> int:
        """Return the index of a link."""
        return self.link_names.index(link)

    @functools.cached_property
    def _levels(self) -> list[NDArray[np.intp]]:
        """Links by their distance from the root, without the root."""
        depths = np.zeros(len(self), np.intp)
        for i, parent in enumerate(self.parents.tolist()):
            depths[i] = 0 if parent == ROOT else depths[parent] + 1
        return [np.flatnonzero(depths == depth) for depth in range(1, int(depths.max()) + 1)]

    @functools.cached_property
    def _crosses(self) -> FloatArray:
        """Matrices [2, L, 3, 3] of the cross product with each axis, and their squares."""
        x, y, z = self.axes.T
        zero = np.zeros_like(x)
        cross = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
        return np.stack([cross, cross @ cross])

    def joint_rotations(self, angles: FloatArray) -> FloatArray:
        """Return the rotations [N, L, 3, 3] of links relative to their parents, for [N, A]."""
        angles = np.where(self.angle_indices == FIXED, 0.0, angles[:, self.angle_indices])
        cross, square = self._crosses
        sines, versines = np.sin(angles)[..., None, None], 1 - np.cos(angles)[..., None, None]
        return np.eye(3) + sines * cross + versines * square

    def joint_quaternions(self, angles: FloatArray) -> FloatArray:
        """Return the rotations of `joint_rotations` as quaternions (x, y, z, w), [N, L, 4]."""
        angles = np.where(self.angle_indices == FIXED, 0.0, angles[:, self.angle_indices])
        half = angles[..., None] / 2
        return np.concatenate([np.sin(half) * self.axes, np.cos(half)], axis=-1)

    def forward(
        self, angles: FloatArray, origins_mm: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """
        Return the poses of all links in the frame of the root.

        Parameters
        ----------
        angles
            [N, A], radians.
        origins_mm
            [N, L, 3], as in the tree, for people with other lengths.

        Returns
        -------
        Rotations [N, L, 3, 3] and positions [N, L, 3] in millimetres.
        """
        if origins_mm is None:
            origins_mm = np.broadcast_to(self.origins_mm, (len(angles), *self.origins_mm.shape))
        local = self.joint_rotations(angles)
        rotations = np.empty_like(local)
        rotations[:, self.parents == ROOT] = np.eye(3)
        positions_mm = np.zeros(local.shape[:-1])
        for links in self._levels:
            parents = self.parents[links]
            turned_mm = (rotations[:, parents] @ origins_mm[:, links, :, None])[..., 0]
            positions_mm[:, links] = positions_mm[:, parents] + turned_mm
            rotations[:, links] = rotations[:, parents] @ local[:, links]
        return rotations, positions_mm


def parse_urdf(text: str, suffix: str = '') -> KinematicTree:
    """
    Parse a URDF whose joints are fixed or revolute.

    Parameters
    ----------
    text
        The URDF.
    suffix
        End of all names, which is removed.

    Raises
    ------
    ImportError
        If `urdf_parser_py` is not installed.
    ValueError
        If the URDF has other joints, or joints whose origin is rotated.
    """
    joints = _load_parser().from_xml_string(text.encode()).joints
    parent_of = {joint.child: joint.parent for joint in joints}
    (root,) = set(parent_of.values()) - set(parent_of)
    order = [root]
    # Depth first, in the order of the URDF.
    by_child = {joint.child: joint for joint in joints}
    waiting = list(by_child)
    while waiting:
        ready = next(link for link in waiting if parent_of[link] in order)
        waiting.remove(ready)
        order.append(ready)
    revolute = [joint for joint in joints if joint.type == 'revolute']
    angle_of = {joint.child: i for i, joint in enumerate(revolute)}
    axes, origins_m = np.zeros((2, len(order), 3))
    for i, link in enumerate(order[1:], 1):
        _check(by_child[link])
        origins_m[i] = by_child[link].origin.xyz
        if link in angle_of:
            axes[i] = by_child[link].axis
    limits = np.array([(joint.limit.lower, joint.limit.upper) for joint in revolute])
    return KinematicTree(
        tuple(name.removesuffix(suffix) for name in order),
        np.array([order.index(parent_of[link]) if link != root else ROOT for link in order]),
        np.array([angle_of.get(link, FIXED) for link in order]),
        axes,
        origins_m * MM_PER_M,
        tuple(joint.name.removesuffix(suffix) for joint in revolute),
        limits[:, 0],
        limits[:, 1],
    )


def _check(joint: Any) -> None:
    if joint.type not in ('fixed', 'revolute'):
        raise ValueError(f'joint {joint.name} is {joint.type}; it must be fixed or revolute')
    if any(joint.origin.rpy):
        raise ValueError(
            f'the origin of joint {joint.name} is rotated by {joint.origin.rpy}; only parallel '
            'frames are supported'
        )


def _load_parser() -> Any:
    try:
        from urdf_parser_py.urdf import URDF
    except ImportError as error:
        raise ImportError(
            'the URDF of people needs the package urdf_parser_py; install it with apt install '
            'ros-$ROS_DISTRO-urdfdom-py, or with pip install urdf-parser-py'
        ) from error
    return URDF
