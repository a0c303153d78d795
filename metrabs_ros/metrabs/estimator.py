"""MeTRAbs pipeline: detect, crop, run the network, place, check plausibility."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.metrabs.augmentation import Augmentations
from metrabs_ros.metrabs.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.metrabs.checkpoint import Checkpoint
from metrabs_ros.metrabs.crop_engine import MAX_BATCH, CropEngine
from metrabs_ros.metrabs.crops import check_sampled_size, sample_crops
from metrabs_ros.metrabs.source_image import create_source_image
from metrabs_ros.options import Options, View
from metrabs_ros.placement.absolute import (
    absolute_points,
    full_perspective,
    to_rays,
    weak_perspective,
)
from metrabs_ros.plausibility import plausible_poses
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.virtual_cameras import RAY_DEPTH_MM, VirtualCameras

if TYPE_CHECKING:
    from metrabs_ros.detectors.boxes import BoxDetector, Boxes

_LOGGER = logging.getLogger(__name__)


class MetrabsEstimator(PoseEstimator):
    """
    Pose estimator with MeTRAbs.

    Parameters
    ----------
    checkpoint
        The network, and the meaning of its outputs.
    detector
        Detects people's boxes.
    network
        Engine that runs the network.
    choice
        Description of that engine.
    """

    def __init__(
        self, checkpoint: Checkpoint, detector: BoxDetector, network: CropEngine, choice: Choice
    ) -> None:
        # The empty name is first; it stands for all joints.
        names = sorted(checkpoint.conventions, key=bool)
        super().__init__({name: checkpoint.conventions[name] for name in names}, choice)
        self.network = network
        self._detector = detector
        # One image at a time: detectors keep the results of an image until the next one.
        self._detector_lock = threading.Lock()
        self._background = concurrent.futures.ThreadPoolExecutor(1, 'detection')
        self._device = torch.device(choice.device)
        self._config = checkpoint.config
        self._joints = checkpoint.joints
        self._decoder = checkpoint.decoder
        self._outputs = checkpoint.outputs
        self._max_batch = MAX_BATCH

    def check(self, options: Options) -> None:
        """Reject an antialias_factor that needs too much memory; see `PoseEstimator`."""
        check_sampled_size(self._config.side_px, options.antialias_factor)

    def find_people(self, views: Sequence[View], options: Options) -> list[Poses]:
        """Detect people and estimate poses, in one run of the network for all their crops."""
        self.check(options)
        boxes, cameras = [], []
        for view in views:
            detected = self._detect_boxes(view, options)
            virtual = self._virtual_cameras(detected.boxes_px, view)
            usable = virtual.usable
            boxes.append(detected.select(usable))
            cameras.append(virtual.select(usable))
        results = self._poses(
            views, [view_boxes.boxes_px for view_boxes in boxes], cameras, options
        )
        results = [
            dataclasses.replace(poses, scores=view_boxes.scores)
            for poses, view_boxes in zip(results, boxes)
        ]
        if options.suppress_implausible_poses:
            results = [poses.select(plausible_poses(poses, self.skeleton)) for poses in results]
        return results

    def start_detection(
        self, view: View, options: Options
    ) -> concurrent.futures.Future[tuple[FloatArray, ...]]:
        """Start to detect people in another thread; see `PoseEstimator`."""

        def detect() -> tuple[FloatArray, ...]:
            boxes = self._detect_boxes(view, options)
            return boxes.boxes_px, boxes.scores

        return self._background.submit(detect)

    def _detect_boxes(self, view: View, options: Options) -> Boxes:
        with self._detector_lock:
            return self._detector(view.image, view.camera, options)

    def pose_people(
        self, views: Sequence[View], boxes_px: Sequence[FloatArray], options: Options
    ) -> list[Poses]:
        """Estimate the poses in boxes, in one run of the network for all their crops."""
        self.check(options)
        cameras = [self._virtual_cameras(boxes, view) for view, boxes in zip(views, boxes_px)]
        for (_, camera), boxes, virtual in zip(views, boxes_px, cameras):
            for box_px in boxes[~virtual.usable]:
                raise ValueError(
                    f'boxes contains {box_px.tolist()}, which no ray of the camera intersects; '
                    f'intrinsic_matrix is {camera.intrinsic_matrix.tolist()} and '
                    f'distortion_coeffs is {camera.distortion_coeffs.tolist()}'
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
        """Return the poses of the people in boxes [N, 4] of each view, seen by its cameras."""
        augmentations = Augmentations.evenly_spaced(options.num_aug)
        virtual = [augmentations.apply_to(view_cameras) for view_cameras in cameras]
        image_points_px, metric_points_mm = self._points(views, virtual, augmentations, options)
        all_virtual = VirtualCameras.concatenate(virtual)
        joints_mm = self._absolute_joints(all_virtual, image_points_px, metric_points_mm)
        poses_mm = self._as_poses(joints_mm, augmentations)
        # Weights sum to one, so that the means of rays are rays of the same camera.
        points_mm = RAY_DEPTH_MM * self._decoded(to_rays(all_virtual.normalise(image_points_px)))
        rays_mm = self._as_poses(all_virtual.to_camera(points_mm), augmentations)
        ends = np.cumsum([len(boxes) for boxes in boxes_px])[:-1]
        return [
            Poses(
                boxes,
                np.ones(len(boxes)),
                view_poses_mm,
                view.camera.project(view_poses_mm),
                network_poses2d_px=view.camera.project(view_rays_mm),
            )
            for view, boxes, view_poses_mm, view_rays_mm in zip(
                views, boxes_px, np.split(poses_mm, ends), np.split(rays_mm, ends)
            )
        ]

    def _decoded(self, points: FloatArray) -> FloatArray:
        """Return the joints [N, J, 3] of the network's points [N, P, 3]."""
        return points if self._decoder is None else self._decoder.T @ points

    def _as_poses(self, joints: FloatArray, augmentations: Augmentations) -> FloatArray:
        """Return joints [N * A, J, 3] of crops as poses [N, A, K, 3] with all output joints."""
        joints = joints.reshape(-1, len(augmentations), len(self._joints), 3)
        mirrored = augmentations.mirrored
        joints[:, mirrored] = joints[:, mirrored][:, :, self._joints.mirror]
        return self._outputs.positions(joints)

    def _points(
        self,
        views: Sequence[View],
        virtual: Sequence[VirtualCameras],
        augmentations: Augmentations,
        options: Options,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the network's points in crop pixels [C, P, 2] and millimetres [C, P, 3]."""
        while True:
            batch_size = min(options.internal_batch_size, self._max_batch)
            try:
                crops = self._crops(views, virtual, augmentations, options, batch_size)
                outputs = [self.network(batch) for batch in rebatch(crops, batch_size)]
                if not outputs:
                    count = self._config.latents or len(self._joints)
                    return np.zeros((0, count, 2)), np.zeros((0, count, 3))
                # One transfer from the device for all outputs, after the last batch.
                together = torch.cat([torch.cat(points, dim=-1) for points in outputs])
                points = together.cpu().numpy().astype(np.float64)
                return points[..., :2], points[..., 2:]
            except torch.cuda.OutOfMemoryError:
                if batch_size == 1:
                    raise
                self._max_batch = batch_size // 2
                _LOGGER.warning(
                    'the GPU is out of memory with batches of %d crops; continuing with %d',
                    batch_size,
                    self._max_batch,
                )
            torch.cuda.empty_cache()

    def _crops(
        self,
        views: Sequence[View],
        virtual: Sequence[VirtualCameras],
        augmentations: Augmentations,
        options: Options,
        batch_size: int,
    ) -> Iterator[Tensor]:
        """Yield the crops of all views in parts of about a batch size."""
        num_aug = len(augmentations)
        step = max(1, batch_size // num_aug) * num_aug
        for view, cameras in zip(views, virtual):
            source_image = create_source_image(view.image, self._device) if len(cameras) else None
            for start in range(0, len(cameras), step):
                assert source_image is not None
                part = cameras.select(slice(start, start + step))
                yield sample_crops(
                    source_image, view.camera, part, augmentations.gamma, options.antialias_factor
                )

    def _absolute_joints(
        self,
        virtual: VirtualCameras,
        image_points_px: FloatArray,
        metric_points_mm: FloatArray,
    ) -> FloatArray:
        """Place points [N, P], and return the joints made from them, [N, J, 3], camera frame."""
        image_points = virtual.normalise(image_points_px)
        inside = self._config.is_inside(image_points_px)
        find_reference = weak_perspective if self._config.weak_perspective else full_perspective
        points_mm = absolute_points(
            image_points,
            metric_points_mm,
            find_reference(image_points, metric_points_mm, inside),
            inside,
            self._config.mix_3d_inside_fov,
        )
        return virtual.to_camera(self._decoded(points_mm))


def rebatch(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield the same rows in batches of a given size; the last batch may be smaller."""
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
