"""Python API of all models: from an image and camera parameters to absolute 3D poses."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrabs_ros.arrays import FloatArray, ImageArray, StructOfArrays
from metrabs_ros.backends.selection import Choice
from metrabs_ros.camera import DEFAULT_UP
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import (
    DEFAULT_FOV_DEGREES,
    DETECTOR_NMS_IOU,
    Options,
    Request,
    View,
    arguments_per_image,
    as_list,
    check_boxes,
    format_value,
)
from metrabs_ros.people import MM_PER_M, implied_statures_mm
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import Definition, PointSkeleton

Prediction = dict[str, FloatArray]
SkeletonArgument = str | os.PathLike[str] | ArrayLike
"""A name, or canonical points; see `PoseEstimator.detect_poses`."""

MAX_SKELETON_NAMES_CHARS = 1000
"""Maximum length of the list of skeleton names in an error message."""
POSE_ARRAYS = ('poses3d', 'poses2d', 'network_poses2d', 'joint_confidences')
"""Arrays of a prediction, apart from the boxes."""
POSITIONAL_ARGUMENTS = ('self', 'image', 'boxes')
"""Arguments of the methods that are not passed on by name."""


@dataclasses.dataclass(frozen=True)
class Poses(StructOfArrays):
    """
    Poses of N people, with the J joints of `PoseEstimator.posed_skeleton`, in A augmentations.

    Parameters
    ----------
    boxes_px
        [N, 4], left, top, width, height.
    scores
        [N], detection scores from 0 to 1.
    poses3d_mm
        [N, A, J, 3], camera frame.
    poses2d_px
        [N, A, J, 2], image pixels.
    joint_confidence
        [N, J], visibility of the joints from 0 to 1; [N, 0] if the network does not estimate it.
    network_poses2d_px
        [N, A, J, 2], image points of the network; by default `poses2d_px`, which are projections.
    joint_std_mm
        [N, J], standard deviations of the joint positions that the network estimates; [N, 0] if it
        does not.
    """

    boxes_px: FloatArray
    scores: FloatArray
    poses3d_mm: FloatArray
    poses2d_px: FloatArray
    joint_confidence: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    network_poses2d_px: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    joint_std_mm: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """Fill in the default values of optional arrays."""
        if self.network_poses2d_px.shape != self.poses2d_px.shape:
            object.__setattr__(self, 'network_poses2d_px', self.poses2d_px)
        for name in ('joint_confidence', 'joint_std_mm'):
            if getattr(self, name).shape == (0,):
                object.__setattr__(self, name, np.zeros((len(self.boxes_px), 0)))


class PoseEstimator(abc.ABC):
    """
    Abstract base class of models for absolute 3D human poses.

    The keyword arguments are those of the MeTRAbs API.  Engines reuse their memory: a model must
    not be called by several threads at the same time.

    Parameters
    ----------
    conventions
        Available joint conventions by name.  The first one is the default.
    choice
        Engine, precision and device that run the network.
    """

    def __init__(self, conventions: Mapping[str, Convention], choice: Choice) -> None:
        self._conventions = dict(conventions)
        self.choice = choice
        self.stature_bias = 1.0
        """
        Ratio of the statures that the bones of predicted poses imply to those of people who appear
        as tall in the image: bones contain the depth, in which networks differ.
        """
        self.detects_in_background = False
        """
        Whether streams detect people in the background, while the network processes the next image
        of known people; see `start_detection`.
        """

    @abc.abstractmethod
    def find_people(self, views: Sequence[View], options: Options) -> list[Poses]:
        """Detect the people in images and estimate their poses; one result for each view."""

    def start_detection(self, view: View, options: Options) -> Future[tuple[FloatArray, ...]]:
        """
        Start to detect people in an image in the background.

        Returns
        -------
        The future boxes [N, 4] (left, top, width, height in pixels) and scores [N].
        """
        raise NotImplementedError(f'{type(self).__name__} does not detect in the background')

    @abc.abstractmethod
    def pose_people(
        self, views: Sequence[View], boxes_px: Sequence[FloatArray], options: Options
    ) -> list[Poses]:
        """
        Estimate one pose for each of the boxes in images; none is suppressed.

        Parameters
        ----------
        views
            The images and their cameras.
        boxes_px
            For each view, its boxes [N, 4]: left, top, width, height.
        options
            Options of pose estimation.

        Returns
        -------
        For each view, the poses in its boxes.
        """

    @abc.abstractmethod
    def plausible_people(self, poses: Poses) -> NDArray[np.intp]:
        """Return the indices of people with plausible poses, without duplicates, best first."""

    @abc.abstractmethod
    def check(self, options: Options) -> None:
        """Raise a ValueError if this model does not support the options."""

    @property
    def per_skeleton_joint_names(self) -> Mapping[str, list[str]]:
        """The joint names of each skeleton, by the name of the skeleton."""
        return {
            name: list(convention.skeleton.joint_names)
            for name, convention in self._conventions.items()
        }

    @property
    def per_skeleton_joint_edges(self) -> Mapping[str, NDArray[np.int64]]:
        """The bones of each skeleton as pairs of joint indices [E, 2], by its name."""
        return {
            name: np.array(convention.skeleton.edges, np.int64).reshape(-1, 2)
            for name, convention in self._conventions.items()
        }

    def add_skeletons(self, definitions: Iterable[Definition]) -> None:
        """
        Add joint conventions that combine joints of the existing ones, or points of the body.

        Raises
        ------
        ValueError
            If the model lacks a joint that a definition combines, has a skeleton of its name, or
            does not localise points.
        """
        for definition in definitions:
            name = definition.skeleton.name
            if name in self._conventions:
                raise ValueError(
                    f'skeleton {definition.shown_name} exists already in this model; give the '
                    'definition another name'
                )
            if isinstance(definition, PointSkeleton):
                self._conventions[name] = self._point_convention(definition)
            else:
                self._conventions[name] = definition.within(self._conventions)

    def _point_convention(self, definition: PointSkeleton) -> Convention:
        """Return a convention of points, which are added to all joints of the network."""
        raise ValueError(
            f'skeleton {definition.shown_name} consists of points of the body, which only NLF '
            'networks localise; use nlf_s or nlf_l'
        )

    @property
    def skeleton(self) -> Skeleton:
        """All joints of the network."""
        return self.convention('').skeleton

    def posed_skeleton(self, options: Options) -> Skeleton:
        """Return the joints of `Poses`: by default all joints of the network."""
        return self.skeleton

    def requested_convention(self, options: Options) -> Convention:
        """Return the requested joints as combinations of those of `posed_skeleton`."""
        return self.convention(options.skeleton)

    def skeleton_name(self, skeleton: SkeletonArgument) -> str:
        """
        Return the name of a skeleton that is given as an argument.

        Raises
        ------
        ValueError
            If the model does not have this skeleton.
        """
        if not isinstance(skeleton, str):
            raise ValueError(
                f'skeleton is {format_value(skeleton)}; it must be the name of a skeleton, as '
                'only NLF networks localise points of the body'
            )
        self.convention(skeleton)
        return skeleton

    def convention(self, name: str) -> Convention:
        """
        Return a joint convention by name; '' means all joints of the network.

        Raises
        ------
        ValueError
            If the model does not have this convention.
        """
        if name == '':
            return next(iter(self._conventions.values()))
        if name not in self._conventions:
            known = ', '.join(repr(known) for known in self._conventions)
            raise ValueError(
                f"skeleton is '{printable(name)}'; it must be one of "
                f'{printable(known, MAX_SKELETON_NAMES_CHARS)}'
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
        skeleton: SkeletonArgument = '',
        detector_threshold: float | None = None,
        detector_nms_iou_threshold: float = DETECTOR_NMS_IOU,
        max_detections: int = -1,
        detector_flip_aug: bool | None = None,
        suppress_implausible_poses: bool = True,
        stature: float | None = None,
    ) -> Prediction:
        """
        Detect the people in an image and estimate their absolute 3D poses.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        intrinsic_matrix
            [3, 3], pixels.  If it is None, the focal length follows from `default_fov_degrees`.
        distortion_coeffs
            0, 4, 5, 8 or 12 coefficients in OpenCV's order.
        extrinsic_matrix
            [4, 4], world to camera, millimetres.
        world_up_vector
            [3], up direction in world coordinates.
        default_fov_degrees
            Field of view across the longer side, if there is no intrinsic matrix.
        internal_batch_size
            Maximum number of crops in one run of the network.
        antialias_factor
            Supersampling factor: crops are sampled at this multiple of their size and averaged.
        num_aug
            Number of test-time augmentations: crops of each person that are rotated, scaled and
            mirrored differently.
        average_aug
            Whether to return the mean over the augmentations, or with NLF their geometric median.
            Otherwise the poses have an additional axis for them after the axis of the people.
        skeleton
            One of `per_skeleton_joint_names`, or '' for all joints of the network.  With NLF also
            the points of the body to localise: an array [J, 3] of canonical points in metres, or
            the path of a .npy file with one; see docs/skeletons.md.
        detector_threshold
            Minimum detection score; None for the default of the detector.
        detector_nms_iou_threshold
            IoU threshold of non-maximum suppression.
        max_detections
            Maximum number of people, those with the highest scores; -1 for no limit.
        detector_flip_aug
            Whether the detector also runs on the mirrored image; None for the default of the
            detector.
        suppress_implausible_poses
            Whether to remove anatomically implausible poses and duplicates, and with BlazePose the
            people on whom its network and the detector disagree.
        stature
            Stature of all people in the image, in millimetres, to which the poses are scaled; None
            if it is not known.  The poses are then those of average adults.

        Returns
        -------
        ``boxes`` [N, 5]: left, top, width, height in pixels, and confidence; ``poses3d``
        [N, J, 3]: millimetres, in the camera frame, or in the world frame if an extrinsic matrix
        is given; ``poses2d`` [N, J, 2]: pixels, the projection of ``poses3d``;
        ``network_poses2d`` [N, J, 2]: pixels, the image points that the network estimates, which
        fit the image better, but not the pose; ``joint_confidences`` [N, J]: from 0 to 1, that the
        joint is visible, or the confidence of the person if the network does not estimate it.
        With NLF also ``uncertainties`` [N, J]: standard deviations in metres, from which the
        confidences of the joints are derived.

        Raises
        ------
        ValueError
            If an argument is not valid; the message contains its name and value.
        """
        arguments = {k: v for k, v in locals().items() if k not in POSITIONAL_ARGUMENTS}
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
        skeleton: SkeletonArgument = '',
        stature: float | None = None,
    ) -> Prediction:
        """
        Estimate the absolute 3D poses of people in given boxes.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        boxes
            [N, 4] or more columns: left, top, width, height in pixels.
        intrinsic_matrix, distortion_coeffs, extrinsic_matrix, world_up_vector
            See `detect_poses`, also for all other arguments.

        Returns
        -------
        As of `detect_poses`, one row for each box, without ``boxes``.

        Raises
        ------
        ValueError
            If an argument is not valid; the message contains its name and value.
        """
        arguments = {k: v for k, v in locals().items() if k not in POSITIONAL_ARGUMENTS}
        return self._estimate([image], [boxes], [arguments])[0]

    def detect_poses_batched(
        self, images: Sequence[ImageArray], **kwargs: Any
    ) -> dict[str, list[FloatArray]]:
        """
        Apply `detect_poses` to several images.

        `intrinsic_matrix`, `distortion_coeffs` and `extrinsic_matrix` may have a leading axis
        with one entry for each image.  All other arguments apply to every image.

        Returns
        -------
        The results of `detect_poses`: by name, a list with one array for each image.
        """
        images = as_list('images', images)
        arguments = arguments_per_image(self.detect_poses, kwargs, len(images))
        return _stack_predictions(self._detect(images, arguments), ('boxes', *POSE_ARRAYS))

    def estimate_poses_batched(
        self, images: Sequence[ImageArray], boxes: Sequence[ArrayLike], **kwargs: Any
    ) -> dict[str, list[FloatArray]]:
        """
        Apply `estimate_poses` to several images, each with its own boxes.

        See `detect_poses_batched` for the other arguments and the result.
        """
        images, boxes = as_list('images', images), as_list('boxes', boxes)
        if len(images) != len(boxes):
            raise ValueError(
                f'boxes has {len(boxes)} entries for {len(images)} images; give one list of boxes '
                'for each image'
            )
        arguments = arguments_per_image(self.estimate_poses, kwargs, len(images))
        return _stack_predictions(self._estimate(images, boxes, arguments), POSE_ARRAYS)

    def _parse(
        self, images: Sequence[ImageArray], arguments: Sequence[dict[str, Any]]
    ) -> list[Request]:
        if not arguments:
            return []
        # It is the same for all images; a file of points is read once.
        skeleton = self.skeleton_name(arguments[0]['skeleton'])
        return [
            Request.parse(image, {**own, 'skeleton': skeleton})
            for image, own in zip(images, arguments)
        ]

    def _detect(
        self, images: Sequence[ImageArray], arguments: Sequence[dict[str, Any]]
    ) -> list[Prediction]:
        requests = self._parse(images, arguments)
        if not requests:
            return []
        detected = self.find_people([q.view for q in requests], requests[0].options)
        predictions = []
        for poses, request in zip(detected, requests):
            boxes = np.concatenate([poses.boxes_px, poses.scores[:, None]], axis=1)
            prediction = {'boxes': boxes, **self._as_prediction(poses, request)}
            finite = _finite_rows(prediction)
            predictions.append({name: rows[finite] for name, rows in prediction.items()})
        return predictions

    def _estimate(
        self,
        images: Sequence[ImageArray],
        boxes: Sequence[ArrayLike],
        arguments: Sequence[dict[str, Any]],
    ) -> list[Prediction]:
        requests = self._parse(images, arguments)
        if not requests:
            return []
        boxes_px = [check_boxes(rows, image.shape) for rows, image in zip(boxes, images)]
        # Boxes with results that overflow are rejected below.
        with np.errstate(all='ignore'):
            views = [request.view for request in requests]
            estimated = self.pose_people(views, boxes_px, requests[0].options)
        predictions = []
        for poses, request, rows in zip(estimated, requests, boxes_px):
            prediction = self._as_prediction(poses, request)
            for box in rows[~_finite_rows(prediction)]:
                raise ValueError(
                    f'boxes contains {box.tolist()}, for which the pose overflows with this '
                    'intrinsic_matrix, these distortion_coeffs and this extrinsic_matrix'
                )
            predictions.append(prediction)
        return predictions

    def _as_prediction(self, poses: Poses, request: Request) -> Prediction:
        """Return the requested joints, in the world frame, with the requested stature."""
        camera, options, poses3d_mm = request.view.camera, request.options, poses.poses3d_mm
        convention = self.requested_convention(options)
        depths_mm = poses3d_mm[..., 2]
        if options.stature is not None:
            posed = self.posed_skeleton(options)
            statures_mm = implied_statures_mm(poses3d_mm, posed) / self.stature_bias
            factors = options.stature / statures_mm
            poses3d_mm = np.where(np.isfinite(factors), factors, 1)[..., None, None] * poses3d_mm
        joints_mm = convention.positions(poses3d_mm)
        poses3d = camera.to_world(joints_mm)
        network_poses2d = convention.image_points(poses.network_poses2d_px, depths_mm)
        poses2d = (
            convention.image_points(poses.poses2d_px, depths_mm)
            if convention.weights is None
            else camera.project(joints_mm)
        )
        if options.average_aug:
            poses3d, poses2d, network_poses2d = (
                values.mean(axis=1) for values in (poses3d, poses2d, network_poses2d)
            )
        confidences = np.repeat(poses.scores[:, None], len(convention.skeleton), axis=1)
        if poses.joint_confidence.shape[1]:
            confidences = convention.confidences(poses.joint_confidence)
        arrays = (poses3d, poses2d, network_poses2d, confidences)
        prediction = dict(zip(POSE_ARRAYS, arrays))
        if poses.joint_std_mm.shape[1]:
            prediction['uncertainties'] = convention.deviations(poses.joint_std_mm) / MM_PER_M
        return prediction


def _finite_rows(prediction: Prediction) -> NDArray[np.bool_]:
    """Return a mask [N] of the people with finite results."""
    finite = [
        np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))) for rows in prediction.values()
    ]
    return np.all(finite, axis=0)


def _stack_predictions(
    predictions: Sequence[Prediction], names: Sequence[str]
) -> dict[str, list[FloatArray]]:
    # Networks that estimate standard deviations return a further array.
    names = list(predictions[0]) if predictions else names
    return {name: [prediction[name] for prediction in predictions] for name in names}
