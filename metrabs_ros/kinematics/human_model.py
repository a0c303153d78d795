"""The human of ROS4HRI: its kinematic tree for any segment lengths, and its landmarks."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.kinematics.human_urdf import MM_PER_M, PROPORTIONS, SEGMENTS, urdf_text
from metrabs_ros.kinematics.kinematic_tree import KinematicTree, parse_urdf
from metrabs_ros.kinematics.landmarks import FACE, LANDMARKS

FACE_POINTS = np.array(
    [[1.1, 0.0, 0.85], [0.9, 0.35, 1.15], [0.9, -0.35, 1.15], [0.0, 0.7, 1.0], [0.0, -0.7, 1.0]]
)
"""Nose, eyes and ears in the frame of the head's joints, in head radii; not part of the URDF."""
LINKS_OF_LANDMARKS = tuple(
    f'{side}_{link}'
    for link in ('y_shoulder', 'elbow', 'wrist', 'y_hip', 'knee', 'ankle')
    for side in ('l', 'r')
)
"""Links whose origins are the landmarks after those of the face."""
ANY_ID = 'id'


@dataclasses.dataclass(frozen=True)
class HumanModel:
    """
    Kinematic tree of people with any segment lengths.

    Parameters
    ----------
    tree
        L links and A angles; its lengths are those of the template.
    origins_per_length
        [L, 3, 9], derivatives of the origins with respect to the lengths of the segments.
    """

    tree: KinematicTree
    origins_per_length: FloatArray

    def origins_mm(self, lengths_mm: FloatArray) -> FloatArray:
        """Return the origins [N, L, 3] of the links of people with lengths [N, 9]."""
        return np.moveaxis(self.origins_per_length @ lengths_mm.T, -1, 0)

    def landmarks_mm(self, angles: FloatArray, lengths_mm: FloatArray) -> FloatArray:
        """
        Return the landmarks of people, [N, 17, 3], in the frames of their bodies.

        Parameters
        ----------
        angles
            [N, A], radians.
        lengths_mm
            [N, 9].
        """
        rotations, positions_mm = self.tree.forward(angles, self.origins_mm(lengths_mm))
        landmarks_mm = np.empty((len(angles), len(LANDMARKS), 3))
        head = self.tree.index('p_head')
        face_mm = lengths_mm[:, SEGMENTS.index('head_radius'), None, None] * FACE_POINTS
        landmarks_mm[:, FACE] = positions_mm[:, None, head] + face_mm @ np.swapaxes(
            rotations[:, head], -1, -2
        )
        links = [self.tree.index(name) for name in LINKS_OF_LANDMARKS]
        landmarks_mm[:, len(FACE_POINTS) :] = positions_mm[:, links]
        return landmarks_mm


@functools.cache
def human_model() -> HumanModel:
    """
    Return the model, from the URDF that is published for people.

    The origins of links are linear in the lengths.  Their derivatives are those of the parsed
    URDF, so that the model cannot differ from it.

    Raises
    ------
    ImportError
        If `urdf_parser_py` is not installed.
    """
    lengths_mm = MM_PER_M * PROPORTIONS
    tree = parse_urdf(urdf_text(ANY_ID, lengths_mm), f'_{ANY_ID}')
    steps_mm = MM_PER_M * np.eye(len(SEGMENTS))
    changed = [parse_urdf(urdf_text(ANY_ID, lengths_mm + step_mm)) for step_mm in steps_mm]
    differences_mm = [other.origins_mm - tree.origins_mm for other in changed]
    return HumanModel(tree, np.round(np.stack(differences_mm, axis=-1) / MM_PER_M, 4))
