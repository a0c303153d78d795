"""MeTRAbs pipeline: detect, crop, run the network, place, check plausibility."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.crop_networks.augmentation import Augmentations
from metrabs_ros.crop_networks.crop_engine import CropEngine
from metrabs_ros.crop_networks.crop_estimator import CropPoseEstimator, PlacedPoses
from metrabs_ros.metrabs.checkpoint import Checkpoint
from metrabs_ros.options import Options
from metrabs_ros.placement.absolute import (
    absolute_points,
    full_perspective,
    to_rays,
    weak_perspective,
)
from metrabs_ros.plausibility import plausible_poses
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.virtual_cameras import RAY_DEPTH_MM, VirtualCameras

if TYPE_CHECKING:
    from metrabs_ros.detectors.boxes import BoxDetector


class MetrabsEstimator(CropPoseEstimator):
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
        conventions = {name: checkpoint.conventions[name] for name in names}
        super().__init__(conventions, detector, network, choice, checkpoint.config.side_px)
        self._config = checkpoint.config
        self._joints = checkpoint.joints
        self._decoder = checkpoint.decoder
        self._outputs = checkpoint.outputs

    def plausible_people(self, poses: Poses) -> NDArray[np.intp]:
        """Return the indices of plausible people; see `plausible_poses`."""
        return plausible_poses(poses, self.skeleton)

    def _value_shape(self, options: Options) -> tuple[int, int]:
        """Return the shape of the values of a crop; see `CropPoseEstimator`."""
        return self._config.latents or len(self._joints), 2 + 3

    def _decode(self, outputs: tuple[Tensor, ...], rows: slice, options: Options) -> Tensor:
        """Return image points in crop pixels and metric points in millimetres, [N, P, 2 + 3]."""
        return torch.cat(outputs, dim=-1)

    def _place(
        self,
        values: FloatArray,
        virtual: VirtualCameras,
        augmentations: Augmentations,
        options: Options,
    ) -> PlacedPoses:
        """Compute absolute poses; see `CropPoseEstimator`."""
        image_points_px, metric_points_mm = values[..., :2], values[..., 2:]
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

        def in_camera(points_mm: FloatArray) -> FloatArray:
            joints_mm = virtual.to_camera(self._joints_of(points_mm))
            return self._as_poses(joints_mm, augmentations)

        poses_mm = in_camera(points_mm)
        # The weights of joints sum to one, so that means of rays are rays of the same camera.
        rays_mm = in_camera(RAY_DEPTH_MM * to_rays(image_points))
        not_estimated = np.zeros((len(poses_mm), 0))
        return PlacedPoses(poses_mm, rays_mm, not_estimated, not_estimated)

    def _joints_of(self, points: FloatArray) -> FloatArray:
        """Return the joints [N, J, 3] that are made from the network's points [N, P, 3]."""
        return points if self._decoder is None else self._decoder.T @ points

    def _as_poses(self, joints: FloatArray, augmentations: Augmentations) -> FloatArray:
        """Return joints [N * A, J, 3] of crops as poses [N, A, K, 3] with all output joints."""
        joints = joints.reshape(-1, len(augmentations), len(self._joints), 3)
        mirrored = augmentations.mirrored
        joints[:, mirrored] = joints[:, mirrored][:, :, self._joints.mirror]
        return self._outputs.positions(joints)
