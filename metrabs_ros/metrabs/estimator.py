"""MeTRAbs's steps: detect -> crop -> network -> absolute -> plausibility."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.camera import Camera
from metrabs_ros.metrabs.augmentation import Augmentations
from metrabs_ros.metrabs.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.metrabs.checkpoint import Checkpoint
from metrabs_ros.metrabs.crop_engine import LARGEST_BATCH, CropEngine
from metrabs_ros.metrabs.crops import check_sampled_size, sample_crops
from metrabs_ros.metrabs.source_image import source_image_on
from metrabs_ros.options import Options, View
from metrabs_ros.placement.absolute import absolute_points, full_perspective, weak_perspective
from metrabs_ros.plausibility import plausible_poses
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.virtual_cameras import VirtualCameras

if TYPE_CHECKING:
    from metrabs_ros.detectors.boxes import BoxDetector

_LOGGER = logging.getLogger(__name__)


class MetrabsEstimator(PoseEstimator):
    """
    Absolute poses by MeTRAbs.

    Parameters
    ----------
    checkpoint
        The network, and what its outputs mean.
    detector
        Finds people's boxes.
    network
        Runs the network.
    choice
        What that is.
    """

    def __init__(
        self, checkpoint: Checkpoint, detector: BoxDetector, network: CropEngine, choice: Choice
    ) -> None:
        # The empty name first: it stands for all joints.
        names = sorted(checkpoint.conventions, key=bool)
        super().__init__({name: checkpoint.conventions[name] for name in names}, choice)
        self.network = network
        self._detector = detector
        self._device = torch.device(choice.device)
        self._config = checkpoint.config
        self._joints = checkpoint.joints
        self._decoder = checkpoint.decoder
        self._joint_transform_matrix = checkpoint.joint_transform_matrix
        self._crops_at_once = LARGEST_BATCH

    def check(self, options: Options) -> None:
        """Refuse an antialias_factor that takes too much memory; see `PoseEstimator`."""
        check_sampled_size(self._config.side_px, options.antialias_factor)

    def find_people(self, image: ImageArray, camera: Camera, options: Options) -> Poses:
        """Find the people in an image and their poses; see `PoseEstimator`."""
        return self.find_people_in([View(image, camera)], options)[0]

    def pose_people(
        self, image: ImageArray, camera: Camera, boxes_px: FloatArray, options: Options
    ) -> Poses:
        """Find the poses of the people in boxes; see `PoseEstimator`."""
        return self.pose_people_in([View(image, camera)], [boxes_px], options)[0]

    def find_people_in(self, views: Sequence[View], options: Options) -> list[Poses]:
        """Find the people in several images, with one run of the network for all."""
        self.check(options)
        found, cameras = [], []
        for view in views:
            boxes = self._detector(view.image, view.camera, options)
            virtual = self._virtual_cameras(boxes.boxes_px, view)
            usable = virtual.usable
            found.append(boxes.select(usable))
            cameras.append(virtual.select(usable))
        poses = self._poses(views, [boxes.boxes_px for boxes in found], cameras, options)
        poses = [dataclasses.replace(own, scores=boxes.scores) for own, boxes in zip(poses, found)]
        if options.suppress_implausible_poses:
            poses = [own.select(plausible_poses(own, self.skeleton)) for own in poses]
        return poses

    def pose_people_in(
        self, views: Sequence[View], boxes_px: Sequence[FloatArray], options: Options
    ) -> list[Poses]:
        """Find the poses in boxes of several images, with one run of the network for all."""
        self.check(options)
        cameras = [self._virtual_cameras(own, view) for view, own in zip(views, boxes_px)]
        for (_, camera), own, virtual in zip(views, boxes_px, cameras):
            for box_px in own[~virtual.usable]:
                raise ValueError(
                    f'boxes holds {box_px.tolist()}, to which no ray leads with intrinsic_matrix '
                    f'{camera.intrinsic_matrix.tolist()} and distortion_coeffs '
                    f'{camera.distortion_coeffs.tolist()}'
                )
        return self._poses(views, boxes_px, cameras, options)

    def _virtual_cameras(self, boxes_px: FloatArray, view: View) -> VirtualCameras:
        return virtual_cameras_for_boxes(boxes_px, view.camera, self._config.side_px)

    def _poses(
        self,
        views: Sequence[View],
        boxes_px: Sequence[FloatArray],
        cameras: Sequence[VirtualCameras],
        options: Options,
    ) -> list[Poses]:
        """Return the poses of the people in boxes [N, 4] of each view, at which cameras look."""
        augmentations = Augmentations.spread(options.num_aug)
        virtual = [augmentations.of(own) for own in cameras]
        image_points_px, metric_points_mm = self._points(views, virtual, augmentations, options)
        joints_mm = self._absolute_joints(
            VirtualCameras.concatenate(virtual), image_points_px, metric_points_mm
        )
        joints_mm = joints_mm.reshape(-1, len(augmentations), len(self._joints), 3)
        mirrored = augmentations.mirrored
        joints_mm[:, mirrored] = joints_mm[:, mirrored][:, :, self._joints.mirror]
        poses_mm = self._joint_transform_matrix.T @ joints_mm
        ends = np.cumsum([len(own) for own in boxes_px])[:-1]
        return [
            Poses(own, np.ones(len(own)), its_mm, view.camera.project(its_mm))
            for view, own, its_mm in zip(views, boxes_px, np.split(poses_mm, ends))
        ]

    def _points(
        self,
        views: Sequence[View],
        virtual: Sequence[VirtualCameras],
        augmentations: Augmentations,
        options: Options,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the network's points in crop pixels [C, P, 2] and millimetres [C, P, 3]."""
        while True:
            at_once = min(options.internal_batch_size, self._crops_at_once)
            try:
                crops = self._crops(views, virtual, augmentations, options, at_once)
                found = [self.network(batch) for batch in rebatched(crops, at_once)]
                if not found:
                    count = self._config.latents or len(self._joints)
                    return np.zeros((0, count, 2)), np.zeros((0, count, 3))
                # Everything comes back from the device at once, when all is done.
                together = torch.cat([torch.cat(points, dim=-1) for points in found])
                points = together.cpu().numpy().astype(np.float64)
                return points[..., :2], points[..., 2:]
            except torch.cuda.OutOfMemoryError:
                if at_once == 1:
                    raise
                self._crops_at_once = at_once // 2
                _LOGGER.warning(
                    'the GPU has no memory for %d crops at once; goes on with %d',
                    at_once,
                    self._crops_at_once,
                )
            torch.cuda.empty_cache()

    def _crops(
        self,
        views: Sequence[View],
        virtual: Sequence[VirtualCameras],
        augmentations: Augmentations,
        options: Options,
        at_once: int,
    ) -> Iterator[Tensor]:
        """Give all views' crops, so many at once or few more."""
        each = len(augmentations)
        step = max(1, at_once // each) * each
        for view, own in zip(views, virtual):
            source_image = source_image_on(view.image, self._device) if len(own) else None
            for start in range(0, len(own), step):
                assert source_image is not None
                part = own.select(slice(start, start + step))
                yield sample_crops(
                    source_image, view.camera, part, augmentations.gamma, options.antialias_factor
                )

    def _absolute_joints(
        self,
        virtual: VirtualCameras,
        image_points_px: FloatArray,
        metric_points_mm: FloatArray,
    ) -> FloatArray:
        """Place the points [N, P] of crops and make joints of them, [N, J, 3], camera frame."""
        image_points = virtual.normalise(image_points_px)
        inside = self._config.inside(image_points_px)
        find_reference = weak_perspective if self._config.weak_perspective else full_perspective
        points_mm = absolute_points(
            image_points,
            metric_points_mm,
            find_reference(image_points, metric_points_mm, inside),
            inside,
            self._config.mix_3d_inside_fov,
        )
        joints_mm = points_mm if self._decoder is None else self._decoder.T @ points_mm
        return virtual.to_camera(joints_mm)


def rebatched(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Give the same rows in batches of one size, of which the last may be smaller."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            *full, rest = torch.split(torch.cat(waiting), size)
            yield from full
            waiting = [rest]
            if len(rest) == size:
                yield rest
                waiting = []
    if waiting:
        yield torch.cat(waiting)
