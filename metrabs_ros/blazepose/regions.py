"""Regions of interest around people, and the virtual cameras that crop them."""

from __future__ import annotations

import dataclasses

import numpy as np

from metrabs_ros.arrays import FloatArray, StructOfArrays
from metrabs_ros.camera import Camera
from metrabs_ros.movenet.decoding import Keypoints
from metrabs_ros.virtual_cameras import VirtualCameras, look_at, project_rays

HEAD, SHOULDERS, HIPS = slice(0, 5), slice(5, 7), slice(11, 13)
HIPS_AND_LEGS = slice(11, 17)
"""Keypoints of COCO."""
MIN_TORSO_PX = 2.0
"""Minimum distance of hips and shoulders that gives a direction."""
MIN_TORSO_RADII = 1.6
"""Minimum radius of a region, as a multiple of the distance of hips and shoulders.  In smaller
regions around people without visible legs, the network guesses legs that are too short."""
TORSO_PER_NECK = 2.0
"""Distance of the hips from the shoulders, as a multiple of that of the face."""
REACH_FACTOR = 1.1
"""Radius of a region, as a multiple of the distance of the farthest keypoint."""
PORTRAIT_FACTOR = 0.8
"""Factor of the radius around people without visible hips and legs.  Most of a larger region would
be outside the image, and its pose often far from the head and the shoulders."""


@dataclasses.dataclass(frozen=True)
class Regions(StructOfArrays):
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

    def __len__(self) -> int:
        """Return the number of regions."""
        return len(self.centre_px)

    @property
    def radius_px(self) -> FloatArray:
        """Radius of the circles, [N]."""
        radius_px: FloatArray = np.linalg.norm(self.top_px - self.centre_px, axis=1)
        return radius_px

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

    @classmethod
    def around_keypoints(cls, keypoints: Keypoints, camera: Camera) -> Regions:
        """
        Create regions around people with the keypoints of COCO.

        They are centred between the hips, and their upright direction is that from the hips to the
        shoulders.  If the hips are not visible, as in portraits, their position follows from the
        head and the shoulders.  Regions of other people are around their boxes.

        Parameters
        ----------
        keypoints
            N people, in image pixels.
        camera
            The camera that took the image.
        """
        points_px, scores = keypoints.points_px, keypoints.point_scores
        hips_px, shoulders_px = (
            points_px[:, HIPS].mean(axis=1),
            points_px[:, SHOULDERS].mean(axis=1),
        )
        is_visible = keypoints.visible
        has_hips = np.asarray(is_visible[:, HIPS].any(axis=1))
        has_head = is_visible[:, HEAD].any(axis=1) & is_visible[:, SHOULDERS].all(axis=1)
        weights = (scores * is_visible)[:, HEAD, None] + 1e-9
        head_px = (points_px[:, HEAD] * weights).sum(axis=1) / weights.sum(axis=1)
        likely_hips_px = shoulders_px + TORSO_PER_NECK * (shoulders_px - head_px)
        hips_px = np.where(has_hips[:, None], hips_px, likely_hips_px)
        apart_px = np.linalg.norm(points_px - hips_px[:, None], axis=-1)
        radius_px = REACH_FACTOR * np.where(is_visible, apart_px, 0).max(axis=1, initial=0)
        torso_px = np.linalg.norm(shoulders_px - hips_px, axis=1)
        is_usable = has_head | (has_hips & is_visible[:, SHOULDERS].any(axis=1))
        is_usable &= (torso_px > MIN_TORSO_PX) & (radius_px > torso_px)
        radius_px = np.maximum(radius_px, MIN_TORSO_RADII * torso_px)
        is_portrait = ~is_visible[:, HIPS_AND_LEGS].any(axis=1)
        radius_px = np.where(is_portrait, PORTRAIT_FACTOR * radius_px, radius_px)
        boxes = cls.around_boxes(keypoints.boxes_px, camera)
        upright = (shoulders_px - hips_px) / np.maximum(torso_px, MIN_TORSO_PX)[:, None]
        top_px = hips_px + radius_px[:, None] * upright
        return cls(
            np.where(is_usable[:, None], hips_px, boxes.centre_px),
            np.where(is_usable[:, None], top_px, boxes.top_px),
        )

    def enlarged_to(self, radius_px: FloatArray) -> Regions:
        """Return the same circles with minimum radii [N]."""
        factor = np.maximum(radius_px / np.maximum(self.radius_px, 1e-6), 1)
        return Regions(
            self.centre_px, self.centre_px + factor[:, None] * (self.top_px - self.centre_px)
        )

    def turned_upright(self, camera: Camera) -> Regions:
        """Return the same circles with the camera's up direction as the upright direction."""
        radius_px = self.radius_px[:, None]
        return Regions(
            self.centre_px, self.centre_px + radius_px * up_in_image(self.centre_px, camera)
        )

    def angle_to(self, others: Regions) -> FloatArray:
        """Return the angle from the upright direction of other regions, [N], in radians."""
        x, y = (self.top_px - self.centre_px).T
        other_x, other_y = (others.top_px - others.centre_px).T
        cross, dot = x * other_y - y * other_x, x * other_x + y * other_y
        return np.asarray(np.abs(np.arctan2(cross, dot)))

    def in_image(self, virtual: VirtualCameras, camera: Camera) -> Regions:
        """Map regions from crop pixels, one in each crop, to the real camera's image."""
        points_px = np.stack([self.centre_px, self.top_px], axis=1)
        centre_px, top_px = virtual.to_image(points_px, camera).swapaxes(0, 1)
        return Regions(centre_px, top_px)


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
