"""Between people, in millimetres, and skeleton messages, in metres."""

from __future__ import annotations

import array

import numpy as np
from geometry_msgs.msg import Point, Vector3
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from metrabs_ros import drawing
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.msg import ImagePoint, Skeleton, SkeletonArray
from metrabs_ros.people import People
from metrabs_ros.skeleton import Skeleton as Convention

MM_PER_M = 1000.0


def to_metres(lengths_mm: FloatArray) -> FloatArray:
    """Return lengths in the unit of ROS."""
    return lengths_mm / MM_PER_M


def to_message(people: People, header: Header) -> SkeletonArray:
    """
    Return the message that describes people.

    Parameters
    ----------
    people
        In the frame of the header.
    header
        With the image's stamp.
    """
    message = SkeletonArray()
    message.header = header
    message.skeleton_name = people.skeleton.name
    message.joint_names = list(people.skeleton.joint_names)
    message.joint_edges = [joint for edge in people.skeleton.edges for joint in edge]
    positions = to_metres(people.poses3d_mm).tolist()
    image_points = people.poses2d_px.tolist()
    deviations = to_metres(people.joint_std_mm).tolist()
    velocities = to_metres(people.velocities_mm_s).tolist()
    for i in range(len(people)):
        skeleton = Skeleton()
        skeleton.id = int(people.ids[i])
        skeleton.age = float(people.ages_s[i])
        skeleton.seen = bool(people.seen[i])
        skeleton.confidence = float(people.confidence[i])
        (
            skeleton.box_left,
            skeleton.box_top,
            skeleton.box_width,
            skeleton.box_height,
        ) = people.boxes_px[i].tolist()
        skeleton.positions = [Point(x=x, y=y, z=z) for x, y, z in positions[i]]
        skeleton.velocities = [Vector3(x=x, y=y, z=z) for x, y, z in velocities[i]]
        skeleton.standard_deviations = deviations[i]
        skeleton.confidences = people.joint_confidence[i].tolist()
        skeleton.image_points = [ImagePoint(x=x, y=y) for x, y in image_points[i]]
        skeleton.in_view = people.in_view[i].tolist()
        message.skeletons.append(skeleton)
    return message


def annotated_image(image: ImageArray, people: People, header: Header) -> Image:
    """Return an image [H, W, 3], uint8, RGB, with people drawn onto it."""
    picture = np.ascontiguousarray(image[..., ::-1])
    if np.shares_memory(picture, image):
        picture = picture.copy()
    drawing.draw_people(picture, people)
    message = Image(header=header, encoding='bgr8')
    message.height, message.width = picture.shape[:2]
    message.step = 3 * message.width
    message.data = array.array('B', picture.tobytes())
    return message


def to_people(message: SkeletonArray) -> People:
    """Return the people that a message describes."""
    edges = np.array(message.joint_edges, int).reshape(-1, 2)
    convention = Convention(
        message.skeleton_name,
        tuple(message.joint_names),
        tuple((int(a), int(b)) for a, b in edges),
    )
    skeletons = message.skeletons
    joints = len(convention)
    return People(
        skeleton=convention,
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
    )
