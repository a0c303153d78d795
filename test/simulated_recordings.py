"""Simulated rooms as input of the extrinsic calibration: people with track ids, and bags."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

import cv2
import numpy as np
from recorded_transforms import OPTICAL, transform_message, tree
from rosbags.rosbag2 import StoragePlugin, Writer
from simulated_rooms import Room, frames, simulated_cameras

from metrabs_ros.conversions.people import to_message
from metrabs_ros.fusion.calibration import Calibration
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.people import People
from metrabs_ros.recordings.typestore import (
    SKELETONS,
    TRANSFORMS,
    header_at,
    message_types,
    typestore,
)

MEAN_TRACK_S = 10.0
"""The trackers of single cameras lose people and give them new ids after such times."""


def tracked_frames(
    room: Room, rate_hz: float, length_s: float, seed: int = 0, noise: float = 1.0
) -> list[CameraPeople]:
    """Return what all cameras of a room see, with ids of tracks that change now and then."""
    rng = np.random.default_rng(seed)
    ids: dict[tuple[str, int], int] = {}
    result, last = [], 0
    for frame, who in frames(room, simulated_cameras(room, rate_hz, seed, noise), length_s):
        own = []
        for person in who.tolist():
            key = frame.camera_name, person
            is_lost = rng.random() < 1 / (MEAN_TRACK_S * rate_hz)
            if person < 0 or key not in ids or is_lost:
                last += 1
                ids[key] = last
            own.append(ids[key])
        result.append(dataclasses.replace(frame, track_ids=np.array(own, np.int64)))
    return result


@dataclasses.dataclass(frozen=True)
class PoseErrors:
    """
    Errors of C - 1 cameras relative to the first one, and of the world frame.

    Parameters
    ----------
    degrees, millimetres, distances_mm
        [C - 1], rotation, position up to the common scale, and true distance.
    scale
        Estimated scale of the scene.
    tilt_degrees, height_mm
        Of the first camera in the world.
    """

    degrees: np.ndarray
    millimetres: np.ndarray
    distances_mm: np.ndarray
    scale: float
    tilt_degrees: float
    height_mm: float


def pose_errors(calibration: Calibration, room: Room) -> PoseErrors:
    """Compare a calibration with the truth."""
    true = np.stack([room.cameras[own.name].extrinsic_matrix for own in calibration.cameras])
    found = np.stack([own.camera.extrinsic_matrix for own in calibration.cameras])
    # From the first camera to each one; positions of cameras in the frame of the first.
    from_first, found_first = (own @ np.linalg.inv(own[0]) for own in (true, found))
    places, found_places = (np.linalg.inv(own)[1:, :3, 3] for own in (from_first, found_first))
    scale = (found_places * places).sum() / (places**2).sum()
    turns = from_first[1:, :3, :3] @ np.swapaxes(found_first[1:, :3, :3], 1, 2)
    up, found_up = true[0, :3, 2], found[0, :3, 2]
    return PoseErrors(
        np.degrees([np.linalg.norm(cv2.Rodrigues(turn)[0]) for turn in turns]),
        np.linalg.norm(found_places / scale - places, axis=1),
        np.linalg.norm(places, axis=1),
        float(scale),
        float(np.degrees(np.arccos(np.clip(up @ found_up, -1, 1)))),
        float(np.linalg.inv(found[0])[2, 3] - np.linalg.inv(true[0])[2, 3]),
    )


def write_bag(
    folder: pathlib.Path,
    people: Iterable[CameraPeople],
    with_mounts: bool = False,
    topic: str = '/{}/pose/skeletons',
) -> pathlib.Path:
    """
    Write people as the pose node publishes them.

    Parameters
    ----------
    folder
        Folder of the bag.
    people
        Frames of all cameras.
    with_mounts
        Whether the bag has a static transform from the optical frame to another frame of each
        camera, as camera drivers publish it.
    topic
        Name of the topics, with the name of the camera as ``{}``.
    """
    people = list(people)
    types, store = message_types(), typestore()
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    with writer:
        if with_mounts:
            static = writer.add_connection('/tf_static', TRANSFORMS, typestore=store)
            mounts = [
                transform_message(f'{name}_link', f'{name}_optical', 0, (0.1, 0, 0), OPTICAL)
                for name in dict.fromkeys(own.camera_name for own in people)
            ]
            writer.write(static, 0, store.serialize_cdr(tree(*mounts), TRANSFORMS))
        connections = {}
        for own in people:
            name = own.camera_name
            if name not in connections:
                connections[name] = writer.add_connection(
                    topic.format(name), SKELETONS, typestore=store
                )
            stamp_ns = round(own.stamp_s * 1e9)
            message = to_message(in_camera(own), header_at(stamp_ns, f'{name}_optical'), types)
            writer.write(connections[name], stamp_ns, store.serialize_cdr(message, SKELETONS))
    return folder


def in_camera(own: CameraPeople) -> People:
    """Return people in the camera frame; `poses2d_px` are projections, as in skeletons."""
    poses_mm = own.camera.from_world(own.poses3d_mm)
    count, joints = own.joint_confidence.shape
    return People(
        own.skeleton,
        np.zeros((count, 4)),
        np.full(count, 0.9),
        poses_mm,
        own.camera.project(poses_mm),
        own.joint_confidence,
        np.ones((count, joints), bool),
        own.track_ids,
        axis_std_mm=own.axis_std_mm,
        network_poses2d_px=own.points2d_px,
    )
