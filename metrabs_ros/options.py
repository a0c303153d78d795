"""Arguments of the Python API: options, views and requests, and their validation."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import numbers
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera, as_numbers, intrinsics_from_fov
from metrabs_ros.foreign_text import printable

DEFAULT_FOV_DEGREES = 55.0
"""Field of view across the longer side of an image without intrinsics."""
DETECTOR_NMS_IOU = 0.7
"""Default IoU threshold of the detector's non-maximum suppression."""
MIN_IMAGE_PX = 2
"""Minimum height and width of an image."""
MIN_BOX_PX = 1.0
"""Minimum length of the longer side of a box."""
MIN_STATURE_MM, MAX_STATURE_MM = 400.0, 2600.0
MAX_NUM_AUG = 100
MAX_ANTIALIAS_FACTOR = 16
CAMERA_ARGUMENTS = (
    'intrinsic_matrix',
    'distortion_coeffs',
    'extrinsic_matrix',
    'world_up_vector',
    'default_fov_degrees',
)
PER_IMAGE_ARGUMENT_AXES = {'intrinsic_matrix': 2, 'distortion_coeffs': 1, 'extrinsic_matrix': 2}
"""Arguments that can differ between images, and the number of axes of the value of one image."""

PYTHON_TYPES: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(('internal_batch_size', 'antialias_factor', 'num_aug', 'max_detections'), int),
    **dict.fromkeys(('detector_threshold', 'detector_nms_iou_threshold', 'stature'), float),
    **dict.fromkeys(('average_aug', 'suppress_implausible_poses', 'detector_flip_aug'), bool),
}
"""Types that options are converted to."""


@dataclasses.dataclass(frozen=True)
class Options:
    """
    Options of detection and pose estimation.

    `PoseEstimator.detect_poses` describes each of them.  Here `skeleton` must be a name.

    Raises
    ------
    ValueError
        If a value is out of range or has the wrong type.
    """

    internal_batch_size: int = 64
    antialias_factor: int = 1
    num_aug: int = 1
    detector_threshold: float | None = None
    detector_nms_iou_threshold: float = DETECTOR_NMS_IOU
    max_detections: int = -1
    detector_flip_aug: bool | None = None
    suppress_implausible_poses: bool = True
    stature: float | None = None
    average_aug: bool = True
    skeleton: str = ''

    def __post_init__(self) -> None:
        """Validate the values, and convert numbers of any type to those of Python."""
        is_size = _is_whole(self.internal_batch_size, 1)
        _check_option(is_size, 'internal_batch_size', self, 'a whole number of at least 1')
        # Larger values would exhaust the memory.
        for name, maximum in (
            ('antialias_factor', MAX_ANTIALIAS_FACTOR),
            ('num_aug', MAX_NUM_AUG),
        ):
            value = getattr(self, name)
            is_valid = _is_whole(value, 1) and value <= maximum
            _check_option(is_valid, name, self, f'a whole number from 1 to {maximum}')
        is_count = _is_whole(self.max_detections, -1)
        _check_option(is_count, 'max_detections', self, '-1 or a whole number of at least 0')
        for name in ('detector_threshold', 'detector_nms_iou_threshold'):
            value = getattr(self, name)
            is_valid = isinstance(value, numbers.Real) and bool(0 <= value <= 1)  # type: ignore[operator]
            is_default = value is None and name == 'detector_threshold'
            _check_option(is_valid or is_default, name, self, 'a number from 0 to 1')
        for name in ('average_aug', 'suppress_implausible_poses'):
            is_bool = isinstance(getattr(self, name), (bool, np.bool_))
            _check_option(is_bool, name, self, 'True or False')
        is_bool = isinstance(self.detector_flip_aug, (bool, np.bool_))
        is_valid = is_bool or self.detector_flip_aug is None
        _check_option(is_valid, 'detector_flip_aug', self, 'None, True or False')
        is_name = isinstance(self.skeleton, str)
        _check_option(is_name, 'skeleton', self, 'the name of a skeleton')
        is_stature = isinstance(self.stature, numbers.Real) and (
            MIN_STATURE_MM <= self.stature <= MAX_STATURE_MM
        )
        _check_option(
            is_stature or self.stature is None,
            'stature',
            self,
            f'None or from {MIN_STATURE_MM:g} to {MAX_STATURE_MM:g} millimetres',
        )
        # Products of NumPy's small integers overflow, and torch rejects them as sizes.
        for name, convert in PYTHON_TYPES.items():
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else convert(value))

    def detector_threshold_or(self, default: float) -> float:
        """Return the minimum detection score, or a default if the option is not set."""
        return default if self.detector_threshold is None else self.detector_threshold


class View(NamedTuple):
    """An image [H, W, 3], uint8, RGB, and its camera."""

    image: ImageArray
    camera: Camera


@dataclasses.dataclass(frozen=True)
class Request:
    """
    The arguments of a call of the Python API, for one image.

    Parameters
    ----------
    view
        The image and its camera.
    options
        Options of detection and pose estimation.
    """

    view: View
    options: Options

    @classmethod
    def parse(cls, image: ImageArray, arguments: Mapping[str, Any]) -> Request:
        """Parse keyword arguments of `PoseEstimator.detect_poses`."""
        camera_arguments = {name: arguments[name] for name in CAMERA_ARGUMENTS}
        names = {field.name for field in dataclasses.fields(Options)}
        options = {name: value for name, value in arguments.items() if name in names}
        return cls(
            View(image, camera_from_arguments(image, **camera_arguments)),
            Options(**options),
        )


def camera_from_arguments(
    image: ImageArray,
    intrinsic_matrix: ArrayLike | None,
    distortion_coeffs: ArrayLike | None,
    extrinsic_matrix: ArrayLike | None,
    world_up_vector: ArrayLike,
    default_fov_degrees: float,
) -> Camera:
    """
    Build the camera of an image from arguments of `PoseEstimator.detect_poses`.

    Raises
    ------
    ValueError
        If the image is not [H, W, 3] uint8, or an argument is not valid for a camera.
    """
    shape, dtype = np.shape(image), getattr(image, 'dtype', type(image).__name__)
    is_rgb = len(shape) == 3 and shape[2] == 3 and dtype == np.uint8
    if not is_rgb or min(shape[:2]) < MIN_IMAGE_PX:
        raise ValueError(
            f'image has shape {shape} and type {dtype}; it must be [H, W, 3] uint8 RGB, of at '
            f'least {MIN_IMAGE_PX} x {MIN_IMAGE_PX} pixels'
        )
    coeffs = as_numbers(
        'distortion_coeffs', [] if distortion_coeffs is None else distortion_coeffs
    )
    extrinsics = as_numbers(
        'extrinsic_matrix', np.eye(4) if extrinsic_matrix is None else extrinsic_matrix
    )
    up = as_numbers('world_up_vector', world_up_vector)
    if intrinsic_matrix is not None:
        return Camera(as_numbers('intrinsic_matrix', intrinsic_matrix), coeffs, extrinsics, up)
    fov_degrees = _as_number('default_fov_degrees', default_fov_degrees)
    return Camera(intrinsics_from_fov(fov_degrees, shape), coeffs, extrinsics, up)


def _as_number(name: str, value: object) -> float:
    """
    Convert a number to a float.

    Raises
    ------
    ValueError
        If the value is not a number, or too large for a float.  The message contains `name`.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise ValueError(f'{name} is {format_value(value)}; it must be a number')


def format_value(value: object) -> str:
    """Return the start of the `repr` of any value, for error messages."""
    try:
        return printable(reprlib.repr(value))
    except ValueError:
        # Python does not print integers of more than 4300 digits.
        return f'of type {type(value).__name__}'


def check_boxes(boxes: ArrayLike, image_shape: tuple[int, ...]) -> FloatArray:
    """
    Return boxes as an array [N, 4] of left, top, width and height in pixels.

    Raises
    ------
    ValueError
        If the shape is wrong, or a box has no area or is outside of the image.
    """
    array = as_numbers('boxes', boxes)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] < 4:
        raise ValueError(
            f'boxes has shape {array.shape}, expected [N, 4]: {format_value(array.tolist())}'
        )
    height, width = image_shape[:2]
    for box in array[:, :4]:
        left, top, box_width, box_height = box
        sides = (box_width, box_height)
        if not np.isfinite(box).all() or min(sides) <= 0 or max(sides) < MIN_BOX_PX:
            raise ValueError(f'boxes contains {box.tolist()}, which has no area')
        if left >= width or top >= height or left + box_width <= 0 or top + box_height <= 0:
            raise ValueError(
                f'boxes contains {box.tolist()}, outside of the {width} x {height} image'
            )
    return array[:, :4]


def as_list(name: str, values: Any) -> list[Any]:
    """
    Return a sequence as a list.

    Raises
    ------
    ValueError
        If the value is not a sequence; the message contains the argument's name.
    """
    try:
        return list(values)
    except TypeError as error:
        raise ValueError(f'{name} is {format_value(values)}; it must be a sequence') from error


def _is_whole(value: object, minimum: int) -> bool:
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_number and int(value) >= minimum  # type: ignore[call-overload]


def _check_option(is_valid: bool, name: str, options: Options, expected: str) -> None:
    if not is_valid:
        raise ValueError(
            f'{name} is {format_value(getattr(options, name))}; it must be {expected}'
        )


def arguments_per_image(
    method: Callable[..., Any], kwargs: dict[str, Any], count: int
) -> list[dict[str, Any]]:
    """
    Split the keyword arguments of a batched call into those of each image.

    Parameters
    ----------
    method
        The method for one image; it has the default values.
    kwargs
        The arguments of the batched call.  Those in `PER_IMAGE_ARGUMENT_AXES` may have a leading
        axis with one entry for each image.
    count
        Number of images.

    Raises
    ------
    ValueError
        If an argument has the wrong number of entries.
    TypeError
        If the method does not have such an argument.
    """
    signature = inspect.signature(method)
    signature.bind_partial(**kwargs)
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    per_image = [{**defaults, **kwargs} for _ in range(count)]
    for name, axes in PER_IMAGE_ARGUMENT_AXES.items():
        value = kwargs.get(name)
        if value is None or _axis_count(value) == axes:
            continue
        values = as_list(name, value)
        if len(values) not in (1, count):
            raise ValueError(f'{name} has {len(values)} entries for {count} images')
        for i, arguments in enumerate(per_image):
            arguments[name] = values[i % len(values)]
    return per_image


def _axis_count(value: ArrayLike) -> int | None:
    """Return the number of axes of a value, or None if its entries have different shapes."""
    try:
        return np.ndim(value)
    except ValueError:
        return None
