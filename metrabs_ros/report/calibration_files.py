"""The command calibrate: from bags with skeletons to files with the poses of the cameras."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.calibration import Calibration, calibrate_cameras, refine_cameras
from metrabs_ros.fusion.camera_tracks import CalibrationError
from metrabs_ros.recordings.extrinsics import (
    read_extrinsics,
    static_transforms,
    to_launch_file,
    to_yaml,
)
from metrabs_ros.recordings.recorded_people import RecordedPeople, read_people
from metrabs_ros.recordings.transform_buffer import TransformBuffer
from metrabs_ros.regular_file import shown
from metrabs_ros.report.calibration_picture import draw_calibration

FROM_TF = 'tf'
YAML_FILE, LAUNCH_FILE, PICTURE_FILE = (
    'extrinsics.yaml',
    'extrinsics.launch.py',
    'extrinsics.png',
)
MM_PER_M = 1000.0


class CalibrationOptions(NamedTuple):
    """
    Options of `calibrate`.

    Parameters
    ----------
    world_frame
        Name of the world frame.
    given
        File with poses to refine, `FROM_TF` for those of the bags, or empty.
    rotation_std_degrees, position_std_mm
        Standard deviations of the given poses.
    overwrite
        Whether existing files are replaced.
    """

    world_frame: str
    given: str
    rotation_std_degrees: float
    position_std_mm: float
    overwrite: bool


def calibrate(
    paths: Sequence[pathlib.Path],
    folder: pathlib.Path,
    options: CalibrationOptions,
    show: Callable[[str], None],
) -> None:
    """
    Calibrate cameras, print a table, and write a YAML file, a launch file and a picture.

    Parameters
    ----------
    paths
        Bags with skeletons.
    folder
        Folder of the files; it is created.
    options
        Options.
    show
        Called with each line of text.

    Raises
    ------
    CalibrationError
        If the cameras cannot be calibrated.
    UnusableFile, UnreadableRecording, UnusableExtrinsics
        If an input cannot be read.
    """
    _check_output(folder, options)
    recorded, buffer = read_people(paths, show)
    calibration = _calibrated(recorded, buffer, options, show)
    optical_frames = {own.name: own.frame_id for own in recorded}
    transforms, warnings = static_transforms(
        calibration.cameras, optical_frames, options.world_frame, buffer
    )
    for line in (*table(calibration), *calibration.warnings, *warnings):
        show(line)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / YAML_FILE).write_text(
        to_yaml(calibration, transforms, optical_frames), encoding='utf-8'
    )
    (folder / LAUNCH_FILE).write_text(to_launch_file(transforms), encoding='utf-8')
    draw_calibration(calibration, folder / PICTURE_FILE)
    show(f'the poses are in {shown(folder / YAML_FILE)}')
    show(f'ros2 launch {shown(folder / LAUNCH_FILE)} publishes them')
    show(f'check the picture {shown(folder / PICTURE_FILE)}')


def _check_output(folder: pathlib.Path, options: CalibrationOptions) -> None:
    for name in (YAML_FILE, LAUNCH_FILE, PICTURE_FILE):
        if (folder / name).exists() and not options.overwrite:
            raise CalibrationError(
                f'{shown(folder / name)} already exists; --overwrite replaces it'
            )


def _calibrated(
    recorded: Sequence[RecordedPeople],
    buffer: TransformBuffer,
    options: CalibrationOptions,
    show: Callable[[str], None],
) -> Calibration:
    if not options.given:
        return calibrate_cameras(frame for own in recorded for frame in own.frames())
    if options.given == FROM_TF:
        poses = _poses_from_transforms(recorded, buffer, options.world_frame, show)
    else:
        poses = read_extrinsics(pathlib.Path(options.given))
    for own in recorded:
        if own.name not in poses:
            show(
                f'{printable(own.name)} is left out: it has no given pose (cameras with a pose: '
                f'{printable(", ".join(poses) or "none", 300)})'
            )
    return refine_cameras(
        (frame for own in recorded if own.name in poses for frame in own.frames(poses[own.name])),
        options.rotation_std_degrees,
        options.position_std_mm,
    )


def _poses_from_transforms(
    recorded: Sequence[RecordedPeople],
    buffer: TransformBuffer,
    world_frame: str,
    show: Callable[[str], None],
) -> Mapping[str, FloatArray]:
    """Return the extrinsic matrices [4, 4] of the cameras in the static transforms of bags."""
    poses = {}
    for own in recorded:
        try:
            transform = buffer.lookup(own.frame_id, world_frame, 0)
        except UnusableInput as error:
            show(f'{printable(own.name)}: {error}')
            continue
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = transform.rotation, MM_PER_M * transform.translation_m
        poses[own.name] = matrix
    return poses


def table(calibration: Calibration) -> list[str]:
    """Return lines with the result of each camera."""
    lines = []
    for k, own in enumerate(calibration.cameras):
        x, y, z = own.camera.position_mm / MM_PER_M
        overlap = ', '.join(
            f'{overlap_s:.0f} with {printable(name)}' for name, overlap_s in own.overlaps_s.items()
        )
        # Without given poses, the first camera is the reference of the others.
        deviation = (
            f'deviation {own.position_std_mm / MM_PER_M:.3f} m and '
            f'{own.rotation_std_degrees:.2f} degrees'
            if k or np.isnan(calibration.tilt_std_degrees)
            else 'reference of the deviations'
        )
        lines.append(
            f'{printable(own.name)}: at {x:.2f} {y:.2f} {z:.2f} m, {deviation}; reprojection '
            f'error {own.error_px:.1f} px, {own.inliers:.0%} inliers; shared person-seconds: '
            f'{overlap}'
        )
    for name, reason in calibration.left_out.items():
        lines.append(f'{printable(name)} is left out: {reason}')
    if calibration.scale_std > 0:
        lines.append(
            f'common scale: deviation {calibration.scale_std:.1%}; vertical: '
            f'{calibration.tilt_std_degrees:.1f} degrees; floor: '
            f'{calibration.floor_std_mm / MM_PER_M:.3f} m'
        )
    return lines
