"""Regions of interest around people, and the virtual cameras that crop them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.virtual_cameras import VirtualCameras, look_at, project_rays

MAX_PART_RATIO = 0.55
"""Maximum radius of a region that is a part of an enclosing region, as a share of its radius."""


@dataclasses.dataclass(frozen=True)
class Regions:
    """
    N regions of interest: circles around people, each with an upright direction.

    Parameters
    ----------
    centre_px
        [N, 2], image pixels, midpoint of the hips.
    top_px
        [N, 2], image pixels, point on the circle in the upright direction of the body.
    """

    centre_px: FloatArray
    top_px: FloatArray

    @classmethod
    def none(cls) -> Regions:
        """Return an empty set of regions."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)))

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.centre_px)

    @property
    def radius_px(self) -> FloatArray:
        """Radius of each region, [N], image pixels."""
        return np.linalg.norm(self.top_px - self.centre_px, axis=-1)

    def select(self, which: NDArray[Any]) -> Regions:
        """Return the regions selected by an index array or mask."""
        return Regions(self.centre_px[which], self.top_px[which])

    @classmethod
    def concatenate(cls, *parts: Regions) -> Regions:
        """Concatenate several sets of regions."""
        return cls(
            np.concatenate([regions.centre_px for regions in parts]),
            np.concatenate([regions.top_px for regions in parts]),
        )

    @classmethod
    def mean(cls, estimates: Sequence[Regions]) -> Regions:
        """Return the element-wise mean of several sets of N regions."""
        return cls(
            np.mean([regions.centre_px for regions in estimates], axis=0),
            np.mean([regions.top_px for regions in estimates], axis=0),
        )

    @classmethod
    def around_boxes(cls, boxes: FloatArray, camera: Camera) -> Regions:
        """
        Create regions around boxes.

        Parameters
        ----------
        boxes
            [N, 4] or more columns: left, top, width, height in pixels.
        camera
            Its up direction is used as the upright direction of the regions.
        """
        boxes = np.asarray(boxes, np.float64)
        centre_px = boxes[:, :2] + boxes[:, 2:4] / 2
        radius_px = boxes[:, 2:4].max(axis=1, keepdims=True) / 2
        return cls(centre_px, centre_px + radius_px * up_in_image(centre_px, camera))

    def parts(self) -> NDArray[np.bool_]:
        """Return whether each region lies within each other one and is much smaller, [N, N]."""
        radius_px = self.radius_px
        apart_px = np.linalg.norm(self.centre_px[:, None] - self.centre_px[None], axis=-1)
        within = apart_px + radius_px[:, None] / 2 < radius_px
        return within & (radius_px[:, None] < MAX_PART_RATIO * radius_px)

    def squares_px(self) -> FloatArray:
        """Return the enclosing squares, [N, 4]: left, top, width, height in image pixels."""
        radius_px = self.radius_px[:, None]
        return np.concatenate([self.centre_px - radius_px, *[2 * radius_px] * 2], axis=1)

    def in_image(self, virtual: VirtualCameras, camera: Camera) -> Regions:
        """Map regions from crop pixels, one in each crop, to the real camera's image."""
        points_px = np.stack([self.centre_px, self.top_px], axis=1)
        centre_px, top_px = virtual.to_image(points_px, camera).swapaxes(0, 1)
        return Regions(centre_px, top_px)

    def tilt_degrees(self, camera: Camera) -> FloatArray:
        """Return the angle between each upright direction and the world's up, [N], 0 to 180."""
        upright = self.top_px - self.centre_px
        up = up_in_image(self.centre_px, camera)
        cross = upright[:, 0] * up[:, 1] - upright[:, 1] * up[:, 0]
        return np.degrees(np.abs(np.arctan2(cross, (upright * up).sum(axis=-1))))


def up_in_image(points_px: FloatArray, camera: Camera) -> FloatArray:
    """
    Return the direction of the world's up in the image, at pixels [N, 2].

    Returns
    -------
    [N, 2], unit vectors; (0, -1) where the camera looks along the up direction.
    """
    rays = camera.unproject(points_px)
    direction = camera.project(1000 * (rays + 1e-3 * camera.up)) - points_px
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.where(length > 1e-6, direction / np.maximum(length, 1e-6), (0.0, -1.0))


def virtual_cameras_on_regions(
    regions: Regions, camera: Camera, side_px: int, margin: float
) -> VirtualCameras:
    """
    Point a virtual camera at each region.

    Parameters
    ----------
    regions
        N regions.
    camera
        The real camera.
    side_px
        Height and width of the crops.
    margin
        Side of a crop, as a multiple of the diameter of the region.
    """
    rays = camera.unproject(np.stack([regions.centre_px, regions.top_px], axis=1))
    rotation = look_at(rays[:, 0], rays[:, 1] - rays[:, 0])
    centre_px, top_px = project_rays(camera.intrinsic_matrix @ rotation, rays).swapaxes(0, 1)
    diameter_px = 2 * np.linalg.norm(top_px - centre_px, axis=-1)
    scale = side_px / np.maximum(margin * diameter_px, 1e-6)
    intrinsics = np.tile(np.eye(3), (len(regions), 1, 1))
    intrinsics[:, :2, :2] = camera.intrinsic_matrix[:2, :2] * scale[:, None, None]
    intrinsics[:, :2, 2] = side_px / 2
    return VirtualCameras(rotation, intrinsics, side_px, scale)
