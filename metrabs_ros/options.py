"""Arguments of the Python API: options, views, and the checks of both."""

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
DETECTOR_NMS_IOU = 0.7
SMALLEST_IMAGE_PX = 2
SMALLEST_BOX_PX = 1.0
LARGEST_NUM_AUG = 100
LARGEST_ANTIALIAS_FACTOR = 16
CAMERA_ARGUMENTS = (
    'intrinsic_matrix',
    'distortion_coeffs',
    'extrinsic_matrix',
    'world_up_vector',
    'default_fov_degrees',
)
PER_IMAGE_AXES = {'intrinsic_matrix': 2, 'distortion_coeffs': 1, 'extrinsic_matrix': 2}
"""The arguments that can differ from image to image, and how many axes they have for one."""


@dataclasses.dataclass(frozen=True)
class Options:
    """
    How to look for people and at them; see `PoseEstimator.detect_poses`.

    Raises
    ------
    ValueError
        If a value cannot be what its name says.
    """

    internal_batch_size: int = 64
    antialias_factor: int = 1
    num_aug: int = 1
    detector_threshold: float | None = None
    detector_nms_iou_threshold: float = DETECTOR_NMS_IOU
    max_detections: int = -1
    detector_flip_aug: bool | None = None
    suppress_implausible_poses: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        is_size = _is_whole(self.internal_batch_size, 1)
        _refuse_unless(is_size, 'internal_batch_size', self, 'a whole number from 1')
        # More would take more memory than there is.
        for name, most in (
            ('antialias_factor', LARGEST_ANTIALIAS_FACTOR),
            ('num_aug', LARGEST_NUM_AUG),
        ):
            value = getattr(self, name)
            fits = _is_whole(value, 1) and value <= most
            _refuse_unless(fits, name, self, f'a whole number from 1 to {most}')
        count = self.max_detections
        _refuse_unless(_is_whole(count, -1), 'max_detections', self, '-1 or a whole number from 0')
        for name in ('detector_threshold', 'detector_nms_iou_threshold'):
            value = getattr(self, name)
            fits = isinstance(value, numbers.Real) and 0 <= float(value) <= 1
            _refuse_unless(fits or value is None, name, self, 'a number from 0 to 1')

    def threshold_or(self, usual: float) -> float:
        """Return the lowest score of a detection that counts: what was asked for, or the usual."""
        return usual if self.detector_threshold is None else self.detector_threshold


class View(NamedTuple):
    """An image [H, W, 3], uint8, RGB, and the camera that took it."""

    image: ImageArray
    camera: Camera


@dataclasses.dataclass(frozen=True)
class Request:
    """
    What is asked of an image.

    Parameters
    ----------
    view
        The image and its camera.
    options
        How to look.
    skeleton
        The name of the convention wanted.
    average_aug
        Whether the mean over the augmentations is wanted.
    """

    view: View
    options: Options
    skeleton: str
    average_aug: bool

    @classmethod
    def of(cls, image: ImageArray, arguments: Mapping[str, Any]) -> Request:
        """Read the arguments of the front door, as `PoseEstimator.detect_poses` names them."""
        about_camera = {name: arguments[name] for name in CAMERA_ARGUMENTS}
        names = {field.name for field in dataclasses.fields(Options)}
        options = {name: value for name, value in arguments.items() if name in names}
        return cls(
            View(image, camera_from_arguments(image, **about_camera)),
            Options(**options),
            arguments['skeleton'],
            arguments['average_aug'],
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
    Build the camera of an image from the arguments of the front door.

    Raises
    ------
    ValueError
        If the image is not [H, W, 3] uint8, or an argument cannot be a camera's.
    """
    shape, kind = np.shape(image), getattr(image, 'dtype', type(image).__name__)
    is_rgb = len(shape) == 3 and shape[2] == 3 and kind == np.uint8
    if not is_rgb or min(shape[:2]) < SMALLEST_IMAGE_PX:
        raise ValueError(
            f'image has shape {shape} and type {kind}; it must be [H, W, 3] uint8 RGB, of at '
            f'least {SMALLEST_IMAGE_PX} x {SMALLEST_IMAGE_PX} pixels'
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
    Return a number as a float.

    Raises
    ------
    ValueError
        If it is none, or too large for a float; the message names it.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    raise ValueError(f'{name} is {format_value(value)}; it must be a number')


def format_value(value: object) -> str:
    """Return the start of a value's `repr`, whatever the value is."""
    try:
        return printable(reprlib.repr(value))
    except ValueError:
        # An integer of too many digits.
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
        if not np.isfinite(box).all() or min(sides) <= 0 or max(sides) < SMALLEST_BOX_PX:
            raise ValueError(f'boxes holds {box.tolist()}, which has no area')
        if left >= width or top >= height or left + box_width <= 0 or top + box_height <= 0:
            raise ValueError(
                f'boxes holds {box.tolist()}, outside of the {width} x {height} image'
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


def _is_whole(value: object, least: int) -> bool:
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_number and int(value) >= least  # type: ignore[call-overload]


def _refuse_unless(fits: bool, name: str, options: Options, expected: str) -> None:
    if not fits:
        raise ValueError(
            f'{name} is {format_value(getattr(options, name))}; it must be {expected}'
        )


def arguments_per_image(
    ask: Callable[..., Any], kwargs: dict[str, Any], count: int
) -> list[dict[str, Any]]:
    """Give each image its own entry of the arguments that can differ from image to image."""
    signature = inspect.signature(ask)
    signature.bind_partial(**kwargs)
    usual = {name: parameter.default for name, parameter in signature.parameters.items()}
    own = [{**usual, **kwargs} for _ in range(count)]
    for name, axes in PER_IMAGE_AXES.items():
        value = kwargs.get(name)
        if value is None or _axes_of(value) == axes:
            continue
        values = as_list(name, value)
        if len(values) not in (1, count):
            raise ValueError(f'{name} has {len(values)} entries for {count} images')
        for i, arguments in enumerate(own):
            arguments[name] = values[i % len(values)]
    return own


def _axes_of(value: ArrayLike) -> int | None:
    """Return how many axes a value has; None if its entries differ in shape."""
    try:
        return np.ndim(value)
    except ValueError:
        return None
