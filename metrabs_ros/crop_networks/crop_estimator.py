"""Pose estimation in crops: detect boxes, crop them, run a network, place what it predicts."""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from metrabs_ros.arrays import FloatArray, StructOfArrays
from metrabs_ros.backends.selection import Choice
from metrabs_ros.crop_networks.augmentation import Augmentations
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.crop_networks.crop_engine import MAX_BATCH, CropEngine
from metrabs_ros.crop_networks.crops import BLACK, check_sampled_size, sample_crops
from metrabs_ros.crop_networks.source_image import create_source_image
from metrabs_ros.options import Options, View
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import Convention
from metrabs_ros.virtual_cameras import VirtualCameras

if TYPE_CHECKING:
    from metrabs_ros.detectors.boxes import BoxDetector, Boxes

_LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PlacedPoses(StructOfArrays):
    """
    Absolute poses of N people, with J joints, in A augmentations.

    Parameters
    ----------
    poses3d_mm
        [N, A, J, 3], camera frame.
    rays_mm
        [N, A, J, 3], camera frame, points that project to the network's image points.
    joint_confidence, joint_std_mm
        See `Poses`.
    """

    poses3d_mm: FloatArray
    rays_mm: FloatArray
    joint_confidence: FloatArray
    joint_std_mm: FloatArray


class CropPoseEstimator(PoseEstimator):
    """
    Abstract base class of pose estimators that run a network on a crop for each box.

    Parameters
    ----------
    conventions
        See `PoseEstimator`.
    detector
        Detects people's boxes.
    network
        Engine that runs the network.
    choice
        Description of that engine.
    side_px
        Height and width of the crops.
    background
        Linear RGB value outside of the image, from 0 (black) to 1 (white).
    """

    def __init__(
        self,
        conventions: Mapping[str, Convention],
        detector: BoxDetector,
        network: CropEngine,
        choice: Choice,
        side_px: int,
        background: float = BLACK,
    ) -> None:
        super().__init__(conventions, choice)
        self.network = network
        self._detector = detector
        # One image at a time: detectors keep the results of an image until the next one.
        self._detector_lock = threading.Lock()
        self._background_thread = concurrent.futures.ThreadPoolExecutor(1, 'detection')
        self._device = torch.device(choice.device)
        self._side_px = side_px
        self._background = background
        self._max_batch = MAX_BATCH

    @abc.abstractmethod
    def _value_shape(self, options: Options) -> tuple[int, int]:
        """Return the number P of points of a crop, and the number D of values of each point."""

    @abc.abstractmethod
    def _decode(self, outputs: tuple[Tensor, ...], rows: slice, options: Options) -> Tensor:
        """
        Convert the network's outputs for a batch of crops.

        Parameters
        ----------
        outputs
            See `CropEngine`.
        rows
            Positions of these crops among all crops; those of the A augmentations of each person
            are consecutive.
        options
            Options of pose estimation.

        Returns
        -------
        [N, P, D], see `_value_shape`.
        """

    @abc.abstractmethod
    def _place(
        self,
        values: FloatArray,
        virtual: VirtualCameras,
        augmentations: Augmentations,
        options: Options,
    ) -> PlacedPoses:
        """
        Compute absolute poses.

        Parameters
        ----------
        values
            [N * A, P, D], what `_decode` returned for all crops.
        virtual
            Virtual cameras of the crops.
        augmentations
            The A augmentations; the crops of each person are consecutive.
        options
            Options of pose estimation.

        Returns
        -------
        The poses in all augmentations, or in a single one if the augmentations are combined.
        """

    def check(self, options: Options) -> None:
        """Reject an antialias_factor that needs too much memory; see `PoseEstimator`."""
        check_sampled_size(self._side_px, options.antialias_factor)

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
        results = self._pose_crops(
            views, [view_boxes.boxes_px for view_boxes in boxes], cameras, options
        )
        results = [
            dataclasses.replace(poses, scores=view_boxes.scores)
            for poses, view_boxes in zip(results, boxes)
        ]
        if options.suppress_implausible_poses:
            results = [poses.select(self.plausible_people(poses)) for poses in results]
        return results

    def start_detection(
        self, view: View, options: Options
    ) -> concurrent.futures.Future[tuple[FloatArray, ...]]:
        """Start to detect people in another thread; see `PoseEstimator`."""

        def detect() -> tuple[FloatArray, ...]:
            boxes = self._detect_boxes(view, options)
            return boxes.boxes_px, boxes.scores

        return self._background_thread.submit(detect)

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
        return self._pose_crops(views, boxes_px, cameras, options)

    def _virtual_cameras(self, boxes_px: FloatArray, view: View) -> VirtualCameras:
        return virtual_cameras_for_boxes(boxes_px, view.camera, self._side_px)

    def _pose_crops(
        self,
        views: Sequence[View],
        boxes_px: Sequence[FloatArray],
        cameras: Sequence[VirtualCameras],
        options: Options,
    ) -> list[Poses]:
        """Return the poses in boxes [N, 4] of each view, seen by its cameras, with scores of 1."""
        augmentations = Augmentations.evenly_spaced(options.num_aug)
        virtual = [augmentations.apply_to(view_cameras) for view_cameras in cameras]
        values = self._run_network(views, virtual, augmentations, options)
        placed = self._place(values, VirtualCameras.concatenate(virtual), augmentations, options)
        results, end = [], 0
        for view, boxes in zip(views, boxes_px):
            start, end = end, end + len(boxes)
            own = placed.select(slice(start, end))
            results.append(
                Poses(
                    boxes,
                    np.ones(len(boxes)),
                    own.poses3d_mm,
                    view.camera.project(own.poses3d_mm),
                    own.joint_confidence,
                    view.camera.project(own.rays_mm),
                    own.joint_std_mm,
                )
            )
        return results

    def _run_network(
        self,
        views: Sequence[View],
        virtual: Sequence[VirtualCameras],
        augmentations: Augmentations,
        options: Options,
    ) -> FloatArray:
        """
        Return the decoded outputs of the network for all crops, [C, P, D].

        Parameters
        ----------
        views
            The images and their cameras.
        virtual
            For each view, the augmented virtual cameras of its crops.
        augmentations
            The A augmentations; the crops of each person are consecutive.
        options
            Options of pose estimation.
        """
        while True:
            batch_size = min(options.internal_batch_size, self._max_batch)
            try:
                crops = self._crops(views, virtual, augmentations, options, batch_size)
                decoded = [torch.zeros(0, *self._value_shape(options), device=self._device)]
                done = 0
                for batch in rebatch(crops, batch_size):
                    rows = slice(done, done + len(batch))
                    decoded.append(self._decode(self.network(batch), rows, options))
                    done = rows.stop
                # One transfer from the device for all outputs, after the last batch.
                values: FloatArray = torch.cat(decoded).double().cpu().numpy()
                return values
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
                yield sample_crops(
                    source_image,
                    view.camera,
                    cameras.select(slice(start, start + step)),
                    augmentations.gamma,
                    options.antialias_factor,
                    self._background,
                )


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
