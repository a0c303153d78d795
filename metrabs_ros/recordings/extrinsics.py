"""Extrinsics of cameras as YAML files of static transforms, and a launch file that sends them."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.conversions.transforms import quaternions, rotation_matrix
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.calibration import CalibratedCamera, Calibration
from metrabs_ros.recordings.input_files import UnusableFile, read_input
from metrabs_ros.recordings.plain_yaml import UnusableYaml, load_yaml
from metrabs_ros.recordings.recorded_people import ancestors
from metrabs_ros.recordings.transform_buffer import TransformBuffer
from metrabs_ros.regular_file import shown

MAX_FILE_BYTES = 2**20
MM_PER_M = 1000.0
MAX_POSITION_M = 1e6
NORM_TOLERANCE = 0.01
DIGITS = 6

HEADER = """\
# Poses of cameras, estimated by metrabs_ros calibrate from the people that they see.
# Each entry is a static transform from child_frame to parent_frame: metres, quaternion x y z w.
# optical_* is the pose of the optical frame, if child_frame is another frame of the camera.
"""
LAUNCH_HEADER = '''"""Send the poses of cameras that metrabs_ros calibrate estimated."""

from launch import LaunchDescription
from launch_ros.actions import Node

# Parent frame, child frame, x, y, z in metres, quaternion x, y, z, w.
TRANSFORMS = (
'''
LAUNCH_FOOTER = ''')


def generate_launch_description():
    """Return one static_transform_publisher per camera."""
    names = ('frame-id', 'child-frame-id', 'x', 'y', 'z', 'qx', 'qy', 'qz', 'qw')
    return LaunchDescription(
        [
            Node(
                package='tf2_ros',
                executable='static_transform_publisher',
                arguments=[
                    text for name, value in zip(names, row) for text in (f'--{name}', str(value))
                ],
            )
            for row in TRANSFORMS
        ]
    )
'''


class UnusableExtrinsics(ValueError):  # noqa: N818
    """A file does not contain the poses of the cameras; the message states the reason."""


@dataclasses.dataclass(frozen=True)
class StaticTransform:
    """
    A static transform that is published for a camera.

    Parameters
    ----------
    parent, child
        Names of the frames.
    rotation, translation_m
        [3, 3] and [3], from the child to the parent, metres.
    """

    parent: str
    child: str
    rotation: FloatArray
    translation_m: FloatArray


def static_transforms(
    cameras: Sequence[CalibratedCamera],
    optical_frames: Mapping[str, str],
    world_frame: str,
    buffer: TransformBuffer,
    parents: Mapping[str, str],
) -> tuple[list[StaticTransform], list[str]]:
    """
    Return one transform for each camera, and warnings.

    A frame has one parent only.  If the optical frame already has one, as with most drivers, the
    transform is that of the uppermost frame that belongs to this camera alone.

    Parameters
    ----------
    cameras
        The calibrated cameras.
    optical_frames
        By the names of cameras.
    world_frame
        Name of the world frame.
    buffer, parents
        Static transforms of the recording, and the parent of each of their frames.
    """
    above = {own.name: ancestors(optical_frames[own.name], parents) for own in cameras}
    transforms, warnings = [], []
    for own in cameras:
        others = {frame for name in above if name != own.name for frame in above[name]}
        chain = above[own.name]
        ends = (k for k, frame in enumerate(chain) if frame in others or frame == world_frame)
        end = max(next(ends, len(chain)), 1)
        child = chain[end - 1]
        if parent := parents.get(child):
            warnings.append(
                f'{child} already has the parent {parent} in the recording; a frame can have one '
                'parent only: do not publish both transforms'
            )
        to_world = np.linalg.inv(own.camera.extrinsic_matrix)
        to_world[:3, 3] = to_metres(to_world[:3, 3])
        from_child = np.eye(4)
        if child != optical_frames[own.name]:
            known = buffer.lookup(optical_frames[own.name], child, 0)
            from_child[:3, :3], from_child[:3, 3] = known.rotation, known.translation_m
        matrix = to_world @ from_child
        transforms.append(StaticTransform(world_frame, child, matrix[:3, :3], matrix[:3, 3]))
    return transforms, warnings


def to_yaml(
    calibration: Calibration,
    transforms: Sequence[StaticTransform],
    optical_frames: Mapping[str, str],
) -> str:
    """Return the text of a YAML file with the poses of the cameras."""
    cameras: dict[str, Any] = {}
    for own, transform in zip(calibration.cameras, transforms):
        entry: dict[str, Any] = {
            'parent_frame': transform.parent,
            'child_frame': transform.child,
            'translation': _rounded(transform.translation_m),
            'rotation': _quaternion(transform.rotation),
        }
        optical = optical_frames[own.name]
        if optical != transform.child:
            to_world = np.linalg.inv(own.camera.extrinsic_matrix)
            entry['optical_frame'] = optical
            entry['optical_translation'] = _rounded(to_metres(to_world[:3, 3]))
            entry['optical_rotation'] = _quaternion(to_world[:3, :3])
        entry['translation_deviation'] = _number(own.position_std_mm / MM_PER_M)
        entry['rotation_deviation_degrees'] = _number(own.rotation_std_degrees)
        entry['reprojection_error_px'] = _number(own.error_px)
        entry['inliers'] = _number(own.inliers)
        entry['person_seconds_with'] = {
            name: round(overlap_s, 1) for name, overlap_s in own.overlaps_s.items()
        }
        cameras[own.name] = entry
    values: dict[str, Any] = {'cameras': cameras}
    if calibration.scale_std > 0:
        values['scale_deviation'] = _number(calibration.scale_std)
    if np.isfinite(calibration.tilt_std_degrees):
        values['tilt_deviation_degrees'] = _number(calibration.tilt_std_degrees)
        values['floor_deviation'] = _number(calibration.floor_std_mm / MM_PER_M)
    if calibration.left_out:
        values['left_out'] = dict(calibration.left_out)
    return HEADER + yaml.safe_dump(
        values, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120
    )


def to_launch_file(transforms: Sequence[StaticTransform]) -> str:
    """Return the text of a launch file that publishes static transforms."""
    rows = [
        (own.parent, own.child, *_rounded(own.translation_m), *_quaternion(own.rotation))
        for own in transforms
    ]
    return LAUNCH_HEADER + ''.join(f'    {row!r},\n' for row in rows) + LAUNCH_FOOTER


def read_extrinsics(file: pathlib.Path) -> dict[str, FloatArray]:
    """
    Read the poses of cameras from a file of `to_yaml`.

    Returns
    -------
    Extrinsic matrices [4, 4] by the names of cameras, from world to optical frames, millimetres.

    Raises
    ------
    UnusableExtrinsics
        If the file cannot be read, or has no poses.
    """
    try:
        values = load_yaml(read_input(file, MAX_FILE_BYTES).decode('utf-8'))
        cameras = values['cameras']
        poses = {str(name): _pose(str(name), entry) for name, entry in cameras.items()}
    except UnusableFile as error:
        raise UnusableExtrinsics(
            f'{shown(file)} cannot be read: {printable(error, 500)}'
        ) from error
    except (UnusableYaml, UnicodeDecodeError, ValueError) as error:
        raise UnusableExtrinsics(
            f'{shown(file)} has no usable poses of cameras: {printable(error, 500)}'
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableExtrinsics(
            f'{shown(file)} is not a file of metrabs_ros calibrate: it must have cameras, each '
            'with translation [x, y, z] and rotation [x, y, z, w]'
        ) from error
    if not poses:
        raise UnusableExtrinsics(f'{shown(file)} has no cameras')
    return poses


def _pose(name: str, entry: Mapping[str, Any]) -> FloatArray:
    prefix = 'optical_' if 'optical_rotation' in entry else ''
    translation = np.array(entry[f'{prefix}translation'], np.float64)
    quaternion = np.array(entry[f'{prefix}rotation'], np.float64)
    # The negated comparisons also reject NaN.
    if translation.shape != (3,) or not np.abs(translation).max() < MAX_POSITION_M:
        raise ValueError(f'the translation of {printable(name)} is not three finite metres')
    if quaternion.shape != (4,) or not abs(np.linalg.norm(quaternion) - 1) < NORM_TOLERANCE:
        raise ValueError(f'the rotation of {printable(name)} is not a quaternion of length 1')
    to_world = np.eye(4)
    to_world[:3, :3] = rotation_matrix(*quaternion)
    to_world[:3, 3] = MM_PER_M * translation
    extrinsic: FloatArray = np.linalg.inv(to_world)
    return extrinsic


def _rounded(values: FloatArray) -> list[float]:
    # Adding 0 turns -0.0 into 0.0.
    return [round(float(value), DIGITS) + 0.0 for value in values]


def _quaternion(rotation: FloatArray) -> list[float]:
    return _rounded(quaternions(rotation[None])[0])


def _number(value: float) -> float | None:
    return float(f'{value:.3g}') if np.isfinite(value) else None
