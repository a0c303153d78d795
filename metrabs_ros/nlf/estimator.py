"""NLF pipeline: detect, crop, run the network, localise points, place, combine augmentations."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.selection import Choice
from metrabs_ros.crop_networks.augmentation import Augmentations
from metrabs_ros.crop_networks.crop_engine import CropEngine
from metrabs_ros.crop_networks.crop_estimator import CropPoseEstimator, PlacedPoses
from metrabs_ros.crop_networks.crops import BLACK, WHITE
from metrabs_ros.crop_networks.source_image import upload
from metrabs_ros.foreign_text import printable
from metrabs_ros.nlf.absolute import place_points
from metrabs_ros.nlf.checkpoint import NlfCheckpoint
from metrabs_ros.nlf.combination import combine_augmentations
from metrabs_ros.nlf.network import PointHead, point_head
from metrabs_ros.nlf.plausibility import plausible_poses
from metrabs_ros.nlf.points import (
    MAX_POINTS,
    POINTS_SUFFIX,
    PointSet,
    cover_body,
    point_set_of,
    read_points,
    unnamed_points,
)
from metrabs_ros.options import Options, Request, View
from metrabs_ros.people import LOW_CONFIDENCE_STD_MM, MIN_JOINT_STD_MM, MM_PER_M
from metrabs_ros.placement.absolute import to_rays
from metrabs_ros.pose_estimator import Poses, SkeletonArgument
from metrabs_ros.skeletons.conventions import Convention, Skeleton
from metrabs_ros.skeletons.definitions import PointSkeleton
from metrabs_ros.virtual_cameras import RAY_DEPTH_MM, VirtualCameras

if TYPE_CHECKING:
    from metrabs_ros.detectors.boxes import BoxDetector

MAX_UNNAMED_SETS = 16
"""Sets of points, given as arrays, that are kept for the next call."""
MAX_SETS = 32
"""Sets of points that are kept, named or not."""
MAX_HEADS, MAX_HEAD_POINTS = 32, 1 << 14
"""Heads that are kept, and the number of their points; the weights of a point have 20 kB."""
MAX_MAP_VALUES = 1 << 24
"""Maximum number of values in the maps of one run of a head."""
PRINCIPAL_POINT_OFFSET_PX = 0.5
"""The default principal point is that of the official code, at (size - 1) / 2."""


class NlfEstimator(CropPoseEstimator):
    """
    Pose estimator with NLF.

    Its joints are canonical points.  Only the points of the requested skeleton are localised, and
    they alone determine the position of the person.  Points of a small part of the body do not
    determine it, and the stature follows from joints that a skeleton may lack: then all points of
    the model are localised.

    Parameters
    ----------
    checkpoint
        The network, and the canonical points.
    detector
        Detects people's boxes.
    network
        Engine that computes the features of crops.
    choice
        Description of that engine.
    """

    def __init__(
        self, checkpoint: NlfCheckpoint, detector: BoxDetector, network: CropEngine, choice: Choice
    ) -> None:
        config = checkpoint.config
        background = WHITE if config.white_background else BLACK
        super().__init__(
            checkpoint.conventions, detector, network, choice, config.side_px, background
        )
        self._config = config
        self._field = checkpoint.field
        self._points_m = checkpoint.points_m
        embedding = checkpoint.field.gps_net
        self._body_bounds_m = embedding.mini.numpy(), embedding.maxi.numpy()
        self._unnamed: collections.OrderedDict[str, PointSet] = collections.OrderedDict()
        self._sets: collections.OrderedDict[tuple[str, bool], PointSet] = collections.OrderedDict()
        self._heads: collections.OrderedDict[tuple[str, bool], PointHead] = (
            collections.OrderedDict()
        )

    def skeleton_name(self, skeleton: SkeletonArgument) -> str:
        """Return the name of a skeleton, or of canonical points, given as an argument."""
        if isinstance(skeleton, os.PathLike):
            skeleton = os.fspath(skeleton)
        if isinstance(skeleton, str) and not skeleton.endswith(POINTS_SUFFIX):
            return super().skeleton_name(skeleton)
        if isinstance(skeleton, str):
            skeleton = read_points(pathlib.Path(skeleton))
        points = unnamed_points(skeleton)
        self._unnamed[points.name] = points
        self._unnamed.move_to_end(points.name)
        if len(self._unnamed) > MAX_UNNAMED_SETS:
            self._unnamed.popitem(last=False)
        return points.name

    def convention(self, name: str) -> Convention:
        """Return a joint convention by name; see `PoseEstimator`."""
        if isinstance(name, str) and name.endswith(POINTS_SUFFIX):
            raise ValueError(
                f"skeleton is '{printable(name)}'; files of canonical points are arguments of the "
                'methods for single images; for streams, name the points in a definition file, '
                'and give the file as skeleton_file'
            )
        return super().convention(name)

    def posed_skeleton(self, options: Options) -> Skeleton:
        """Return the points that are localised for the requested skeleton."""
        return self._point_set(options).skeleton

    def requested_convention(self, options: Options) -> Convention:
        """Return the requested joints as combinations of those of `posed_skeleton`."""
        return self._point_set(options).convention

    def plausible_people(self, poses: Poses) -> NDArray[np.intp]:
        """Return the indices of plausible people; see `plausible_poses`."""
        return plausible_poses(poses)

    def _point_convention(self, definition: PointSkeleton) -> Convention:
        """Add points to the model; see `PoseEstimator`."""
        everything, added = self.convention(''), definition.skeleton
        count = len(everything.skeleton)
        if count + len(added) > MAX_POINTS:
            raise ValueError(
                f'skeleton {definition.shown_name} has {len(added)} points, and the model has '
                f'{count} already; together they must be at most {MAX_POINTS}, because all of '
                'them are tracked'
            )
        names = tuple(f'{name}_{added.name}' for name in added.joint_names)
        if taken := sorted(set(names) & set(everything.skeleton.joint_names)):
            raise ValueError(
                f'skeleton {definition.shown_name} would add the point '
                f"'{printable(taken[0])}', which the model has already; give the skeleton another "
                'name'
            )
        skeleton = Skeleton(
            '',
            (*everything.skeleton.joint_names, *names),
            (*everything.skeleton.edges, *((count + a, count + b) for a, b in added.edges)),
        )
        self._points_m = np.concatenate([self._points_m, definition.points_m])
        self._sets.clear()
        self._heads.clear()
        self._conventions[''] = Convention(skeleton, np.arange(len(skeleton)))
        return Convention(added, np.arange(count, len(skeleton)))

    def _point_set(self, options: Options) -> PointSet:
        """Return the points to localise; equal options give the same object."""
        key = options.skeleton, options.stature is not None
        if key not in self._sets:
            self._sets[key] = self._new_point_set(*key)
            if len(self._sets) > MAX_SETS:
                self._sets.popitem(last=False)
        self._sets.move_to_end(key)
        return self._sets[key]

    def _new_point_set(self, skeleton: str, needs_stature: bool) -> PointSet:
        unnamed = self._unnamed.get(skeleton)
        convention = self.convention(skeleton) if unnamed is None else unnamed.convention
        everything = PointSet('', self.skeleton, self._points_m, convention)
        if unnamed is None and convention is self.convention(''):
            return everything
        points = unnamed or point_set_of(convention, self.skeleton, self._points_m)
        if cover_body(points.points_m, *self._body_bounds_m) and not needs_stature:
            return points
        return everything if unnamed is None else unnamed.followed_by(everything)

    def _parse(
        self, images: Sequence[ImageArray], arguments: Sequence[dict[str, Any]]
    ) -> list[Request]:
        requests = super()._parse(images, arguments)
        return [
            _with_official_principal_point(request) if own['intrinsic_matrix'] is None else request
            for request, own in zip(requests, arguments)
        ]

    def _value_shape(self, options: Options) -> tuple[int, int]:
        """Return the shape of the values of a crop; see `CropPoseEstimator`."""
        return len(self.posed_skeleton(options)), 2 + 3 + 1

    def _decode(self, outputs: tuple[Tensor, ...], rows: slice, options: Options) -> Tensor:
        """Return image points, metric points and uncertainties, [N, P, 2 + 3 + 1]."""
        (features,) = outputs
        mirrored = Augmentations.evenly_spaced(options.num_aug).mirrored
        is_mirrored = np.resize(np.roll(mirrored, -rows.start), len(features))
        if not is_mirrored.any():
            return self._localise(features, options, mirrored=False)
        rows_of_sides = [np.flatnonzero(is_mirrored == side) for side in (False, True)]
        parts = [
            self._localise(features[upload(own, features.device)], options, mirrored=side)
            for side, own in zip((False, True), rows_of_sides)
            if len(own)
        ]
        order = np.argsort(np.concatenate(rows_of_sides))
        return torch.cat(parts)[upload(order, features.device)]

    @torch.inference_mode()
    def _localise(self, features: Tensor, options: Options, mirrored: bool) -> Tensor:
        """Return the points in features that are all mirrored or all not; see `_decode`."""
        head = self._head(options, mirrored)
        values = len(head) * self._config.maps * features.shape[2] * features.shape[3]
        parts = []
        for part in torch.split(features, max(1, MAX_MAP_VALUES // values)):
            image_points_px, metric_points_mm, uncertainties_m = head(part)
            parts.append(
                torch.cat([image_points_px, metric_points_mm, uncertainties_m[..., None]], dim=-1)
            )
        return torch.cat(parts)

    def _head(self, options: Options, mirrored: bool) -> PointHead:
        points = self._point_set(options)
        key = points.name, mirrored
        if key not in self._heads:
            head = point_head(self._config, self._field, points.points_m, mirrored)
            self._heads[key] = head.to(self._device)
            kept = sum(map(len, self._heads.values()))
            # The new one is the last, and has fewer points than the limit.
            while len(self._heads) > MAX_HEADS or kept > MAX_HEAD_POINTS:
                kept -= len(self._heads.popitem(last=False)[1])
        self._heads.move_to_end(key)
        return self._heads[key]

    def _place(
        self,
        values: FloatArray,
        virtual: VirtualCameras,
        augmentations: Augmentations,
        options: Options,
    ) -> PlacedPoses:
        """Compute absolute poses; see `CropPoseEstimator`."""
        image_points_px, metric_points_mm = values[..., :2], values[..., 2:5]
        raw_uncertainties_m = values[..., 5]
        image_points = virtual.normalise(image_points_px)
        points_mm = place_points(
            image_points,
            metric_points_mm,
            raw_uncertainties_m,
            image_points_px,
            virtual.intrinsic_matrix,
            self._config,
        )

        def by_person(crops: FloatArray) -> FloatArray:
            return crops.reshape(-1, len(augmentations), *crops.shape[1:])

        poses_mm = by_person(virtual.to_camera(points_mm))
        rays_mm = by_person(virtual.to_camera(RAY_DEPTH_MM * to_rays(image_points)))
        uncertainties_m = by_person(self._config.uncertainty_factor * raw_uncertainties_m)
        if options.average_aug:
            combined_mm, std_m = combine_augmentations(poses_mm, uncertainties_m)
            poses_mm, rays_mm = combined_mm[:, None], rays_mm.mean(axis=1, keepdims=True)
        else:
            std_m = uncertainties_m.mean(axis=1)
        std_mm = MM_PER_M * std_m
        return PlacedPoses(poses_mm, rays_mm, confidences_of(std_mm), std_mm)


def _with_official_principal_point(request: Request) -> Request:
    view = request.view
    intrinsics = view.camera.intrinsic_matrix.copy()
    intrinsics[:2, 2] -= PRINCIPAL_POINT_OFFSET_PX
    camera = dataclasses.replace(view.camera, intrinsic_matrix=intrinsics)
    return dataclasses.replace(request, view=View(view.image, camera))


def confidences_of(std_mm: FloatArray) -> FloatArray:
    """Return the joint confidences that imply given standard deviations in `People`."""
    return np.clip(1 - (std_mm - MIN_JOINT_STD_MM) / LOW_CONFIDENCE_STD_MM, 0, 1)
