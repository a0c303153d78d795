"""Convert between people, in millimetres, and SkeletonArray messages, in metres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.message_types import MessageTypes
from metrabs_ros.people import MAX_MAGNITUDE, MM_PER_M, People
from metrabs_ros.skeletons.conventions import Skeleton


def to_metres(lengths_mm: FloatArray) -> FloatArray:
    """Convert lengths from millimetres to metres (REP 103)."""
    return lengths_mm / MM_PER_M


def to_message(people: People, header: Any, types: MessageTypes) -> Any:
    """
    Convert people to a SkeletonArray message.

    Parameters
    ----------
    people
        The people, in the frame of the header.
    header
        Header with the stamp of the image.
    types
        Constructors of the message types.
    """
    point, vector, image_point = types.Point, types.Vector3, types.ImagePoint
    positions = to_metres(people.poses3d_mm).tolist()
    image_points = people.poses2d_px.tolist()
    network_points = people.network_poses2d_px.tolist()
    deviations = to_metres(people.joint_std_mm).tolist()
    velocities = to_metres(people.velocities_mm_s).tolist()
    axis_deviations = to_metres(people.axis_std_mm).tolist()
    statures = to_metres(known_or_zero(people.estimated_statures_mm)).tolist()
    skeletons = []
    for i in range(len(people)):
        left, top, width, height = people.boxes_px[i].tolist()
        skeletons.append(
            types.Skeleton(
                id=int(people.ids[i]),
                age=float(people.ages_s[i]),
                seen=bool(people.seen[i]),
                confidence=float(people.confidence[i]),
                box_left=left,
                box_top=top,
                box_width=width,
                box_height=height,
                positions=[point(x=x, y=y, z=z) for x, y, z in positions[i]],
                velocities=[vector(x=x, y=y, z=z) for x, y, z in velocities[i]],
                standard_deviations=deviations[i],
                confidences=people.joint_confidence[i].tolist(),
                image_points=[image_point(x=x, y=y) for x, y in image_points[i]],
                in_view=people.in_view[i].tolist(),
                stature=statures[i],
                scale_source=int(people.scale_cues[i]),
                axis_standard_deviations=[vector(x=x, y=y, z=z) for x, y, z in axis_deviations[i]],
                network_image_points=[image_point(x=x, y=y) for x, y in network_points[i]],
            )
        )
    return types.SkeletonArray(
        header=header,
        skeleton_name=people.skeleton.name,
        joint_names=list(people.skeleton.joint_names),
        joint_edges=[joint for edge in people.skeleton.edges for joint in edge],
        skeletons=skeletons,
    )


def known_or_zero(statures_mm: FloatArray) -> FloatArray:
    """Return statures [N] with 0 for unknown ones, because messages have only finite values."""
    # Comparisons with NaN are false.
    is_known = (statures_mm > 0) & (statures_mm < MAX_MAGNITUDE)
    return np.where(is_known, statures_mm, 0.0)


def _positive_or_nan(statures_mm: FloatArray) -> FloatArray:
    """Return statures [N] of messages, with NaN for unknown and invalid ones."""
    return np.where(known_or_zero(statures_mm) > 0, statures_mm, np.nan)


def to_people(message: Any) -> People:
    """Convert a SkeletonArray message to people."""
    return people_of(message.skeletons, skeleton_of(message))


def skeleton_of(message: Any) -> Skeleton:
    """Return the skeleton of a SkeletonArray message."""
    edges = np.array(message.joint_edges, int).reshape(-1, 2)
    return Skeleton(
        message.skeleton_name,
        tuple(message.joint_names),
        tuple((int(a), int(b)) for a, b in edges),
    )


def people_of(skeletons: Sequence[Any], skeleton: Skeleton) -> People:
    """Convert Skeleton messages with the joints of a skeleton to people."""
    joints = len(skeleton)
    return People(
        skeleton=skeleton,
        boxes_px=np.array(
            [[s.box_left, s.box_top, s.box_width, s.box_height] for s in skeletons], float
        ).reshape(-1, 4),
        confidence=np.array([s.confidence for s in skeletons], float),
        poses3d_mm=MM_PER_M
        * np.array([[(p.x, p.y, p.z) for p in s.positions] for s in skeletons], float).reshape(
            -1, joints, 3
        ),
        poses2d_px=np.array(
            [[(p.x, p.y) for p in s.image_points] for s in skeletons], float
        ).reshape(-1, joints, 2),
        joint_confidence=np.array([s.confidences for s in skeletons], float).reshape(-1, joints),
        in_view=np.array([s.in_view for s in skeletons], bool).reshape(-1, joints),
        ids=np.array([s.id for s in skeletons], np.int64),
        joint_std_mm=MM_PER_M
        * np.array([s.standard_deviations for s in skeletons], float).reshape(-1, joints),
        velocities_mm_s=MM_PER_M
        * np.array([[(v.x, v.y, v.z) for v in s.velocities] for s in skeletons], float).reshape(
            -1, joints, 3
        ),
        ages_s=np.array([s.age for s in skeletons], float),
        seen=np.array([s.seen for s in skeletons], bool),
        axis_std_mm=MM_PER_M
        * np.array(
            [[(v.x, v.y, v.z) for v in s.axis_standard_deviations] for s in skeletons], float
        ).reshape(-1, joints, 3),
        network_poses2d_px=np.array(
            [[(p.x, p.y) for p in s.network_image_points] for s in skeletons], float
        ).reshape(-1, joints, 2),
        estimated_statures_mm=_positive_or_nan(
            MM_PER_M * np.array([s.stature for s in skeletons], float)
        ),
        scale_cues=np.array([s.scale_source for s in skeletons], np.uint8),
    )
