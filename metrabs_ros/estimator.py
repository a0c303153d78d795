"""The steps from an image to its people, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrabs_ros.absolute import absolute_points
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import DEFAULT_UP, Camera
from metrabs_ros.crop.circles import Circles, virtual_cameras_on_circles
from metrabs_ros.crop.sampling import sample_crops
from metrabs_ros.detectors.blazepose import (
    BlazePoseDetector,
    Detections,
    Tile,
    all_tiles,
    guess_neighbours,
)
from metrabs_ros.models.blazepose import BlazePoseLandmarks
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.plausibility import believable, convincing, distinct, needed_confidence
from metrabs_ros.skeleton import Skeleton

Prediction = dict[str, FloatArray]

DEFAULT_FOV_DEGREES = 55.0
DETECTOR_THRESHOLD = 0.4
DETECTOR_NMS_IOU = 0.7
FIRST_LOOK_PRESENCE = 0.1
BOX_MARGIN = 0.1


@dataclasses.dataclass(frozen=True)
class Sighting:
    """
    People, and where to look for them next.

    Parameters
    ----------
    people
        N of them.
    circles
        N circles around them, in image pixels.
    """

    people: People
    circles: Circles

    def select(self, which: NDArray[Any]) -> Sighting:
        """Return the people and their circles at an index array or mask."""
        return Sighting(self.people.select(which), self.circles.select(which))

    @classmethod
    def concatenate(cls, parts: Sequence[Sighting]) -> Sighting:
        """Join several sightings, of which there must be at least one."""
        return cls(
            People.concatenate([part.people for part in parts]),
            Circles.concatenate(*(part.circles for part in parts)),
        )

    def surer_of(self, again: Sighting) -> Sighting:
        """
        Return of each person the surer of this look and another one.

        Where there is little between them it is the other one, which had the better place to look.
        """
        surer = again.people.confidence > self.people.confidence - 0.1
        both = Sighting.concatenate([self, again])
        return both.select(np.arange(len(surer)) + len(surer) * surer)

    def weighted(self, scores: FloatArray) -> Sighting:
        """Multiply the people's confidences by scores [N], for example a detector's."""
        people = dataclasses.replace(self.people, confidence=self.people.confidence * scores)
        return Sighting(people, self.circles)

    def plausible(self, camera: Camera) -> Sighting:
        """Return those who are people, each of them once, with a pose that a body can take."""
        people, tilt_degrees = self.people, self.circles.tilt_degrees(camera)
        believed = self.select(convincing(people, tilt_degrees) & believable(people))
        return believed.select(distinct(believed.people, believed.people.confidence))


class PoseEstimator:
    """
    Absolute 3D poses of the people in an image.

    Parameters
    ----------
    detector
        Finds people in an image.
    landmarks
        Finds the joints of a person in a crop.
    skeletons
        The conventions that poses can be asked for in; the first is the network's own.
    """

    def __init__(
        self,
        detector: BlazePoseDetector,
        landmarks: BlazePoseLandmarks,
        skeletons: Sequence[Skeleton],
    ) -> None:
        self._detector = detector
        self._landmarks = landmarks
        self._skeletons = {skeleton.name: skeleton for skeleton in skeletons}

    @property
    def per_skeleton_joint_names(self) -> Mapping[str, list[str]]:
        """For each skeleton's name its joints' names."""
        return {name: list(skel.joint_names) for name, skel in self._skeletons.items()}

    @property
    def per_skeleton_joint_edges(self) -> Mapping[str, NDArray[np.int64]]:
        """For each skeleton's name its bones as pairs of joint indices, [E, 2]."""
        return {name: np.array(skel.edges) for name, skel in self._skeletons.items()}

    def skeleton(self, name: str) -> Skeleton:
        """
        Return the skeleton of a name; the empty name stands for the network's own.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        if not name:
            return next(iter(self._skeletons.values()))
        if name not in self._skeletons:
            raise ValueError(f'skeleton {name!r} is none of {", ".join(self._skeletons)}')
        return self._skeletons[name]

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
        detector_threshold: float = DETECTOR_THRESHOLD,
        detector_nms_iou_threshold: float = DETECTOR_NMS_IOU,
        max_detections: int = -1,
        detector_flip_aug: bool = True,
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
            Up to 12 in OpenCV's order.
        extrinsic_matrix
            [4, 4], world to camera, millimetres.
        world_up_vector
            [3], up in world coordinates.
        default_fov_degrees
            The field of view across the longer side, where the intrinsics are not known.
        internal_batch_size
            How many crops are held in memory at once.
        antialias_factor
            Crops are sampled this many times as large and averaged down.
        num_aug
            1: this network is not run on augmented crops.
        average_aug
            Without effect for one augmentation.
        skeleton
            One of `per_skeleton_joint_names`, or '' for the network's own.
        detector_threshold
            The lowest score of a detection that counts.
        detector_nms_iou_threshold
            Detections that overlap by more are merged.
        max_detections
            Only so many people with the highest scores; -1 for all.
        detector_flip_aug
            Let the detector see the mirror image, too, so that left and right are treated alike.
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
        wanted = self.skeleton(skeleton)
        camera = camera_from_arguments(
            image,
            intrinsic_matrix,
            distortion_coeffs,
            extrinsic_matrix,
            world_up_vector,
            default_fov_degrees,
        )
        _refuse_augmentations(num_aug)
        detections = self._detector(
            image,
            all_tiles(image.shape),
            detector_threshold,
            detector_nms_iou_threshold,
            detector_flip_aug,
        )
        if max_detections >= 0:
            detections = detections.select(np.argsort(-detections.scores)[:max_detections])
        if suppress_implausible_poses:
            sighting = self.believe(
                image, camera, detections, antialias_factor, internal_batch_size
            )
            guesses = Detections.concatenate(
                [guess_neighbours(sighting.circles, side) for side in (-1, 1)]
            )
            neighbours = self.believe(
                image, camera, guesses, antialias_factor, internal_batch_size
            )
            sighting = Sighting.concatenate([sighting, neighbours]).plausible(camera)
        else:
            sighting = self.look_twice(
                image, camera, detections.circles, antialias_factor, internal_batch_size
            ).weighted(detections.scores)
        sighting = self.settle(image, camera, sighting, antialias_factor, internal_batch_size)
        if suppress_implausible_poses:
            sighting = sighting.plausible(camera)
        people = sighting.people
        return _as_prediction(people, wanted, camera)

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
        wanted = self.skeleton(skeleton)
        camera = camera_from_arguments(
            image,
            intrinsic_matrix,
            distortion_coeffs,
            extrinsic_matrix,
            world_up_vector,
            default_fov_degrees,
        )
        _refuse_augmentations(num_aug)
        circles = Circles.around_boxes(_checked_boxes(boxes, image.shape), camera)
        sighting = self.look_twice(image, camera, circles, antialias_factor, internal_batch_size)
        sighting = self.settle(image, camera, sighting, antialias_factor, internal_batch_size)
        prediction = _as_prediction(sighting.people, wanted, camera)
        del prediction['boxes']
        return prediction

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
        return _stacked(
            [
                self.detect_poses(image, **_of_image(kwargs, i, len(images)))
                for i, image in enumerate(images)
            ],
            ('boxes', 'poses3d', 'poses2d'),
        )

    def estimate_poses_batched(
        self, images: Sequence[ImageArray], boxes: Sequence[ArrayLike], **kwargs: Any
    ) -> dict[str, list[FloatArray]]:
        """
        Apply `estimate_poses` to several images, each with its own boxes.

        The other arguments and the result are as in `detect_poses_batched`.
        """
        if len(images) != len(boxes):
            raise ValueError(f'boxes are for {len(boxes)} images, but there are {len(images)}')
        return _stacked(
            [
                self.estimate_poses(image, its_boxes, **_of_image(kwargs, i, len(images)))
                for i, (image, its_boxes) in enumerate(zip(images, boxes))
            ],
            ('poses3d', 'poses2d'),
        )

    def detect(self, image: ImageArray, tiles: Sequence[Tile]) -> Detections:
        """Look for people in some tiles of an image [H, W, 3], uint8, RGB."""
        return self._detector(image, tiles, DETECTOR_THRESHOLD, DETECTOR_NMS_IOU)

    def believe(
        self,
        image: ImageArray,
        camera: Camera,
        detections: Detections,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
    ) -> Sighting:
        """
        Look at what was detected, and keep whom the pose network confirms, each person once.

        The detector's circles are coarse; those of the landmark network are steadier.  So who
        passes the first look is looked at again.
        """
        detections = with_a_chance(detections, camera)
        first = self.look(image, camera, detections.circles, antialias_factor, internal_batch_size)
        chance = np.flatnonzero(first.people.confidence > FIRST_LOOK_PRESENCE)
        first = first.select(chance).weighted(detections.scores[chance])
        once = np.flatnonzero(distinct(first.people, first.people.confidence))
        chance = chance[once]
        again = self.look(
            image, camera, first.circles.select(once), antialias_factor, internal_batch_size
        ).weighted(detections.scores[chance])
        return first.select(once).surer_of(again).plausible(camera)

    def look_twice(
        self,
        image: ImageArray,
        camera: Camera,
        circles: Circles,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
    ) -> Sighting:
        """
        Look at people where they are roughly, then where the first look has found them.

        Of each person the look counts in which the network was surer that there is one.
        """
        first = self.look(image, camera, circles, antialias_factor, internal_batch_size)
        again = self.look(image, camera, first.circles, antialias_factor, internal_batch_size)
        return first.surer_of(again)

    def settle(
        self,
        image: ImageArray,
        camera: Camera,
        sighting: Sighting,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
    ) -> Sighting:
        """
        Look on until the poses hardly depend on how the people were found.

        Twice, each time at the person and at the mirror image, and with the mean of both.  The
        confidences remain.
        """
        circles = sighting.circles
        for _ in range(2):
            looks = [
                self.look(image, camera, circles, antialias_factor, internal_batch_size, mirrored)
                for mirrored in (False, True)
            ]
            circles = Circles.mean([look.circles for look in looks])
        poses_mm = np.mean([look.people.poses3d_mm for look in looks], axis=0)
        visibility = np.mean([look.people.joint_confidence for look in looks], axis=0)
        people = self._people(image, camera, poses_mm, visibility, sighting.people.confidence)
        return Sighting(people, circles)

    def look(
        self,
        image: ImageArray,
        camera: Camera,
        circles: Circles,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
        mirrored: bool = False,
    ) -> Sighting:
        """
        Estimate the pose of the person in each circle.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        camera
            The camera that took it.
        circles
            N circles in image pixels.
        antialias_factor
            Crops are sampled this many times as large and averaged down.
        internal_batch_size
            How many crops are held in memory at once.
        mirrored
            Show the network each person's mirror image.

        Returns
        -------
        N people in the camera's frame, in the network's own skeleton, the improbable ones
        included.
        """
        starts = range(internal_batch_size, len(circles), internal_batch_size)
        batches = np.array_split(np.arange(len(circles)), starts)
        return Sighting.concatenate(
            [
                self._look_at_batch(
                    image, camera, circles.select(batch), antialias_factor, mirrored
                )
                for batch in batches
            ]
        )

    def _look_at_batch(
        self,
        image: ImageArray,
        camera: Camera,
        circles: Circles,
        antialias_factor: int,
        mirrored: bool,
    ) -> Sighting:
        network = self._landmarks
        virtual = virtual_cameras_on_circles(circles, camera, network.side_px, network.margin)
        if mirrored:
            virtual = virtual.mirrored()
        seen = network(sample_crops(image, camera, virtual, antialias_factor))
        poses_mm = virtual.to_camera(
            absolute_points(
                virtual.normalise(seen.points_px),
                seen.root_relative_mm,
                virtual.inside(seen.points_px),
            )
        )
        visibility = seen.visibility
        if mirrored:
            sides_swapped = self.skeleton('').mirror
            poses_mm, visibility = poses_mm[:, sides_swapped], visibility[:, sides_swapped]
        people = self._people(image, camera, poses_mm, visibility, seen.presence)
        return Sighting(people, seen.circles.in_image(virtual, camera))

    def _people(
        self,
        image: ImageArray,
        camera: Camera,
        poses_mm: FloatArray,
        visibility: FloatArray,
        confidence: FloatArray,
    ) -> People:
        poses_px = camera.project(poses_mm)
        return People(
            skeleton=self.skeleton(''),
            boxes_px=boxes_around(poses_px, image.shape),
            confidence=confidence,
            poses3d_mm=poses_mm,
            poses2d_px=poses_px,
            joint_confidence=visibility,
            in_view=(poses_mm[..., 2] > 0) & _inside_image(poses_px, image.shape),
            ids=np.full(len(poses_mm), UNKNOWN_ID),
        )


def with_a_chance(detections: Detections, camera: Camera) -> Detections:
    """Return those that may yet convince: no confidence exceeds the detector's score."""
    tilt_degrees = detections.circles.tilt_degrees(camera)
    return detections.select(detections.scores > needed_confidence(tilt_degrees))


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
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f'image has shape {image.shape} and type {image.dtype}; it must be [H, W, 3] uint8 RGB'
        )
    lens_and_place = {
        'distortion_coeffs': np.asarray([] if distortion_coeffs is None else distortion_coeffs),
        'extrinsic_matrix': np.asarray(
            np.eye(4) if extrinsic_matrix is None else extrinsic_matrix
        ),
        'world_up_vector': np.asarray(world_up_vector),
    }
    if intrinsic_matrix is None:
        return Camera.from_fov(default_fov_degrees, image.shape, **lens_and_place)
    return Camera(np.asarray(intrinsic_matrix), **lens_and_place)


def boxes_around(poses_px: FloatArray, image_shape: tuple[int, ...]) -> FloatArray:
    """
    Return boxes [N, 4] (left, top, width, height) around image poses [N, J, 2].

    They are a tenth larger than the poses and end at the image's edges.
    """
    low, high = poses_px.min(axis=1), poses_px.max(axis=1)
    margin = BOX_MARGIN / 2 * (high - low)
    limit = np.array([image_shape[1], image_shape[0]], np.float64)
    low = np.clip(low - margin, 0, limit)
    high = np.clip(high + margin, 0, limit)
    return np.concatenate([low, high - low], axis=1)


def _inside_image(points_px: FloatArray, image_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    limit = (image_shape[1] - 0.5, image_shape[0] - 0.5)
    return np.all((points_px >= -0.5) & (points_px < limit), axis=-1)


def _as_prediction(people: People, skeleton: Skeleton, camera: Camera) -> Prediction:
    people = people.with_skeleton(skeleton)
    return {
        'boxes': np.concatenate([people.boxes_px, people.confidence[:, None]], axis=1),
        'poses3d': camera.to_world(people.poses3d_mm),
        'poses2d': people.poses2d_px,
    }


def _checked_boxes(boxes: ArrayLike, image_shape: tuple[int, ...]) -> FloatArray:
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] < 4:
        raise ValueError(f'boxes has shape {array.shape}, expected [N, 4]')
    height, width = image_shape[:2]
    for box in array[:, :4]:
        left, top, box_width, box_height = box
        if not np.isfinite(box).all() or min(box_width, box_height) <= 0:
            raise ValueError(f'boxes holds {box.tolist()}, which has no area')
        if left >= width or top >= height or left + box_width <= 0 or top + box_height <= 0:
            raise ValueError(
                f'boxes holds {box.tolist()}, outside of the {width} x {height} image'
            )
    return array


def _refuse_augmentations(num_aug: int) -> None:
    if num_aug != 1:
        raise ValueError(f'num_aug is {num_aug}; this model has no augmentations, so it must be 1')


def _of_image(kwargs: dict[str, Any], index: int, count: int) -> dict[str, Any]:
    """Pick one image's entry of the arguments that can differ from image to image."""
    own_axes = {'intrinsic_matrix': 2, 'distortion_coeffs': 1, 'extrinsic_matrix': 2}
    picked = dict(kwargs)
    for name, axes in own_axes.items():
        value = kwargs.get(name)
        if value is None or np.ndim(value) == axes:
            continue
        if len(value) not in (1, count):
            raise ValueError(f'{name} has {len(value)} entries for {count} images')
        picked[name] = value[index % len(value)]
    return picked


def _stacked(
    predictions: Sequence[Prediction], names: Sequence[str]
) -> dict[str, list[FloatArray]]:
    return {name: [prediction[name] for prediction in predictions] for name in names}
