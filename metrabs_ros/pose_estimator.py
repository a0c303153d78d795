"""The front door: from an image and what is known of its camera to its people's poses."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.camera import DEFAULT_UP, Camera
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
from metrabs_ros.skeletons.conventions import Convention, Skeleton

Prediction = dict[str, FloatArray]

LISTED_SKELETONS_CHARS = 1000
NON_OPTIONS = ('self', 'image', 'boxes')


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
            raise ValueError(
                f'skeleton is {format_value(name)}; it must be the name of a skeleton'
            )
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
        images = as_list('images', images)
        arguments = arguments_per_image(self.detect_poses, kwargs, len(images))
        return _stacked(self._detect(images, arguments), ('boxes', 'poses3d', 'poses2d'))

    def estimate_poses_batched(
        self, images: Sequence[ImageArray], boxes: Sequence[ArrayLike], **kwargs: Any
    ) -> dict[str, list[FloatArray]]:
        """
        Apply `estimate_poses` to several images, each with its own boxes.

        The other arguments and the result are as in `detect_poses_batched`.
        """
        images, boxes = as_list('images', images), as_list('boxes', boxes)
        if len(images) != len(boxes):
            raise ValueError(f'boxes are for {len(boxes)} images, but there are {len(images)}')
        arguments = arguments_per_image(self.estimate_poses, kwargs, len(images))
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
        checked = [check_boxes(own, image.shape) for own, image in zip(boxes, images)]
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


def _stacked(
    predictions: Sequence[Prediction], names: Sequence[str]
) -> dict[str, list[FloatArray]]:
    return {name: [prediction[name] for prediction in predictions] for name in names}
