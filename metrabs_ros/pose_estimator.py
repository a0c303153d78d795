"""The front door: from an image and what is known of its camera to its people's poses."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import inspect
import numbers
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.camera import DEFAULT_UP, Camera, as_numbers, intrinsics_from_fov
from metrabs_ros.foreign_text import printable
from metrabs_ros.skeletons.conventions import Convention, Skeleton

Prediction = dict[str, FloatArray]

DEFAULT_FOV_DEGREES = 55.0
DETECTOR_NMS_IOU = 0.7
SMALLEST_IMAGE_PX = 2
SMALLEST_BOX_PX = 1.0
LARGEST_NUM_AUG = 100
LARGEST_ANTIALIAS_FACTOR = 16
LISTED_SKELETONS_CHARS = 1000
NON_OPTIONS = ('self', 'image', 'boxes')
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


@dataclasses.dataclass(frozen=True)
class Poses:
    """
    N people's poses, with all joints of a network, each as seen in A ways.

    Parameters
    ----------
    boxes_px
        [N, 4], left, top, width, height.
    scores
        [N], from 0 to 1: that this is a person.
    poses3d_mm
        [N, A, J, 3], camera frame.
    poses2d_px
        [N, A, J, 2], image pixels.
    joint_confidence
        [N, J], from 0 to 1: that the joint is visible; empty if the network does not estimate it.
    """

    boxes_px: FloatArray
    scores: FloatArray
    poses3d_mm: FloatArray
    poses2d_px: FloatArray
    joint_confidence: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def select(self, which: NDArray[Any]) -> Poses:
        """Return the people at an index array or mask."""
        return Poses(
            self.boxes_px[which],
            self.scores[which],
            self.poses3d_mm[which],
            self.poses2d_px[which],
            self.joint_confidence[which] if len(self.joint_confidence) else self.joint_confidence,
        )


class View(NamedTuple):
    """An image [H, W, 3], uint8, RGB, and the camera that took it."""

    image: ImageArray
    camera: Camera


class PoseEstimator(abc.ABC):
    """
    Absolute 3D poses of the people in an image.

    The keyword arguments are those of the MeTRAbs API.

    Parameters
    ----------
    conventions
        What poses can be asked for in, by name; the first is what the empty name stands for.
    choice
        What runs the network, in which precision and where, and why.
    """

    def __init__(self, conventions: Mapping[str, Convention], choice: Choice) -> None:
        self._conventions = conventions
        self.choice = choice

    @abc.abstractmethod
    def find_people(self, image: ImageArray, camera: Camera, options: Options) -> Poses:
        """Find the people in an image [H, W, 3], uint8, RGB, and their poses."""

    @abc.abstractmethod
    def pose_people(
        self, image: ImageArray, camera: Camera, boxes_px: FloatArray, options: Options
    ) -> Poses:
        """Find the poses of the people in boxes [N, 4] or more columns, all of them."""

    @abc.abstractmethod
    def check(self, options: Options) -> None:
        """Raise a ValueError if this model cannot do what the options ask for."""

    def find_people_in(self, views: Sequence[View], options: Options) -> list[Poses]:
        """Find the people in several images and their poses."""
        return [self.find_people(image, camera, options) for image, camera in views]

    def pose_people_in(
        self, views: Sequence[View], boxes_px: Sequence[FloatArray], options: Options
    ) -> list[Poses]:
        """Find the poses of the people in boxes [N, 4] of several images, all of them."""
        return [
            self.pose_people(image, camera, own, options)
            for (image, camera), own in zip(views, boxes_px)
        ]

    @property
    def per_skeleton_joint_names(self) -> Mapping[str, list[str]]:
        """For each skeleton's name its joints' names."""
        return {
            name: list(convention.skeleton.joint_names)
            for name, convention in self._conventions.items()
        }

    @property
    def per_skeleton_joint_edges(self) -> Mapping[str, NDArray[np.int64]]:
        """For each skeleton's name its bones as pairs of joint indices, [E, 2]."""
        return {
            name: np.array(convention.skeleton.edges, np.int64).reshape(-1, 2)
            for name, convention in self._conventions.items()
        }

    @property
    def skeleton(self) -> Skeleton:
        """All joints of the network."""
        return self.convention('').skeleton

    def convention(self, name: str) -> Convention:
        """
        Return the convention of a name; the empty name stands for all joints of the network.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        if not isinstance(name, str):
            raise ValueError(f'skeleton is {_shown(name)}; it must be the name of a skeleton')
        if name == '':
            return next(iter(self._conventions.values()))
        if name not in self._conventions:
            known = ', '.join(repr(known) for known in self._conventions)
            raise ValueError(
                f"skeleton '{printable(name)}' is none of "
                f'{printable(known, LISTED_SKELETONS_CHARS)}'
            )
        return self._conventions[name]

    def detect_poses(
        self,
        image: ImageArray,
        intrinsic_matrix: ArrayLike | None = None,
        distortion_coeffs: ArrayLike | None = None,
        extrinsic_matrix: ArrayLike | None = None,
        world_up_vector: ArrayLike = DEFAULT_UP,
        default_fov_degrees: float = DEFAULT_FOV_DEGREES,
        internal_batch_size: int = 64,
        antialias_factor: int = 1,
        num_aug: int = 1,
        average_aug: bool = True,
        skeleton: str = '',
        detector_threshold: float | None = None,
        detector_nms_iou_threshold: float = DETECTOR_NMS_IOU,
        max_detections: int = -1,
        detector_flip_aug: bool | None = None,
        suppress_implausible_poses: bool = True,
    ) -> Prediction:
        """
        Find the people in an image and their absolute 3D poses.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        intrinsic_matrix
            [3, 3], pixels; without it, `default_fov_degrees` gives a guess.
        distortion_coeffs
            0, 4, 5, 8 or 12 in OpenCV's order.
        extrinsic_matrix
            [4, 4], world to camera, millimetres.
        world_up_vector
            [3], up in world coordinates.
        default_fov_degrees
            The field of view across the longer side, where the intrinsics are not known.
        internal_batch_size
            How many crops the network works on at once.
        antialias_factor
            Crops are sampled this many times as large and averaged down.
        num_aug
            How many differently rolled, scaled and mirrored crops of each person to look at.
        average_aug
            Return the mean over these; otherwise they have an axis of their own after the
            people's.
        skeleton
            One of `per_skeleton_joint_names`, or '' for all joints of the network.
        detector_threshold
            The lowest score of a detection that counts; None for what suits the detector.
        detector_nms_iou_threshold
            Of detections that overlap by more, one is left.
        max_detections
            Only so many people with the highest scores; -1 for all.
        detector_flip_aug
            Let the detector see the mirror image, too; None for what suits the detector.
        suppress_implausible_poses
            Drop poses that no person can take, and the same person's second pose.

        Returns
        -------
        ``boxes`` [N, 5]: left, top, width, height in pixels and confidence; ``poses3d``
        [N, J, 3]: millimetres, in the camera's frame, or the world's if an extrinsic matrix is
        given; ``poses2d`` [N, J, 2]: pixels.

        Raises
        ------
        ValueError
            If an argument cannot be what it says; the message names it and its value.
        """
        arguments = {name: value for name, value in locals().items() if name not in NON_OPTIONS}
        return self._detect([image], [arguments])[0]

    def estimate_poses(
        self,
        image: ImageArray,
        boxes: ArrayLike,
        intrinsic_matrix: ArrayLike | None = None,
        distortion_coeffs: ArrayLike | None = None,
        extrinsic_matrix: ArrayLike | None = None,
        world_up_vector: ArrayLike = DEFAULT_UP,
        default_fov_degrees: float = DEFAULT_FOV_DEGREES,
        internal_batch_size: int = 64,
        antialias_factor: int = 1,
        num_aug: int = 1,
        average_aug: bool = True,
        skeleton: str = '',
    ) -> Prediction:
        """
        Find the absolute 3D poses of people whose boxes are known.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        boxes
            [N, 4] or more columns: left, top, width, height in pixels.
        intrinsic_matrix, distortion_coeffs, extrinsic_matrix, world_up_vector
            As in `detect_poses`, and so are all other arguments.

        Returns
        -------
        ``poses3d`` [N, J, 3] and ``poses2d`` [N, J, 2], a row for each box.

        Raises
        ------
        ValueError
            If an argument cannot be what it says; the message names it and its value.
        """
        arguments = {name: value for name, value in locals().items() if name not in NON_OPTIONS}
        return self._estimate([image], [boxes], [arguments])[0]

    def detect_poses_batched(
        self, images: Sequence[ImageArray], **kwargs: Any
    ) -> dict[str, list[FloatArray]]:
        """
        Apply `detect_poses` to several images.

        `intrinsic_matrix`, `distortion_coeffs` and `extrinsic_matrix` may have a leading axis
        with one entry for each image; all other arguments hold for every image.

        Returns
        -------
        For each name in a prediction, one array an image.
        """
        images = _as_list('images', images)
        arguments = _of_images(self.detect_poses, kwargs, len(images))
        return _stacked(self._detect(images, arguments), ('boxes', 'poses3d', 'poses2d'))

    def estimate_poses_batched(
        self, images: Sequence[ImageArray], boxes: Sequence[ArrayLike], **kwargs: Any
    ) -> dict[str, list[FloatArray]]:
        """
        Apply `estimate_poses` to several images, each with its own boxes.

        The other arguments and the result are as in `detect_poses_batched`.
        """
        images, boxes = _as_list('images', images), _as_list('boxes', boxes)
        if len(images) != len(boxes):
            raise ValueError(f'boxes are for {len(boxes)} images, but there are {len(images)}')
        arguments = _of_images(self.estimate_poses, kwargs, len(images))
        return _stacked(self._estimate(images, boxes, arguments), ('poses3d', 'poses2d'))

    def _detect(
        self, images: Sequence[ImageArray], arguments: Sequence[dict[str, Any]]
    ) -> list[Prediction]:
        requests = [Request.of(image, own) for image, own in zip(images, arguments)]
        if not requests:
            return []
        conventions = [self.convention(request.skeleton) for request in requests]
        found = self.find_people_in([q.view for q in requests], requests[0].options)
        predictions = []
        for poses, request, convention in zip(found, requests, conventions):
            boxes = np.concatenate([poses.boxes_px, poses.scores[:, None]], axis=1)
            prediction = {'boxes': boxes, **_as_prediction(poses, request, convention)}
            finite = _finite_rows(prediction)
            predictions.append({name: rows[finite] for name, rows in prediction.items()})
        return predictions

    def _estimate(
        self,
        images: Sequence[ImageArray],
        boxes: Sequence[ArrayLike],
        arguments: Sequence[dict[str, Any]],
    ) -> list[Prediction]:
        requests = [Request.of(image, own) for image, own in zip(images, arguments)]
        if not requests:
            return []
        conventions = [self.convention(request.skeleton) for request in requests]
        checked = [_checked_boxes(own, image.shape) for own, image in zip(boxes, images)]
        # Poses of boxes that overflow are refused below.
        with np.errstate(all='ignore'):
            found = self.pose_people_in([q.view for q in requests], checked, requests[0].options)
        predictions = []
        for poses, request, convention, own in zip(found, requests, conventions, checked):
            prediction = _as_prediction(poses, request, convention)
            for box in own[~_finite_rows(prediction)]:
                raise ValueError(
                    f'boxes holds {box.tolist()}, whose pose is beyond all numbers with this '
                    'intrinsic_matrix, these distortion_coeffs and this extrinsic_matrix'
                )
            predictions.append(prediction)
        return predictions


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
    raise ValueError(f'{name} is {_shown(value)}; it must be a number')


def _shown(value: object) -> str:
    """Return the start of a value's `repr`, whatever the value is."""
    try:
        return printable(reprlib.repr(value))
    except ValueError:
        # An integer of too many digits.
        return f'of type {type(value).__name__}'


def _checked_boxes(boxes: ArrayLike, image_shape: tuple[int, ...]) -> FloatArray:
    array = as_numbers('boxes', boxes)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] < 4:
        raise ValueError(
            f'boxes has shape {array.shape}, expected [N, 4]: {_shown(array.tolist())}'
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


def _as_prediction(poses: Poses, request: Request, convention: Convention) -> Prediction:
    poses3d = request.view.camera.to_world(poses.poses3d_mm[:, :, convention.indices])
    poses2d = poses.poses2d_px[:, :, convention.indices]
    if request.average_aug:
        poses3d, poses2d = poses3d.mean(axis=1), poses2d.mean(axis=1)
    return {'poses3d': poses3d, 'poses2d': poses2d}


def _finite_rows(prediction: Prediction) -> NDArray[np.bool_]:
    """Tell which people's results are all finite, [N]."""
    finite = [
        np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))) for rows in prediction.values()
    ]
    return np.all(finite, axis=0)


def _as_list(name: str, values: Any) -> list[Any]:
    try:
        return list(values)
    except TypeError as error:
        raise ValueError(f'{name} is {_shown(values)}; it must be a sequence') from error


def _is_whole(value: object, least: int) -> bool:
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_number and int(value) >= least  # type: ignore[call-overload]


def _refuse_unless(fits: bool, name: str, options: Options, expected: str) -> None:
    if not fits:
        raise ValueError(f'{name} is {_shown(getattr(options, name))}; it must be {expected}')


def _of_images(
    ask: Callable[..., Prediction], kwargs: dict[str, Any], count: int
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
        values = _as_list(name, value)
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


def _stacked(
    predictions: Sequence[Prediction], names: Sequence[str]
) -> dict[str, list[FloatArray]]:
    return {name: [prediction[name] for prediction in predictions] for name in names}
