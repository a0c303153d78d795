"""BlazePose pipeline: detect, crop, run the network, place, check plausibility, and repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, ImageArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.blazepose.crops import sample_crops
from metrabs_ros.blazepose.detector import (
    BlazePoseDetector,
    RegionDetections,
    Tile,
    all_tiles,
    guess_neighbours,
)
from metrabs_ros.blazepose.network import BlazePoseLandmarks
from metrabs_ros.blazepose.regions import Regions, virtual_cameras_on_regions
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import Options, View
from metrabs_ros.people import UNKNOWN_ID, People, in_view
from metrabs_ros.placement.absolute import absolute_points, full_perspective
from metrabs_ros.plausibility import (
    has_plausible_size,
    is_confident,
    is_contained_duplicate,
    min_confidence,
    suppress_duplicates,
)
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17
from metrabs_ros.virtual_cameras import VirtualCameras

DETECTOR_THRESHOLD = 0.4
MIN_FIRST_CONFIDENCE = 0.1
"""Minimum confidence of the first estimate for the second one to be computed."""
BOX_MARGIN = 0.1
"""Sum of the margins on both sides of a box, as a share of the extent of the pose."""
MIN_ROTATION_DETERMINANT = 0.5
"""Minimum determinant of a usable rotation; it is 0 if the direction overflowed."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """
    How crops are sampled.

    Parameters
    ----------
    antialias_factor
        Crops are sampled this many times larger and averaged down.
    batch_size
        Maximum number of crops in memory.
    """

    antialias_factor: int = 1
    batch_size: int = 64

    @classmethod
    def from_options(cls, options: Options) -> Sampling:
        """Return the sampling that the options of a call request."""
        return cls(options.antialias_factor, options.internal_batch_size)


DEFAULT_SAMPLING = Sampling()


@dataclasses.dataclass(frozen=True)
class PosedRegions:
    """
    N people, and the regions in which to estimate their next poses.

    Parameters
    ----------
    people
        N people.
    regions
        N regions of interest around them, in image pixels.
    """

    people: People
    regions: Regions

    def select(self, which: NDArray[Any]) -> PosedRegions:
        """Return the people and regions selected by an index array or mask."""
        return PosedRegions(self.people.select(which), self.regions.select(which))

    @classmethod
    def concatenate(cls, parts: Sequence[PosedRegions]) -> PosedRegions:
        """Concatenate one or more sets of people and regions."""
        return cls(
            People.concatenate([part.people for part in parts]),
            Regions.concatenate(*(part.regions for part in parts)),
        )

    def more_confident_of(self, second: PosedRegions) -> PosedRegions:
        """
        Return, for each person, the more confident of this estimate and a second one.

        If the confidences are similar, the second estimate is used because its region is better.
        """
        use_second = second.people.confidence > self.people.confidence - 0.1
        both = PosedRegions.concatenate([self, second])
        return both.select(np.arange(len(use_second)) + len(use_second) * use_second)

    def scale_confidence(self, scores: FloatArray) -> PosedRegions:
        """Multiply the confidences by scores [N], for example those of the detector."""
        people = dataclasses.replace(self.people, confidence=self.people.confidence * scores)
        return PosedRegions(people, self.regions)

    def select_plausible(self, camera: Camera) -> PosedRegions:
        """Return the people with a confident and plausible pose, without duplicates."""
        people, tilt_degrees = self.people, self.regions.tilt_degrees(camera)
        posed = self.select(is_confident(people, tilt_degrees) & has_plausible_size(people))
        posed = posed.select(suppress_duplicates(posed.people, posed.people.confidence))
        return posed.select(~posed.is_contained_duplicate(posed.people.confidence))

    def is_contained_duplicate(self, priority: FloatArray) -> BoolArray:
        """Return which people may be duplicates; see `plausibility.is_contained_duplicate`."""
        return is_contained_duplicate(self.people, self.regions.parts(), priority)


class BlazePoseEstimator(PoseEstimator):
    """
    Pose estimator with BlazePose's landmarks and the full-perspective step of MeTRAbs.

    Parameters
    ----------
    detector
        Detects people in an image.
    landmarks
        Estimates the joints of the person in a crop.
    choice
        Description of the engine that runs the networks.
    """

    def __init__(
        self, detector: BlazePoseDetector, landmarks: BlazePoseLandmarks, choice: Choice
    ) -> None:
        super().__init__(
            {skeleton.name: skeleton.within(BLAZEPOSE_33) for skeleton in (BLAZEPOSE_33, COCO_17)},
            choice,
        )
        self._detector = detector
        self._landmarks = landmarks

    def check(self, options: Options) -> None:
        """Raise a ValueError if more than one augmentation is requested."""
        if options.num_aug != 1:
            raise ValueError(
                f'num_aug is {options.num_aug}; this model has no augmentations, so it must be 1'
            )

    def find_people(self, views: Sequence[View], options: Options) -> list[Poses]:
        """Detect people and estimate their poses, image by image; see `PoseEstimator`."""
        self.check(options)
        return [self._find_in_image(image, camera, options) for image, camera in views]

    def pose_people(
        self, views: Sequence[View], boxes_px: Sequence[FloatArray], options: Options
    ) -> list[Poses]:
        """Estimate the poses in boxes, image by image; see `PoseEstimator`."""
        self.check(options)
        return [
            self._pose_in_image(image, camera, image_boxes_px, options)
            for (image, camera), image_boxes_px in zip(views, boxes_px)
        ]

    def _find_in_image(self, image: ImageArray, camera: Camera, options: Options) -> Poses:
        flip_aug = options.detector_flip_aug
        detections = self._detector(
            image,
            all_tiles(image.shape),
            options.detector_threshold_or(DETECTOR_THRESHOLD),
            options.detector_nms_iou_threshold,
            True if flip_aug is None else flip_aug,
        )
        if options.max_detections >= 0:
            best = np.argsort(-detections.scores)[: options.max_detections]
            detections = detections.select(best)
        sampling = Sampling.from_options(options)
        if options.suppress_implausible_poses:
            posed = self.verify(image, camera, detections, sampling)
            proposals = RegionDetections.concatenate(
                [guess_neighbours(posed.regions, side) for side in (-1, 1)]
            )
            neighbours = self.verify(image, camera, proposals, sampling)
            posed = PosedRegions.concatenate([posed, neighbours]).select_plausible(camera)
        else:
            posed = self.estimate_twice(
                image, camera, detections.regions, sampling
            ).scale_confidence(detections.scores)
        posed = self.refine(image, camera, posed, sampling)
        if options.suppress_implausible_poses:
            posed = posed.select_plausible(camera)
        poses = _as_poses(posed.people)
        finite = np.asarray(np.isfinite(poses.poses3d_mm).all(axis=(1, 2, 3)))
        return poses.select(finite)

    def _pose_in_image(
        self, image: ImageArray, camera: Camera, boxes_px: FloatArray, options: Options
    ) -> Poses:
        sampling = Sampling.from_options(options)
        regions = Regions.around_boxes(boxes_px, camera)
        posed = self.estimate_twice(image, camera, regions, sampling)
        return _as_poses(self.refine(image, camera, posed, sampling).people)

    def detect(
        self, image: ImageArray, tiles: Sequence[Tile], options: Options
    ) -> RegionDetections:
        """Detect people in tiles of an image [H, W, 3], uint8, RGB."""
        threshold = options.detector_threshold_or(DETECTOR_THRESHOLD)
        return self._detector(image, tiles, threshold, options.detector_nms_iou_threshold)

    def verify(
        self,
        image: ImageArray,
        camera: Camera,
        detections: RegionDetections,
        sampling: Sampling = DEFAULT_SAMPLING,
    ) -> PosedRegions:
        """
        Estimate the poses of detections, and keep plausible people without duplicates.

        The regions of the landmark network are more accurate than those of the detector.
        Therefore, the pose of each person with a sufficient first estimate is estimated again.
        """
        detections = above_min_confidence(detections, camera)
        first = self.estimate(image, camera, detections.regions, sampling)
        candidates = np.flatnonzero(first.people.confidence > MIN_FIRST_CONFIDENCE)
        first = first.select(candidates).scale_confidence(detections.scores[candidates])
        kept = np.flatnonzero(suppress_duplicates(first.people, first.people.confidence))
        first, candidates = first.select(kept), candidates[kept]
        second = self.estimate(image, camera, first.regions, sampling).scale_confidence(
            detections.scores[candidates]
        )
        return first.more_confident_of(second).select_plausible(camera)

    def estimate_twice(
        self,
        image: ImageArray,
        camera: Camera,
        regions: Regions,
        sampling: Sampling = DEFAULT_SAMPLING,
    ) -> PosedRegions:
        """
        Estimate poses in approximate regions, then again in the resulting regions.

        The more confident estimate of each person is returned.
        """
        first = self.estimate(image, camera, regions, sampling)
        second = self.estimate(image, camera, first.regions, sampling)
        return first.more_confident_of(second)

    def refine(
        self,
        image: ImageArray,
        camera: Camera,
        posed: PosedRegions,
        sampling: Sampling = DEFAULT_SAMPLING,
    ) -> PosedRegions:
        """
        Estimate poses repeatedly, until they hardly depend on the initial regions.

        There are two iterations.  Each uses the mean of the estimates from the crop and from its
        mirror image.  The confidences are not changed.
        """
        regions = posed.regions
        for _ in range(2):
            estimates = [
                self.estimate(image, camera, regions, sampling, mirrored)
                for mirrored in (False, True)
            ]
            regions = Regions.mean([estimate.regions for estimate in estimates])
        poses_mm = np.mean([estimate.people.poses3d_mm for estimate in estimates], axis=0)
        visibility = np.mean([estimate.people.joint_confidence for estimate in estimates], axis=0)
        people = self._people(image, camera, poses_mm, visibility, posed.people.confidence)
        return PosedRegions(people, regions)

    def estimate(
        self,
        image: ImageArray,
        camera: Camera,
        regions: Regions,
        sampling: Sampling = DEFAULT_SAMPLING,
        mirrored: bool = False,
    ) -> PosedRegions:
        """
        Estimate the pose of the person in each region.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        camera
            The camera that took the image.
        regions
            N regions of interest in image pixels.
        sampling
            How the crops are sampled.
        mirrored
            Use the mirror image of each crop.

        Returns
        -------
        N people in the camera frame, in the skeleton of the network, including people with a low
        confidence.
        """
        if not len(regions):
            return PosedRegions(People.empty(self.skeleton), regions)
        starts = range(sampling.batch_size, len(regions), sampling.batch_size)
        batches = np.array_split(np.arange(len(regions)), starts)
        return PosedRegions.concatenate(
            [
                self._estimate_batch(
                    image, camera, regions.select(batch), sampling.antialias_factor, mirrored
                )
                for batch in batches
            ]
        )

    def _estimate_batch(
        self,
        image: ImageArray,
        camera: Camera,
        regions: Regions,
        antialias_factor: int,
        mirrored: bool,
    ) -> PosedRegions:
        network = self._landmarks
        # The computations overflow for regions far outside the image.
        with np.errstate(all='ignore'):
            virtual = virtual_cameras_on_regions(regions, camera, network.side_px, network.margin)
            is_usable = virtual.usable & (
                np.abs(np.linalg.det(virtual.rotation)) > MIN_ROTATION_DETERMINANT
            )
        virtual = replace_unusable(virtual, is_usable)
        if mirrored:
            virtual = virtual.mirrored()
        landmarks = network(sample_crops(image, camera, virtual, antialias_factor))
        image_points = virtual.normalise(landmarks.points_px)
        inside = virtual.is_inside(landmarks.points_px)
        poses_mm = virtual.to_camera(
            absolute_points(
                image_points,
                landmarks.root_relative_mm,
                full_perspective(image_points, landmarks.root_relative_mm, inside),
                inside,
            )
        )
        visibility = landmarks.visibility
        if mirrored:
            sides_swapped = self.skeleton.mirror
            poses_mm, visibility = poses_mm[:, sides_swapped], visibility[:, sides_swapped]
        presence, new_regions = landmarks.presence, landmarks.regions.in_image(virtual, camera)
        if not is_usable.all():
            poses_mm[~is_usable], presence[~is_usable] = np.nan, 0
            new_regions.centre_px[~is_usable] = new_regions.top_px[~is_usable] = np.nan
        people = self._people(image, camera, poses_mm, visibility, presence)
        return PosedRegions(people, new_regions)

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
            skeleton=self.skeleton,
            boxes_px=boxes_around(poses_px, image.shape),
            confidence=confidence,
            poses3d_mm=poses_mm,
            poses2d_px=poses_px,
            joint_confidence=visibility,
            in_view=in_view(poses_mm, poses_px, image.shape),
            ids=np.full(len(poses_mm), UNKNOWN_ID),
        )


class BlazePoseBoxes:
    """
    Person detector that returns the boxes of the poses estimated by BlazePose.

    Parameters
    ----------
    estimator
        The pose estimator.
    """

    def __init__(self, estimator: BlazePoseEstimator) -> None:
        self._estimator = estimator

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Detect people; see `BoxDetector`."""
        # BlazePose's false detections are recognised only by their poses.
        own_options = dataclasses.replace(
            options, num_aug=1, antialias_factor=1, suppress_implausible_poses=True
        )
        (poses,) = self._estimator.find_people([View(image, camera)], own_options)
        order = np.argsort(-poses.scores, kind='stable')
        return Boxes(poses.boxes_px, poses.scores).select(order).clipped_to(image.shape)


def replace_unusable(virtual: VirtualCameras, is_usable: BoolArray) -> VirtualCameras:
    """Replace virtual cameras that are not usable, mask [N], by cameras that look forward."""
    if is_usable.all():
        return virtual
    unusable = ~is_usable
    rotation, intrinsics = virtual.rotation.copy(), virtual.intrinsic_matrix.copy()
    scale = virtual.scale.copy()
    rotation[unusable], scale[unusable] = np.eye(3), 1
    intrinsics[unusable] = np.diag([virtual.side_px, virtual.side_px, 1.0])
    return VirtualCameras(rotation, intrinsics, virtual.side_px, scale)


def above_min_confidence(detections: RegionDetections, camera: Camera) -> RegionDetections:
    """Return the detections that can become confident; a score is the upper limit of that."""
    tilt_degrees = detections.regions.tilt_degrees(camera)
    return detections.select(detections.scores > min_confidence(tilt_degrees))


def boxes_around(poses_px: FloatArray, image_shape: tuple[int, ...]) -> FloatArray:
    """
    Return boxes [N, 4] (left, top, width, height) around image poses [N, J, 2].

    They are a tenth larger than the poses, and clipped to the image.
    """
    low, high = poses_px.min(axis=1), poses_px.max(axis=1)
    margin = BOX_MARGIN / 2 * (high - low)
    limit = np.array([image_shape[1], image_shape[0]], np.float64)
    low = np.clip(low - margin, 0, limit)
    high = np.clip(high + margin, 0, limit)
    return np.concatenate([low, high - low], axis=1)


def _as_poses(people: People) -> Poses:
    return Poses(
        people.boxes_px,
        people.confidence,
        people.poses3d_mm[:, None],
        people.poses2d_px[:, None],
        people.joint_confidence,
    )
