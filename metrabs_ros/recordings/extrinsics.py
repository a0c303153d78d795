"""Extrinsics of cameras as YAML files of static transforms, and a launch file that sends them."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.conversions.transforms import quaternions, rotation_matrix
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.calibration import CalibratedCamera, Calibration
from metrabs_ros.recordings.calibration import UnusableCalibration
from metrabs_ros.recordings.input_files import UnusableFile, join_names, read_input
from metrabs_ros.recordings.plain_yaml import UnusableYaml, load_yaml
from metrabs_ros.recordings.recorded_people import ancestors
from metrabs_ros.recordings.transform_buffer import TransformBuffer
from metrabs_ros.regular_file import shown

MAX_FILE_BYTES = 2**20
MM_PER_M = 1000.0
MAX_POSITION_M = 1e6
OPTICAL = '_optical_frame'
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


class UnusableExtrinsics(UnusableCalibration):
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
    buffer
        Static transforms of the recording.
    """
    parents = buffer.static_parents()
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
        If the file cannot be read, has no poses, or poses without a common frame.
    """
    try:
        transforms = read_transforms(file)
    except UnusableFile as error:
        raise UnusableExtrinsics(
            f'{shown(file)} cannot be read: {printable(error, 500)}'
        ) from error
    if not transforms:
        raise UnusableExtrinsics(f'{shown(file)} has no cameras')
    poses, roots = {}, set()
    for name in transforms:
        try:
            root, poses[name] = extrinsic_in_root(transforms, name)
        except ValueError as error:
            raise UnusableExtrinsics(f'{shown(file)}: {error}') from error
        roots.add(root)
    if len(roots) > 1:
        raise UnusableExtrinsics(
            f'{shown(file)} has poses in several frames: {join_names(sorted(roots))}; give all in '
            'one parent_frame, or in frames of other cameras of the file'
        )
    return poses


def read_transforms(file: pathlib.Path) -> dict[str, StaticTransform]:
    """
    Read the transforms of the optical frames of cameras from a file of `to_yaml`.

    Parents and children without a name are empty and `optical_frame`.

    Returns
    -------
    The transforms by the names of cameras.

    Raises
    ------
    UnusableFile
        If the file cannot be read.
    UnusableExtrinsics
        If it has other content.
    """
    data = read_input(file, MAX_FILE_BYTES)
    try:
        values = load_yaml(data.decode('utf-8'))
        if not isinstance(values, dict) or not isinstance(values.get('cameras'), dict):
            raise UnusableYaml('it has no mapping "cameras"')
        return {str(name): _transform(str(name), own) for name, own in values['cameras'].items()}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f'it has no {error.args[0]}' if isinstance(error, KeyError) else error
        raise UnusableExtrinsics(
            f'{shown(file)} is not a file of extrinsics: {printable(reason, 300)}'
        ) from error


def _transform(name: str, values: Any) -> StaticTransform:
    if not isinstance(values, dict):
        raise ValueError(f'the entry of {name} is not a mapping')
    # The transform of the optical frame, if child_frame is another frame of the camera.
    prefix = 'optical_' if 'optical_rotation' in values else ''
    child = values.get('optical_frame' if prefix else 'child_frame', optical_frame(name))
    quaternion = _components(values[f'{prefix}rotation'], 'rotation', 'xyzw')
    norm = float(np.linalg.norm(quaternion))
    if not abs(norm - 1) <= NORM_TOLERANCE:
        raise ValueError(f'the rotation of {name} is not a quaternion of norm 1 but {norm:g}')
    translation_m = _components(values[f'{prefix}translation'], 'translation', 'xyz')
    if not np.abs(translation_m).max() < MAX_POSITION_M:
        raise ValueError(f'the translation of {name} is {translation_m.tolist()} m')
    return StaticTransform(
        str(values.get('parent_frame', '')).lstrip('/'),
        str(child).lstrip('/'),
        rotation_matrix(*quaternion.tolist()),
        translation_m,
    )


def _components(values: Any, what: str, names: str) -> FloatArray:
    """Return the components of a vector, which is a mapping or a list."""
    if isinstance(values, dict):
        values = [values[name] for name in names]
    return finite_numbers(values, what, len(names))


def extrinsic_in_root(
    transforms: Mapping[str, StaticTransform], name: str
) -> tuple[str, FloatArray]:
    """
    Return the pose of a camera, through the frames of other cameras.

    Parameters
    ----------
    transforms
        Transforms of the cameras by their names.
    name
        Name of the camera.

    Returns
    -------
    The name of the first frame that belongs to no camera, and the matrix [4, 4] from it to the
    camera, millimetres.

    Raises
    ------
    ValueError
        If the frames are a cycle.
    """
    by_child = {own.child: own for own in transforms.values()}
    matrix = np.eye(4)
    own: StaticTransform | None = transforms[name]
    for _ in range(len(transforms)):
        assert own is not None
        to_parent = np.eye(4)
        to_parent[:3, :3], to_parent[:3, 3] = own.rotation, MM_PER_M * own.translation_m
        matrix, root = to_parent @ matrix, own.parent
        own = by_child.get(root)
        if own is None:
            return root, np.linalg.inv(matrix)
    raise ValueError(f'the parent frames of {printable(name)} are a cycle')


def optical_frame(name: str) -> str:
    """Return the default name of the optical frame of a camera."""
    return re.sub(r'[^A-Za-z0-9_/]', '_', name).strip('/') + OPTICAL


def finite_number(text: Any, name: str) -> float:
    """Return a value as a number; raise a `ValueError` if it is not one or not finite."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        raise ValueError(f'its {name} is {printable(text, 50)}, not a number') from None
    if not math.isfinite(value):
        raise ValueError(f'its {name} is {value}; it must be finite')
    return value


def finite_numbers(values: Any, name: str, count: int | None = None) -> FloatArray:
    """
    Return the numbers of a list, or of a list of lists.

    Raises
    ------
    ValueError
        If there is another count of numbers than the given one, or a number is not finite.
    """
    if not isinstance(values, list) or len(values) > 100:
        raise ValueError(f'its {name} is not a list of numbers')
    flat = [item for row in values for item in (row if isinstance(row, list) else [row])]
    if count is not None and len(flat) != count:
        raise ValueError(f'its {name} has {len(flat)} numbers; it must have {count}')
    return np.array([finite_number(value, name) for value in flat])


def _rounded(values: FloatArray) -> list[float]:
    # Adding 0 turns -0.0 into 0.0.
    return [round(float(value), DIGITS) + 0.0 for value in values]


def _quaternion(rotation: FloatArray) -> list[float]:
    return _rounded(quaternions(rotation[None])[0])


def _number(value: float) -> float | None:
    return float(f'{value:.3g}') if np.isfinite(value) else None
