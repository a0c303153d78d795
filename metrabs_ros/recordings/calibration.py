"""A camera's calibration from a file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from metrabs_ros.camera import Camera
from metrabs_ros.messages.types import Make

BROKEN = (yaml.YAMLError, StopIteration)


class UnusableCalibration(ValueError):  # noqa: N818
    """A file holds no calibration; the message says why."""


@dataclasses.dataclass
class Region:
    """The fields of a sensor_msgs/RegionOfInterest; zeros stand for the whole sensor."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclasses.dataclass
class Calibration:
    """The fields of a sensor_msgs/CameraInfo."""

    width: int
    height: int
    k: Sequence[float]
    d: Sequence[float] = (0.0,) * 5
    distortion_model: str = 'plumb_bob'
    r: Sequence[float] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    p: Sequence[float] = (0.0,) * 12
    binning_x: int = 0
    binning_y: int = 0
    roi: Region = dataclasses.field(default_factory=Region)

    @classmethod
    def guessed(cls, fov_degrees: float, image_shape: tuple[int, ...]) -> Calibration:
        """Make up the calibration of a camera of which only the field of view is known."""
        matrix = Camera.from_fov(fov_degrees, image_shape).intrinsic_matrix
        height, width = image_shape[:2]
        projection = np.hstack([matrix, np.zeros((3, 1))])
        return cls(width, height, matrix.reshape(-1).tolist(), p=projection.reshape(-1).tolist())

    def to_message(self, camera_info: Make, region: Make, header: Any) -> Any:
        """Return the CameraInfo that says this, by what makes it and its region of interest."""
        return camera_info(**vars(self) | {'roi': region(**vars(self.roi)), 'header': header})


def read_calibration(file: pathlib.Path) -> Calibration:
    """
    Read a calibration as camera_calibration writes it, or a CameraInfo that was printed.

    Raises
    ------
    UnusableCalibration
        If the file is none.
    """
    try:
        text = file.read_text(encoding='utf-8')
        # What `ros2 topic echo` prints ends in a line of dashes.
        values = next(iter(yaml.safe_load_all(text)))
        return _of_printed(values) if 'k' in values else _of_calibrator(values)
    except OSError as error:
        raise UnusableCalibration(f'the calibration {file} cannot be read: {error}') from error
    except (*BROKEN, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UnusableCalibration(
            f'{file} is no ROS calibration (image_width, image_height, camera_matrix, '
            f'distortion_coefficients) and no CameraInfo as ros2 topic echo prints it: {error!r}'
        ) from error


def _of_calibrator(values: dict[str, Any]) -> Calibration:
    read = Calibration(
        width=int(values['image_width']),
        height=int(values['image_height']),
        k=_numbers(values['camera_matrix']['data'], 9),
        d=_numbers(values['distortion_coefficients']['data']),
        distortion_model=str(values.get('distortion_model', 'plumb_bob')),
    )
    if 'rectification_matrix' in values:
        read.r = _numbers(values['rectification_matrix']['data'], 9)
    if 'projection_matrix' in values:
        read.p = _numbers(values['projection_matrix']['data'], 12)
    return read


def _of_printed(values: dict[str, Any]) -> Calibration:
    roi = values.get('roi') or {}
    return Calibration(
        width=int(values['width']),
        height=int(values['height']),
        k=_numbers(values['k'], 9),
        d=_numbers(values.get('d', [])),
        distortion_model=str(values.get('distortion_model', 'plumb_bob')),
        r=_numbers(values.get('r', Calibration.r), 9),
        p=_numbers(values.get('p', Calibration.p), 12),
        binning_x=int(values.get('binning_x', 0)),
        binning_y=int(values.get('binning_y', 0)),
        roi=Region(**{name: roi[name] for name in vars(Region()) if name in roi}),
    )


def _numbers(values: Any, length: int | None = None) -> list[float]:
    numbers = [float(value) for value in values]
    if length not in (None, len(numbers)):
        raise ValueError(f'{len(numbers)} numbers where there must be {length}')
    return numbers
