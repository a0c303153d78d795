"""MeTRAbs's steps: detect -> crop -> network -> absolute -> plausibility."""

from __future__ import annotations

import numpy as np
import torch

from metrabs_ros.absolute import absolute_points, full_perspective, weak_perspective
from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.crop.augmentation import Augmentations
from metrabs_ros.crop.boxes import can_look_at, virtual_cameras_on_boxes
from metrabs_ros.crop.exact_sampling import sample_crops
from metrabs_ros.crop.virtual import VirtualCameras
from metrabs_ros.detectors.boxes import BoxDetector
from metrabs_ros.estimator import Options, PoseEstimator, Poses
from metrabs_ros.models.checkpoint import Checkpoint
from metrabs_ros.plausibility import plausible_poses


class MetrabsEstimator(PoseEstimator):
    """
    Absolute poses by MeTRAbs.

    Parameters
    ----------
    checkpoint
        The network, and what its outputs mean.
    detector
        Finds people's boxes.
    device
        Where the network runs.
    """

    engine = 'torch'

    def __init__(
        self, checkpoint: Checkpoint, detector: BoxDetector, device: torch.device | str = 'cpu'
    ) -> None:
        # The empty name first: it stands for all joints.
        names = sorted(checkpoint.conventions, key=bool)
        super().__init__({name: checkpoint.conventions[name] for name in names})
        self._detector = detector
        self._device = torch.device(device)
        self.device = str(device)
        self._config = checkpoint.config
        self._joints = checkpoint.joints
        self._decoder = checkpoint.decoder
        self._joint_transform_matrix = checkpoint.joint_transform_matrix
        self.crop_model = checkpoint.crop_model.to(self._device)

    def check(self, options: Options) -> None:
        """Accept all options; see `PoseEstimator`."""

    def find_people(self, image: ImageArray, camera: Camera, options: Options) -> Poses:
        """Find the people in an image and their poses; see `PoseEstimator`."""
        found = self._detector(image, camera, options)
        found = found.select(can_look_at(found.boxes_px, camera))
        poses3d_mm, poses2d_px = self._poses(image, camera, found.boxes_px, options)
        poses = Poses(found.boxes_px, found.scores, poses3d_mm, poses2d_px)
        if options.suppress_implausible_poses:
            poses = poses.select(plausible_poses(poses, self.skeleton))
        return poses

    def pose_people(
        self, image: ImageArray, camera: Camera, boxes_px: FloatArray, options: Options
    ) -> Poses:
        """Find the poses of the people in boxes; see `PoseEstimator`."""
        for box_px in boxes_px[~can_look_at(boxes_px, camera)]:
            raise ValueError(
                f'boxes holds {box_px.tolist()}, to which no ray leads with intrinsic_matrix '
                f'{camera.intrinsic_matrix.tolist()} and distortion_coeffs '
                f'{camera.distortion_coeffs.tolist()}'
            )
        poses3d_mm, poses2d_px = self._poses(image, camera, boxes_px, options)
        return Poses(boxes_px, np.ones(len(boxes_px)), poses3d_mm, poses2d_px)

    def _poses(
        self, image: ImageArray, camera: Camera, boxes_px: FloatArray, options: Options
    ) -> tuple[FloatArray, FloatArray]:
        """Return poses in space [N, A, J, 3] and in the image [N, A, J, 2]."""
        augmentations = Augmentations.spread(options.num_aug)
        cameras = virtual_cameras_on_boxes(boxes_px, camera, self._config.side_px)
        virtual = augmentations.of(cameras)
        image_points_px, metric_points_mm = self._points(
            image, camera, virtual, augmentations, options
        )
        poses_mm = self._absolute_joints(virtual, image_points_px, metric_points_mm)
        poses_mm = poses_mm.reshape(len(boxes_px), len(augmentations), len(self._joints), 3)
        mirrored = augmentations.mirrored
        poses_mm[:, mirrored] = poses_mm[:, mirrored][:, :, self._joints.mirror]
        poses_mm = self._joint_transform_matrix.T @ poses_mm
        return poses_mm, camera.project(poses_mm)

    def _points(
        self,
        image: ImageArray,
        camera: Camera,
        virtual: VirtualCameras,
        augmentations: Augmentations,
        options: Options,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the network's points in crop pixels [C, P, 2] and millimetres [C, P, 3]."""
        each = len(augmentations)
        at_once = max(1, options.internal_batch_size // each) * each
        points = self._config.latents or len(self._joints)
        image_points_px = np.empty((len(virtual), points, 2))
        metric_points_mm = np.empty((len(virtual), points, 3))
        for start in range(0, len(virtual), at_once):
            crops = sample_crops(
                image,
                camera,
                virtual.select(slice(start, start + at_once)),
                augmentations.gamma,
                options.antialias_factor,
                self._device,
            )
            for batch in torch.split(crops, options.internal_batch_size):
                rows = slice(start, start + len(batch))
                with torch.inference_mode():
                    in_image, in_space = self.crop_model(batch)
                image_points_px[rows] = in_image.cpu().numpy()
                metric_points_mm[rows] = in_space.cpu().numpy()
                start = rows.stop
        return image_points_px, metric_points_mm

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
