"""Circles around people, and the virtual cameras that look at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.virtual_cameras import VirtualCameras, look_at, project_rays

PART_SIZE = 0.55
"""A circle so much smaller than the one it lies in may be that of a part of the same body."""


@dataclasses.dataclass(frozen=True)
class Regions:
    """
    Where people are, each as a circle around the body with an upright direction.

    Parameters
    ----------
    centre_px
        [N, 2], image pixels, between the hips.
    rim_px
        [N, 2], image pixels, the circle's uppermost point as the person sees it.
    """

    centre_px: FloatArray
    top_px: FloatArray

    @classmethod
    def none(cls) -> Regions:
        """Return no circles."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)))

    def __len__(self) -> int:
        """Return the number of circles."""
        return len(self.centre_px)

    @property
    def radius_px(self) -> FloatArray:
        """The circles' radii, [N], image pixels."""
        return np.linalg.norm(self.top_px - self.centre_px, axis=-1)

    def select(self, which: NDArray[Any]) -> Regions:
        """Return the circles at an index array or mask."""
        return Regions(self.centre_px[which], self.top_px[which])

    @classmethod
    def concatenate(cls, *several: Regions) -> Regions:
        """Join several sets of circles into one."""
        return cls(
            np.concatenate([regions.centre_px for regions in several]),
            np.concatenate([regions.top_px for regions in several]),
        )

    @classmethod
    def mean(cls, several: Sequence[Regions]) -> Regions:
        """Return the mean of several circles around each person."""
        return cls(
            np.mean([regions.centre_px for regions in several], axis=0),
            np.mean([regions.top_px for regions in several], axis=0),
        )

    @classmethod
    def around_boxes(cls, boxes: FloatArray, camera: Camera) -> Regions:
        """
        Draw circles around people of whom only boxes are known.

        Parameters
        ----------
        boxes
            [N, 4] or more columns: left, top, width, height in pixels.
        camera
            Its up direction is taken for the people's.
        """
        boxes = np.asarray(boxes, np.float64)
        centre_px = boxes[:, :2] + boxes[:, 2:4] / 2
        radius_px = boxes[:, 2:4].max(axis=1, keepdims=True) / 2
        return cls(centre_px, centre_px + radius_px * up_in_image(centre_px, camera))

    def parts(self) -> NDArray[np.bool_]:
        """Tell of each circle if it lies within each other one and is much smaller, [N, N]."""
        radius_px = self.radius_px
        apart_px = np.linalg.norm(self.centre_px[:, None] - self.centre_px[None], axis=-1)
        within = apart_px + radius_px[:, None] / 2 < radius_px
        return within & (radius_px[:, None] < PART_SIZE * radius_px)

    def in_image(self, virtual: VirtualCameras, camera: Camera) -> Regions:
        """Take circles in the pixels of crops, one a crop, to the real camera's image."""
        points_px = np.stack([self.centre_px, self.top_px], axis=1)
        centre_px, top_px = virtual.to_image(points_px, camera).swapaxes(0, 1)
        return Regions(centre_px, top_px)

    def tilt_degrees(self, camera: Camera) -> FloatArray:
        """Return how far each person leans from the world's up as seen there, [N], 0 to 180."""
        own = self.top_px - self.centre_px
        up = up_in_image(self.centre_px, camera)
        cross = own[:, 0] * up[:, 1] - own[:, 1] * up[:, 0]
        return np.degrees(np.abs(np.arctan2(cross, (own * up).sum(axis=-1))))


def up_in_image(points_px: FloatArray, camera: Camera) -> FloatArray:
    """
    Return the direction in the image of the world's up, at pixels [N, 2].

    Returns
    -------
    [N, 2], unit vectors; straight up in the image where the camera looks along the up direction.
    """
    rays = camera.unproject(points_px)
    direction = camera.project(1000 * (rays + 1e-3 * camera.up)) - points_px
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.where(length > 1e-6, direction / np.maximum(length, 1e-6), (0.0, -1.0))


def virtual_cameras_on_regions(
    regions: Regions, camera: Camera, side_px: int, margin: float
) -> VirtualCameras:
    """
    Point a virtual camera at each circle.

    Parameters
    ----------
    circles
        N of them.
    camera
        The real camera.
    side_px
        Height and width of the crops.
    margin
        How many times its diameter is visible around a circle.
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
