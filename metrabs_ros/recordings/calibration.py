"""A camera's calibration from a file."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.message_types import MessageConstructor
from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.input_files import UnusableFile, read_input
from metrabs_ros.recordings.plain_yaml import UnusableYaml, load_yaml
from metrabs_ros.regular_file import shown

MAX_FILE_BYTES = 2**20
MAX_COEFFICIENTS = 14
LARGEST_SIZE_PX = 2**31 - 1
ROI_SIZES = ('x_offset', 'y_offset', 'height', 'width')


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

    def to_message(
        self, camera_info: MessageConstructor, region: MessageConstructor, header: Any
    ) -> Any:
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
        # A printed CameraInfo ends in a line of dashes: only the first document counts.
        values = load_yaml(read_input(file, MAX_FILE_BYTES).decode('utf-8'))
        if not isinstance(values, dict):
            raise UnusableYaml('it holds no names with values')
        return _of_printed(values) if 'k' in values else _of_calibrator(values)
    except UnusableFile as error:
        raise UnusableCalibration(
            f'the calibration {shown(file)} cannot be read: {printable(error, 500)}'
        ) from error
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UnusableCalibration(
            f'{shown(file)} is no ROS calibration (image_width, image_height, camera_matrix, '
            'distortion_coefficients) and no CameraInfo as ros2 topic echo prints it: '
            f'{_explained(error)}'
        ) from error


def _explained(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f'it has no {printable(error.args[0])}'
    return printable(error, 300)


def _of_calibrator(values: dict[str, Any]) -> Calibration:
    read = Calibration(
        width=_size(values, 'image_width'),
        height=_size(values, 'image_height'),
        k=_numbers(_data(values, 'camera_matrix'), 9),
        d=_numbers(_data(values, 'distortion_coefficients')),
        distortion_model=_model(values),
    )
    if 'rectification_matrix' in values:
        read.r = _numbers(_data(values, 'rectification_matrix'), 9)
    if 'projection_matrix' in values:
        read.p = _numbers(_data(values, 'projection_matrix'), 12)
    return read


def _of_printed(values: dict[str, Any]) -> Calibration:
    roi = values.get('roi') or {}
    if not isinstance(roi, dict):
        raise ValueError(f'roi is {printable(roi)}; it must have x_offset and so on')
    sizes = {name: _size(roi, name) for name in ROI_SIZES if name in roi}
    return Calibration(
        width=_size(values, 'width'),
        height=_size(values, 'height'),
        k=_numbers(values['k'], 9),
        d=_numbers(values.get('d', [])),
        distortion_model=_model(values),
        r=_numbers(values.get('r', Calibration.r), 9),
        p=_numbers(values.get('p', Calibration.p), 12),
        binning_x=_size(values, 'binning_x') if 'binning_x' in values else 0,
        binning_y=_size(values, 'binning_y') if 'binning_y' in values else 0,
        roi=Region(**sizes, do_rectify=bool(roi.get('do_rectify', False))),
    )


def _data(values: dict[str, Any], name: str) -> Any:
    """Return the numbers of a matrix."""
    matrix = values[name]
    if not isinstance(matrix, dict) or 'data' not in matrix:
        raise ValueError(f'{name} has no data')
    return matrix['data']


def _model(values: dict[str, Any]) -> str:
    model = values.get('distortion_model', 'plumb_bob')
    if not isinstance(model, str):
        raise ValueError(f'distortion_model is {printable(model)}; it must be a name')
    return printable(model)


def _size(values: dict[str, Any], name: str) -> int:
    """Return a size or a position in pixels."""
    value = values[name]
    # bool is a kind of int, and .nan one of float.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f'{name} is {printable(value)}; it must be a whole number')
    if not 0 <= value <= LARGEST_SIZE_PX or value != int(value):
        raise ValueError(f'{name} is {printable(value)}; it must be a whole number from 0')
    return int(value)


def _numbers(values: Any, length: int | None = None) -> list[float]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f'{printable(values)} is no list of numbers')
    if length is not None and len(values) != length:
        raise ValueError(f'{len(values)} numbers where there must be {length}')
    if length is None and len(values) > MAX_COEFFICIENTS:
        raise ValueError(f'{len(values)} distortion coefficients; at most {MAX_COEFFICIENTS}')
    numbers = [float(value) for value in values]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f'{printable(numbers)} are not all finite numbers')
    return numbers
