"""BlazePose's steps: detect -> crop -> network -> absolute -> plausibility, and once more."""

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
    Detections,
    Tile,
    all_tiles,
    guess_neighbours,
)
from metrabs_ros.blazepose.network import BlazePoseLandmarks
from metrabs_ros.blazepose.regions import Regions, virtual_cameras_on_regions
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import Options
from metrabs_ros.people import UNKNOWN_ID, People, in_view
from metrabs_ros.placement.absolute import absolute_points, full_perspective
from metrabs_ros.plausibility import (
    has_plausible_size,
    is_confident,
    is_contained_duplicate,
    needed_confidence,
    suppress_duplicates,
)
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17
from metrabs_ros.virtual_cameras import VirtualCameras

DETECTOR_THRESHOLD = 0.4
FIRST_PASS_PRESENCE = 0.1
BOX_MARGIN = 0.1
LEAST_DETERMINANT = 0.5
"""Of a rotation; that towards a direction that overflows has 0."""


@dataclasses.dataclass(frozen=True)
class PosedRegions:
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
    regions: Regions

    def select(self, which: NDArray[Any]) -> PosedRegions:
        """Return the people and their circles at an index array or mask."""
        return PosedRegions(self.people.select(which), self.regions.select(which))

    @classmethod
    def concatenate(cls, parts: Sequence[PosedRegions]) -> PosedRegions:
        """Join several sightings, of which there must be at least one."""
        return cls(
            People.concatenate([part.people for part in parts]),
            Regions.concatenate(*(part.regions for part in parts)),
        )

    def more_confident_of(self, again: PosedRegions) -> PosedRegions:
        """
        Return of each person the surer of this look and another one.

        Where there is little between them it is the other one, which had the better place to look.
        """
        surer = again.people.confidence > self.people.confidence - 0.1
        both = PosedRegions.concatenate([self, again])
        return both.select(np.arange(len(surer)) + len(surer) * surer)

    def weighted(self, scores: FloatArray) -> PosedRegions:
        """Multiply the people's confidences by scores [N], for example a detector's."""
        people = dataclasses.replace(self.people, confidence=self.people.confidence * scores)
        return PosedRegions(people, self.regions)

    def plausible(self, camera: Camera) -> PosedRegions:
        """Return those who are people, each of them once, with a pose that a body can take."""
        people, tilt_degrees = self.people, self.regions.tilt_degrees(camera)
        believed = self.select(is_confident(people, tilt_degrees) & has_plausible_size(people))
        once = believed.select(suppress_duplicates(believed.people, believed.people.confidence))
        return once.select(~once.is_contained_duplicate(once.people.confidence))

    def is_contained_duplicate(self, priority: FloatArray) -> BoolArray:
        """Tell who may be but somebody else of a larger priority [N]; see `plausibility`."""
        return is_contained_duplicate(self.people, self.regions.parts(), priority)


class BlazePoseEstimator(PoseEstimator):
    """
    Absolute poses from BlazePose's landmarks, by the full-perspective step of MeTRAbs.

    Parameters
    ----------
    detector
        Finds people in an image.
    landmarks
        Finds the joints of a person in a crop.
    choice
        What runs them.
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
        """Raise a ValueError if there are to be several augmentations."""
        if options.num_aug != 1:
            raise ValueError(
                f'num_aug is {options.num_aug}; this model has no augmentations, so it must be 1'
            )

    def find_people(self, image: ImageArray, camera: Camera, options: Options) -> Poses:
        """Find the people in an image and their poses; see `PoseEstimator`."""
        self.check(options)
        flip_aug = options.detector_flip_aug
        detections = self._detector(
            image,
            all_tiles(image.shape),
            options.detector_threshold_or(DETECTOR_THRESHOLD),
            options.detector_nms_iou_threshold,
            True if flip_aug is None else flip_aug,
        )
        if options.max_detections >= 0:
            surest = np.argsort(-detections.scores)[: options.max_detections]
            detections = detections.select(surest)
        sampling = (options.antialias_factor, options.internal_batch_size)
        if options.suppress_implausible_poses:
            posed = self.verify(image, camera, detections, *sampling)
            guesses = Detections.concatenate(
                [guess_neighbours(posed.regions, side) for side in (-1, 1)]
            )
            neighbours = self.verify(image, camera, guesses, *sampling)
            posed = PosedRegions.concatenate([posed, neighbours]).plausible(camera)
        else:
            posed = self.estimate_twice(image, camera, detections.regions, *sampling).weighted(
                detections.scores
            )
        posed = self.refine(image, camera, posed, *sampling)
        if options.suppress_implausible_poses:
            posed = posed.plausible(camera)
        poses = _as_poses(posed.people)
        finite = np.asarray(np.isfinite(poses.poses3d_mm).all(axis=(1, 2, 3)))
        return poses.select(finite)

    def pose_people(
        self, image: ImageArray, camera: Camera, boxes_px: FloatArray, options: Options
    ) -> Poses:
        """Find the poses of the people in boxes; see `PoseEstimator`."""
        self.check(options)
        sampling = (options.antialias_factor, options.internal_batch_size)
        regions = Regions.around_boxes(boxes_px, camera)
        posed = self.estimate_twice(image, camera, regions, *sampling)
        return _as_poses(self.refine(image, camera, posed, *sampling).people)

    def detect(self, image: ImageArray, tiles: Sequence[Tile], options: Options) -> Detections:
        """Look for people in some tiles of an image [H, W, 3], uint8, RGB."""
        threshold = options.detector_threshold_or(DETECTOR_THRESHOLD)
        return self._detector(image, tiles, threshold, options.detector_nms_iou_threshold)

    def verify(
        self,
        image: ImageArray,
        camera: Camera,
        detections: Detections,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
    ) -> PosedRegions:
        """
        Look at what was detected, and keep whom the pose network confirms, each person once.

        The detector's circles are coarse; those of the landmark network are steadier.  So who
        passes the first look is looked at again.
        """
        detections = above_needed_confidence(detections, camera)
        first = self.look(image, camera, detections.regions, antialias_factor, internal_batch_size)
        chance = np.flatnonzero(first.people.confidence > FIRST_PASS_PRESENCE)
        first = first.select(chance).weighted(detections.scores[chance])
        once = np.flatnonzero(suppress_duplicates(first.people, first.people.confidence))
        chance = chance[once]
        again = self.look(
            image, camera, first.regions.select(once), antialias_factor, internal_batch_size
        ).weighted(detections.scores[chance])
        return first.select(once).more_confident_of(again).plausible(camera)

    def estimate_twice(
        self,
        image: ImageArray,
        camera: Camera,
        regions: Regions,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
    ) -> PosedRegions:
        """
        Look at people where they are roughly, then where the first look has found them.

        Of each person the look counts in which the network was surer that there is one.
        """
        first = self.look(image, camera, regions, antialias_factor, internal_batch_size)
        again = self.look(image, camera, first.regions, antialias_factor, internal_batch_size)
        return first.more_confident_of(again)

    def refine(
        self,
        image: ImageArray,
        camera: Camera,
        posed: PosedRegions,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
    ) -> PosedRegions:
        """
        Look on until the poses hardly depend on how the people were found.

        Twice, each time at the person and at the mirror image, and with the mean of both.  The
        confidences remain.
        """
        regions = posed.regions
        for _ in range(2):
            looks = [
                self.look(image, camera, regions, antialias_factor, internal_batch_size, mirrored)
                for mirrored in (False, True)
            ]
            regions = Regions.mean([look.regions for look in looks])
        poses_mm = np.mean([look.people.poses3d_mm for look in looks], axis=0)
        visibility = np.mean([look.people.joint_confidence for look in looks], axis=0)
        people = self._people(image, camera, poses_mm, visibility, posed.people.confidence)
        return PosedRegions(people, regions)

    def look(
        self,
        image: ImageArray,
        camera: Camera,
        regions: Regions,
        antialias_factor: int = 1,
        internal_batch_size: int = 64,
        mirrored: bool = False,
    ) -> PosedRegions:
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
        if not len(regions):
            return PosedRegions(People.empty(self.skeleton), regions)
        starts = range(internal_batch_size, len(regions), internal_batch_size)
        batches = np.array_split(np.arange(len(regions)), starts)
        return PosedRegions.concatenate(
            [
                self._estimate_batch(
                    image, camera, regions.select(batch), antialias_factor, mirrored
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
        # Circles far outside of the image overflow.
        with np.errstate(all='ignore'):
            virtual = virtual_cameras_on_regions(regions, camera, network.side_px, network.margin)
            usable = virtual.usable & (np.abs(np.linalg.det(virtual.rotation)) > LEAST_DETERMINANT)
        virtual = with_placeholders(virtual, usable)
        if mirrored:
            virtual = virtual.mirrored()
        seen = network(sample_crops(image, camera, virtual, antialias_factor))
        image_points = virtual.normalise(seen.points_px)
        inside = virtual.inside(seen.points_px)
        poses_mm = virtual.to_camera(
            absolute_points(
                image_points,
                seen.root_relative_mm,
                full_perspective(image_points, seen.root_relative_mm, inside),
                inside,
            )
        )
        visibility = seen.visibility
        if mirrored:
            sides_swapped = self.skeleton.mirror
            poses_mm, visibility = poses_mm[:, sides_swapped], visibility[:, sides_swapped]
        presence, found = seen.presence, seen.regions.in_image(virtual, camera)
        if not usable.all():
            poses_mm[~usable], presence[~usable] = np.nan, 0
            found.centre_px[~usable] = found.top_px[~usable] = np.nan
        people = self._people(image, camera, poses_mm, visibility, presence)
        return PosedRegions(people, found)

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
    Finds people's boxes by the poses that BlazePose believes.

    Parameters
    ----------
    estimator
        BlazePose.
    """

    def __init__(self, estimator: BlazePoseEstimator) -> None:
        self._estimator = estimator

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Find people; see `BoxDetector`."""
        # Its own false alarms it tells from people only by their poses.
        own_options = dataclasses.replace(
            options, num_aug=1, antialias_factor=1, suppress_implausible_poses=True
        )
        poses = self._estimator.find_people(image, camera, own_options)
        surest = np.argsort(-poses.scores, kind='stable')
        return Boxes(poses.boxes_px, poses.scores).select(surest).within(image.shape)


def with_placeholders(virtual: VirtualCameras, usable: BoolArray) -> VirtualCameras:
    """Replace virtual cameras that are not usable, [N], by ones that look straight ahead."""
    if usable.all():
        return virtual
    unusable = ~usable
    rotation, intrinsics = virtual.rotation.copy(), virtual.intrinsic_matrix.copy()
    scale = virtual.scale.copy()
    rotation[unusable], scale[unusable] = np.eye(3), 1
    intrinsics[unusable] = np.diag([virtual.side_px, virtual.side_px, 1.0])
    return VirtualCameras(rotation, intrinsics, virtual.side_px, scale)


def above_needed_confidence(detections: Detections, camera: Camera) -> Detections:
    """Return those that may yet convince: no confidence exceeds the detector's score."""
    tilt_degrees = detections.regions.tilt_degrees(camera)
    return detections.select(detections.scores > needed_confidence(tilt_degrees))


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


def _as_poses(people: People) -> Poses:
    return Poses(
        people.boxes_px,
        people.confidence,
        people.poses3d_mm[:, None],
        people.poses2d_px[:, None],
        people.joint_confidence,
    )
