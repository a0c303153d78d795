"""Calibrations of several cameras with their poses: Pose2Sim, Qualisys, or YAML files."""

from __future__ import annotations

import dataclasses
import pathlib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.cameras import scaling_about_corner
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MM_PER_M
from metrabs_ros.recordings.calibration import Calibration, UnusableCalibration, read_calibration
from metrabs_ros.recordings.extrinsics import (
    StaticTransform,
    extrinsic_in_root,
    finite_number,
    finite_numbers,
    optical_frame,
    read_transforms,
)
from metrabs_ros.recordings.input_files import (
    UnusableFile,
    is_folder,
    join_names,
    list_folder,
    read_input,
)
from metrabs_ros.regular_file import shown

MAX_FILE_BYTES = 2**20
MAX_CAMERAS = 64
MAX_SIZE_PX = 100_000
MAX_TRANSLATION_M = 1e4
MAX_ROTATION_ERROR = 0.01
"""Maximum deviation of a rotation matrix times its transpose from the identity, per element."""
SUBPIXELS = 64
"""Qualisys counts focal lengths and image positions in 64ths of a pixel."""
FACING_FORWARD = np.diag([1.0, -1.0, -1.0])
"""Qualisys' cameras look along -z with y up; optical frames along z with y down."""
MAX_ASPECT_ERROR = 0.02
"""Maximum ratio, minus 1, by which width and height of a video are scaled differently."""
EXTRINSICS_FILE = 'extrinsics.yaml'
YAML_SUFFIXES = ('.yaml', '.yml')
QUALISYS_SUFFIX, POSE2SIM_SUFFIX = '.qca.txt', '.toml'


@dataclasses.dataclass(frozen=True)
class PlacedCamera:
    """
    A calibrated camera and its pose.

    Parameters
    ----------
    name
        Name of the camera in the calibration.
    frame_id
        Name of its optical frame in TF.
    calibration
        Intrinsics and lens; a size of 0 if the calibration does not state it.
    extrinsic_matrix
        [4, 4], from the world, which has z up, to the camera, millimetres.
    """

    name: str
    frame_id: str
    calibration: Calibration
    extrinsic_matrix: FloatArray


def is_rig_calibration(path: pathlib.Path) -> bool:
    """Return whether the name of a file is that of a calibration of several cameras."""
    return path.name.lower().endswith((QUALISYS_SUFFIX, POSE2SIM_SUFFIX))


def read_rig(
    path: pathlib.Path, fixed_frame: str, warn: Callable[[str], None]
) -> dict[str, PlacedCamera]:
    """
    Read the calibrations and poses of several cameras.

    Parameters
    ----------
    path
        A ``.toml`` file of Pose2Sim, a ``.qca.txt`` file of Qualisys, or a folder with a ROS
        calibration per camera and `EXTRINSICS_FILE`.
    fixed_frame
        Name of the world frame, which is the parent in the extrinsics of a folder.
    warn
        Called with a message for each camera that cannot be used.

    Returns
    -------
    The cameras by name.

    Raises
    ------
    UnusableCalibration
        If the file cannot be read, is not a calibration, or has no camera that can be used.
    """
    try:
        if is_folder(path):
            cameras = _read_folder(path, fixed_frame, warn)
        elif path.name.lower().endswith(QUALISYS_SUFFIX):
            cameras = _usable(_qualisys_cameras(path), path, _from_qualisys, warn)
        elif path.name.lower().endswith(POSE2SIM_SUFFIX):
            cameras = _usable(_pose2sim_cameras(path), path, _from_pose2sim, warn)
        else:
            raise UnusableCalibration(
                f'the calibration {shown(path)} is neither a {POSE2SIM_SUFFIX} of Pose2Sim, a '
                f'{QUALISYS_SUFFIX} of Qualisys, nor a folder with {EXTRINSICS_FILE}'
            )
    except UnusableFile as error:
        raise UnusableCalibration(f'the calibration cannot be read: {error}') from error
    if not cameras:
        raise UnusableCalibration(f'{shown(path)} has no camera that can be used')
    return cameras


def resized(calibration: Calibration, width: int, height: int) -> Calibration:
    """
    Return the calibration of images of another size, as if they were resampled.

    Raises
    ------
    UnusableCalibration
        If the aspect ratio differs by more than `MAX_ASPECT_ERROR`.
    """
    own = calibration.width, calibration.height
    if own in ((width, height), (0, 0)):
        return dataclasses.replace(calibration, width=width, height=height)
    factors = np.array([width, height]) / own
    if not 1 / (1 + MAX_ASPECT_ERROR) <= factors[0] / factors[1] <= 1 + MAX_ASPECT_ERROR:
        raise UnusableCalibration(
            f'the images have {width} x {height} pixels, but the calibration is for {own[0]} x '
            f'{own[1]}'
        )
    k = scaling_about_corner(factors) @ np.array(calibration.k).reshape(3, 3)
    return dataclasses.replace(
        calibration, width=width, height=height, k=k.ravel().tolist(), p=_projection(k)
    )


def _usable(
    entries: list[tuple[str, Any]],
    path: pathlib.Path,
    convert: Callable[[str, Any], PlacedCamera],
    warn: Callable[[str], None],
) -> dict[str, PlacedCamera]:
    """Return the cameras of entries that are valid, by name; raise if names are not unique."""
    _check_names([name for name, _ in entries], path)
    cameras = {}
    for name, entry in entries:
        try:
            cameras[name] = convert(name, entry)
        except (ValueError, TypeError, KeyError, OverflowError, cv2.error) as error:
            reason = f'it has no {error.args[0]}' if isinstance(error, KeyError) else error
            warn(
                f'camera {printable(name, 100)} of {shown(path)} is not used: '
                f'{printable(reason, 300)}'
            )
    return cameras


def _check_names(names: list[str], path: pathlib.Path) -> None:
    if len(names) > MAX_CAMERAS:
        raise UnusableCalibration(
            f'{shown(path)} has {len(names)} cameras; at most {MAX_CAMERAS} are supported'
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UnusableCalibration(
            f'{shown(path)} has several cameras with the same name: {join_names(repeated)}; '
            'names must be unique'
        )


# Qualisys.


def _qualisys_cameras(path: pathlib.Path) -> list[tuple[str, Any]]:
    text = read_input(path, MAX_FILE_BYTES)
    if b'<!DOCTYPE' in text or b'<!ENTITY' in text:
        raise UnusableCalibration(f'{shown(path)} has a document type, which Qualisys does not')
    try:
        cameras = ElementTree.fromstring(text).findall('cameras/camera')
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnusableCalibration(
            f'{shown(path)} is not valid XML: {printable(error, 200)}'
        ) from error
    return [(own.get('serial', ''), own) for own in cameras]


def _from_qualisys(name: str, element: Any) -> PlacedCamera:
    if element.get('viewrotation', '0') not in ('0', ''):
        raise ValueError(f'its viewrotation is {element.get("viewrotation")}; only 0 is supported')
    left, top, right, bottom = _attributes(element, 'fov_video', 'left', 'top', 'right', 'bottom')
    focal_px = _attributes(element, 'intrinsic', 'focalLengthU', 'focalLengthV') / SUBPIXELS
    centre_px = _attributes(element, 'intrinsic', 'centerPointU', 'centerPointV') / SUBPIXELS
    kinds = 'radialDistortion1', 'radialDistortion2', 'tangentalDistortion1'
    lens = _attributes(element, 'intrinsic', *kinds, 'tangentalDistortion2')
    centre_px -= (left, top)
    k = np.array([[focal_px[0], 0, centre_px[0]], [0, focal_px[1], centre_px[1]], [0, 0, 1]])
    names = [f'r{i}{j}' for i in (1, 2, 3) for j in (1, 2, 3)]
    # The file has the columns of the matrix from the camera to the world one after the other.
    from_world = _attributes(element, 'transform', *names).reshape(3, 3)
    rotation = FACING_FORWARD @ from_world
    translation_m = -rotation @ _attributes(element, 'transform', 'x', 'y', 'z') / MM_PER_M
    calibration = _calibration(right - left + 1, bottom - top + 1, k, lens.tolist(), 'plumb_bob')
    return PlacedCamera(
        name, optical_frame(name), calibration, _extrinsic(rotation, translation_m)
    )


def _attributes(element: Any, child: str, *names: str) -> FloatArray:
    """Return attributes of a child element as finite numbers."""
    own = element.find(child)
    if own is None:
        raise KeyError(child)
    values = []
    for name in names:
        text = own.get(name)
        if text is None:
            raise KeyError(f'{name} in {child}')
        values.append(finite_number(text, name))
    return np.array(values)


# Pose2Sim.


def _pose2sim_cameras(path: pathlib.Path) -> list[tuple[str, Any]]:
    try:
        import tomllib
    except ModuleNotFoundError:
        try:
            import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ModuleNotFoundError as error:
            raise ImportError(
                f'{shown(path)} needs tomli with Python 3.10: pip install tomli'
            ) from error
    data = read_input(path, MAX_FILE_BYTES)
    try:
        values = tomllib.loads(data.decode('utf-8'))
    except (ValueError, RecursionError) as error:
        raise UnusableCalibration(
            f'{shown(path)} is not valid TOML: {printable(error, 200)}'
        ) from error
    sections = {
        key: value
        for key, value in values.items()
        if isinstance(value, dict) and 'matrix' in value
    }
    return [(str(own.get('name', key)), own) for key, own in sections.items()]


def _from_pose2sim(name: str, values: Mapping[str, Any]) -> PlacedCamera:
    k = finite_numbers(values['matrix'], 'matrix', 9).reshape(3, 3)
    lens = finite_numbers(values['distortions'], 'distortions')
    vector = finite_numbers(values['rotation'], 'rotation', 3)
    translation_m = finite_numbers(values['translation'], 'translation', 3)
    width, height = finite_numbers(values['size'], 'size', 2).tolist()
    is_fisheye = values.get('fisheye', False) is True
    model = 'equidistant' if is_fisheye else 'plumb_bob'
    calibration = _calibration(width, height, k, lens.tolist(), model)
    rotation = np.asarray(cv2.Rodrigues(vector)[0], np.float64)
    return PlacedCamera(
        name, optical_frame(name), calibration, _extrinsic(rotation, translation_m)
    )


# A folder of YAML files.


def _read_folder(
    folder: pathlib.Path, fixed_frame: str, warn: Callable[[str], None]
) -> dict[str, PlacedCamera]:
    file = folder / EXTRINSICS_FILE
    transforms = read_transforms(file)
    _check_names(list(transforms), file)
    files = {
        own.stem: own
        for own in list_folder(folder)
        if own.suffix.lower() in YAML_SUFFIXES and own.name != EXTRINSICS_FILE
    }

    def convert(name: str, transform: StaticTransform) -> PlacedCamera:
        file_name = name.replace('/', '_')
        if file_name not in files:
            raise ValueError(f'the folder has no {file_name}.yaml with its camera_info')
        calibration = read_calibration(files[file_name])
        root, extrinsic = extrinsic_in_root(transforms, name)
        if root != fixed_frame:
            raise ValueError(
                f"its pose is in the frame '{root}', not in '{fixed_frame}'; give the frame with "
                '--fixed-frame'
            )
        return PlacedCamera(name, transform.child, calibration, _checked(extrinsic))

    return _usable(list(transforms.items()), file, convert, warn)


# Values of all formats.


def _calibration(
    width: float, height: float, k: FloatArray, lens: list[float], model: str
) -> Calibration:
    for size in (width, height):
        if not 0 < size <= MAX_SIZE_PX or size != int(size):
            raise ValueError(
                f'its image has {width:g} x {height:g} pixels; both must be integers from 1 to '
                f'{MAX_SIZE_PX}'
            )
    return Calibration(int(width), int(height), k.ravel().tolist(), lens, model, p=_projection(k))


def _projection(k: FloatArray) -> list[float]:
    values: list[float] = np.hstack([k, np.zeros((3, 1))]).ravel().tolist()
    return values


def _extrinsic(rotation: FloatArray, translation_m: FloatArray) -> FloatArray:
    """Return the matrix [4, 4], millimetres, from the world to a camera."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, MM_PER_M * translation_m
    return _checked(matrix)


def _checked(matrix: FloatArray) -> FloatArray:
    """Return a pose; raise a `ValueError` if it is not a rotation or too far away."""
    rotation = matrix[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not error <= MAX_ROTATION_ERROR or np.linalg.det(rotation) < 0:
        raise ValueError('its rotation is not a rotation matrix')
    if not np.abs(matrix[:3, 3]).max() <= MM_PER_M * MAX_TRANSLATION_M:
        raise ValueError(
            f'its translation is {(matrix[:3, 3] / MM_PER_M).tolist()} m; at most '
            f'{MAX_TRANSLATION_M:g} m are allowed'
        )
    # Rounded values of a file are not exactly a rotation.
    left, _, right = np.linalg.svd(rotation)
    result = matrix.copy()
    result[:3, :3] = left @ right
    return result
