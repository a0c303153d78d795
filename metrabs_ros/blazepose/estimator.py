"""BlazePose pipeline: detect with MoveNet, crop, run the network, place, check plausibility."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray, ImageArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.blazepose.agreement import (
    MIN_EVIDENCE,
    evidence_of,
    is_confirmed,
    keypoint_disagreement,
    merge,
    replace_better,
    select_better,
    shows_own_person,
)
from metrabs_ros.blazepose.crops import sample_crops
from metrabs_ros.blazepose.network import BlazePoseLandmarks
from metrabs_ros.blazepose.regions import Regions, virtual_cameras_on_regions
from metrabs_ros.camera import Camera
from metrabs_ros.movenet.decoding import Keypoints
from metrabs_ros.movenet.detector import (
    BOTH_SIDES_PX,
    THRESHOLD,
    MoveNetDetector,
    combine_passes,
    quarter_turns_to_upright,
)
from metrabs_ros.options import Options, View
from metrabs_ros.people import UNKNOWN_ID, People, in_view
from metrabs_ros.placement.absolute import absolute_points, full_perspective
from metrabs_ros.plausibility import has_plausible_size, plausible_poses
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33
from metrabs_ros.virtual_cameras import VirtualCameras

DOUBTFUL_DISAGREEMENT = 0.1
"""Disagreement with the keypoints from which another region is tried.  At less than that, an
estimate in another region differs by noise."""
SMALL_SHARE = 0.08
"""Size of people, as a share of the longer side of an image, below which the detector misses many.
In an input of 512 pixels, these are 40 pixels."""
LARGE_SIDE_PX = 1024
"""Longer side of the detector's input for images with such people."""
MIN_SMALL_PEOPLE = 3
"""Number of such people from which others are likely; fewer are often no people."""
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
    N people, and the regions that the network suggests for their next poses.

    Parameters
    ----------
    people
        N people.
    regions
        N regions of interest around them, in image pixels.
    """

    people: People
    regions: Regions

    @classmethod
    def concatenate(cls, parts: Sequence[PosedRegions]) -> PosedRegions:
        """Concatenate one or more sets of people and regions."""
        return cls(
            People.concatenate([part.people for part in parts]),
            Regions.concatenate([part.regions for part in parts]),
        )


class BlazePoseEstimator(PoseEstimator):
    """
    Pose estimator with BlazePose's landmarks and the full-perspective step of MeTRAbs.

    Parameters
    ----------
    detector
        Detects people and their keypoints in an image.
    landmarks
        Estimates the joints of the person in a crop.
    choice
        Description of the engine that runs the networks.
    """

    def __init__(
        self, detector: MoveNetDetector, landmarks: BlazePoseLandmarks, choice: Choice
    ) -> None:
        all_joints = {'': BLAZEPOSE_33.within(BLAZEPOSE_33)}
        super().__init__(
            {name: definition.within(all_joints) for name, definition in DEFINITIONS.items()},
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
        """Detect people in images and estimate their poses; see `PoseEstimator`."""
        self.check(options)
        return [self._find_in_image(view, options) for view in views]

    def pose_people(
        self, views: Sequence[View], boxes_px: Sequence[FloatArray], options: Options
    ) -> list[Poses]:
        """Estimate the poses of the people in boxes; see `PoseEstimator`."""
        self.check(options)
        sampling = Sampling.from_options(options)
        return [
            _as_poses(self.pose_in_boxes(view, boxes, sampling))
            for view, boxes in zip(views, boxes_px)
        ]

    def plausible_people(self, poses: Poses) -> NDArray[np.intp]:
        """Return the indices of plausible people; see `plausible_poses`."""
        return plausible_poses(poses, self.skeleton)

    def _find_in_image(self, view: View, options: Options) -> Poses:
        keypoints = self._detect_large_and_small(view, options)
        limit = None if options.max_detections < 0 else options.max_detections
        people, _ = self.pose_detected(view, keypoints, options, limit)
        return _as_poses(people)

    def detect(
        self,
        view: View,
        options: Options,
        threshold: float = THRESHOLD,
        sides_px: Sequence[int] = BOTH_SIDES_PX,
    ) -> Keypoints:
        """Detect people in an image, of any number; see `MoveNetDetector`."""
        return self._detector(
            view.image,
            options.detector_threshold_or(threshold),
            options.detector_nms_iou_threshold,
            bool(options.detector_flip_aug),
            sides_px,
            quarter_turns_to_upright(view.camera),
        )

    def _detect_large_and_small(self, view: View, options: Options) -> Keypoints:
        """
        Detect people in an image, with another pass of the detector if several are small.

        Where several small people are found, others are likely.  Streams have no time for this
        pass.
        """
        keypoints = self.detect(view, options)
        longer_px = max(view.image.shape[:2])
        size_px = keypoints.boxes_px[:, 2:].max(axis=1, initial=0)
        small_count = (size_px < SMALL_SHARE * longer_px).sum()
        if longer_px < LARGE_SIDE_PX or small_count < MIN_SMALL_PEOPLE:
            return keypoints
        small = self.detect(view, options, sides_px=(LARGE_SIDE_PX,))
        return combine_passes([keypoints, small], options.detector_nms_iou_threshold)

    def pose_detected(
        self, view: View, keypoints: Keypoints, options: Options, limit: int | None = None
    ) -> tuple[People, Keypoints]:
        """
        Estimate the poses of detected people as the options request; see `confirm`.

        If implausible poses are not suppressed, all people with finite poses are returned.
        """
        sampling = Sampling.from_options(options)
        if options.suppress_implausible_poses:
            return self.confirm(view, keypoints, sampling, limit)
        keypoints = keypoints.select(slice(limit))
        people = scaled(self.pose_keypoints(view, keypoints, sampling), keypoints.scores)
        is_finite = people.finite()
        return people.select(is_finite), keypoints.select(is_finite)

    def confirm(
        self,
        view: View,
        keypoints: Keypoints,
        sampling: Sampling = DEFAULT_SAMPLING,
        limit: int | None = None,
    ) -> tuple[People, Keypoints]:
        """
        Estimate the poses of detected people, and return those that both networks agree on.

        Parameters
        ----------
        view
            The image and its camera.
        keypoints
            N detected people, in descending order of score.
        sampling
            How the crops are sampled.
        limit
            Maximum number of people; None: any number.  The others are not estimated.

        Returns
        -------
        At most N people in the camera frame, in the order of the detections, and their keypoints.
        The confidence is the product of the presence score of the landmark network and the score
        of the detection.
        """
        # The presence is at most 1: these crops need no estimate.
        keypoints = keypoints.select(evidence_of(keypoints) > MIN_EVIDENCE)
        people, own_keypoints = People.empty(self.skeleton), keypoints.select(slice(0))
        start = 0
        while start < len(keypoints) and (limit is None or len(people) < limit):
            # Some of the people with the highest scores may be rejected.
            stop = None if limit is None else start + limit - len(people)
            candidates = keypoints.select(slice(start, stop))
            start += len(candidates)
            posed = self.pose_keypoints(view, candidates, sampling)
            confirmed = is_confirmed(posed, candidates) & has_plausible_size(posed)
            posed = scaled(posed, candidates.scores).select(confirmed)
            people = People.concatenate([people, posed])
            own_keypoints = Keypoints.concatenate([own_keypoints, candidates.select(confirmed)])
            kept = shows_own_person(people, own_keypoints)
            people, own_keypoints = people.select(kept), own_keypoints.select(kept)
        return people, own_keypoints

    def pose_keypoints(
        self, view: View, keypoints: Keypoints, sampling: Sampling = DEFAULT_SAMPLING
    ) -> People:
        """
        Estimate the poses of detected people.

        The roll of the region decides whether the network mistakes the front of some people for
        their back.  If an estimate disagrees with the keypoints, an upright region is tried.

        Returns
        -------
        N people in the camera frame; their confidence is the presence score of the network, the
        higher one if two regions were tried.
        """
        regions = Regions.around_keypoints(keypoints, view.camera)
        people = self._pose_and_mirror(view, regions, keypoints, sampling)
        disagreement = keypoint_disagreement(people, keypoints)
        doubtful = np.flatnonzero(disagreement > DOUBTFUL_DISAGREEMENT)
        if not len(doubtful):
            return people
        own_keypoints = keypoints.select(doubtful)
        upright = Regions.around_boxes(own_keypoints.boxes_px, view.camera)
        second = self._pose_and_mirror(view, upright, own_keypoints, sampling)
        is_better = keypoint_disagreement(second, own_keypoints) < disagreement[doubtful]
        presence = people.confidence.copy()
        presence[doubtful] = np.maximum(presence[doubtful], second.confidence)
        people = replace_better(people, doubtful, second, is_better)
        return dataclasses.replace(people, confidence=presence)

    def _pose_and_mirror(
        self, view: View, regions: Regions, keypoints: Keypoints, sampling: Sampling
    ) -> People:
        """
        Merge the estimates from crops and from their mirror images by the keypoints.

        The confidence is the geometric mean of the presence in both: a thing that is mistaken for
        a person in one of them often is not in the other one.
        """
        first, second = self._estimate_and_mirror(view, regions, sampling)
        prefer_second = keypoint_disagreement(second, keypoints) < keypoint_disagreement(
            first, keypoints
        )
        people = self._people(*view, *merge(first, second, prefer_second))
        presence = np.sqrt(np.clip(first.confidence * second.confidence, 0, 1))
        return dataclasses.replace(people, confidence=presence)

    def pose_in_boxes(
        self, view: View, boxes_px: FloatArray, sampling: Sampling = DEFAULT_SAMPLING
    ) -> People:
        """
        Estimate the poses of the people in boxes [N, 4].

        The first estimate gives the region for the second one, which is merged with that of the
        mirrored crop.  If they disagree, the one with the more visible joints is used.
        """
        boxes = Regions.around_boxes(boxes_px, view.camera)
        first = self.estimate(*view, boxes, sampling)
        second, mirrored = self._estimate_and_mirror(view, first.regions, sampling)
        is_more_visible = mirrored.joint_confidence.mean(axis=1) > second.joint_confidence.mean(
            axis=1
        )
        merged = self._people(*view, *merge(second, mirrored, is_more_visible))
        # For a person that fills only a part of the box, the region can be worse than the box.
        return select_better(
            merged, first.people, first.people.confidence > merged.confidence + 0.1
        )

    def _estimate_and_mirror(
        self, view: View, regions: Regions, sampling: Sampling
    ) -> tuple[People, People]:
        """Return the estimates from N crops, and those from their mirror images."""
        count = len(regions)
        # In one call, so that no processor waits for the last crop of the first half.
        both = self.estimate(
            *view,
            Regions.concatenate([regions, regions]),
            sampling,
            np.arange(2 * count) >= count,
        ).people
        return both.select(slice(0, count)), both.select(slice(count, None))

    def estimate(
        self,
        image: ImageArray,
        camera: Camera,
        regions: Regions,
        sampling: Sampling = DEFAULT_SAMPLING,
        mirrored: BoolArray | None = None,
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
            [N], of which crops the mirror images are used; None: of none.

        Returns
        -------
        N people in the camera frame, in the skeleton of the network, including people with a low
        confidence.
        """
        if not len(regions):
            return PosedRegions(People.empty(self.skeleton), regions)
        if mirrored is None:
            mirrored = np.zeros(len(regions), bool)
        starts = range(sampling.batch_size, len(regions), sampling.batch_size)
        batches = np.array_split(np.arange(len(regions)), starts)
        return PosedRegions.concatenate(
            [
                self._estimate_batch(
                    image,
                    camera,
                    regions.select(batch),
                    sampling.antialias_factor,
                    mirrored[batch],
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
        mirrored: BoolArray,
    ) -> PosedRegions:
        network = self._landmarks
        # The computations overflow for regions far outside the image.
        with np.errstate(all='ignore'):
            virtual = virtual_cameras_on_regions(regions, camera, network.side_px, network.margin)
            is_usable = virtual.usable & (
                np.abs(np.linalg.det(virtual.rotation)) > MIN_ROTATION_DETERMINANT
            )
        virtual = replace_unusable(virtual, is_usable).mirrored(mirrored)
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
        points_px = virtual.to_image(landmarks.points_px, camera)
        visibility = landmarks.visibility
        for values in (poses_mm, visibility, points_px):
            values[mirrored] = values[mirrored][:, self.skeleton.mirror]
        presence, new_regions = landmarks.presence, landmarks.regions.in_image(virtual, camera)
        if not is_usable.all():
            poses_mm[~is_usable] = points_px[~is_usable] = np.nan
            presence[~is_usable] = 0
            new_regions.centre_px[~is_usable] = new_regions.top_px[~is_usable] = np.nan
        people = self._people(image, camera, poses_mm, visibility, presence, points_px)
        return PosedRegions(people, new_regions)

    def _people(
        self,
        image: ImageArray,
        camera: Camera,
        poses_mm: FloatArray,
        visibility: FloatArray,
        confidence: FloatArray,
        network_poses2d_px: FloatArray,
    ) -> People:
        """Return N people; the arrays are those of `merge`."""
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
            network_poses2d_px=network_poses2d_px,
        )


def scaled(people: People, scores: FloatArray) -> People:
    """Return people with the confidence multiplied by the scores of their detections, [N]."""
    return dataclasses.replace(people, confidence=people.confidence * scores)


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
        people.network_poses2d_px[:, None],
    )
