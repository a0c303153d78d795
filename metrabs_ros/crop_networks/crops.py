"""Crop sampling with torch: exact, on any device, with augmentations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera, distort_xy, equidistant_radius
from metrabs_ros.crop_networks.source_image import PixelArray, SourceImage, upload
from metrabs_ros.image_pyramid import (
    GAMMA,
    MAX_COORDINATE_PX,
    corner_aligned_scaling,
    pyramid_level,
)
from metrabs_ros.virtual_cameras import VirtualCameras

MAX_PIXELS = 1 << 24
"""Maximum number of pixels per sampling step, before averaging; each needs about 30 bytes."""
MAX_SAMPLED_SIDE_PX = 6144
"""Maximum side of a crop before averaging.  A crop is sampled as a whole, with 1 GiB of memory."""
BLACK, WHITE = 0.0, 1.0
"""Linear RGB values of the background."""
BOUND_POINTS_PER_SIDE = 17
"""Number of points along each side of a crop that the bounds of its source are computed from."""


def check_sampled_size(side_px: int, antialias_factor: int) -> None:
    """
    Reject crops that need too much memory.

    Parameters
    ----------
    side_px
        Height and width of the model's crops.
    antialias_factor
        Crops are sampled this many times larger.

    Raises
    ------
    ValueError
        If the sampling of a single crop needs more than about 1 GiB.
    """
    if side_px * antialias_factor > MAX_SAMPLED_SIDE_PX:
        raise ValueError(
            f'antialias_factor is {antialias_factor}; this model has crops of {side_px} x '
            f'{side_px} pixels, and the limit for sampling is {MAX_SAMPLED_SIDE_PX} x '
            f'{MAX_SAMPLED_SIDE_PX}, so it must be at most {MAX_SAMPLED_SIDE_PX // side_px}'
        )


@torch.inference_mode()
def sample_crops(
    source_image: SourceImage,
    camera: Camera,
    virtual: VirtualCameras,
    gamma: FloatArray,
    antialias_factor: int = 1,
    background: float = BLACK,
) -> Tensor:
    """
    Sample the crops of virtual cameras from the image of the real camera.

    Pixels are averaged in linear RGB: the image is gamma-decoded before sampling and encoded
    afterwards.  Small crops of large people are sampled from an image pyramid.  Only the part of
    the image that the crops cover is decoded.

    Parameters
    ----------
    source_image
        Image of the real camera; the crops are created on its device.
    camera
        The real camera.
    virtual
        N virtual cameras; those of one person are consecutive.
    gamma
        [A], exponents in addition to the image's own gamma.  N is a multiple of A: the A crops of
        each person have these exponents in this order.
    antialias_factor
        Crops are sampled this many times larger and averaged down.
    background
        Linear RGB value outside of the image, from 0 to 1.

    Returns
    -------
    [N, 3, side, side], float32, from 0 to 1.
    """
    side_px, device = virtual.side_px, source_image.device
    crops = torch.empty(len(virtual), 3, side_px, side_px, device=device)
    max_crops = max(1, MAX_PIXELS // (side_px * antialias_factor) ** 2)
    for part, exponents in _parts(len(crops), gamma, max_crops):
        cameras = virtual.select(part)
        _sample_people(
            source_image, camera, cameras, exponents, antialias_factor, background, crops[part]
        )
    return crops


def _parts(count: int, gamma: FloatArray, max_crops: int) -> Iterator[tuple[slice, FloatArray]]:
    """
    Divide crops into parts that are sampled one after the other, to limit the memory.

    Parameters
    ----------
    count
        Number of crops; the A crops of each person are consecutive.
    gamma
        [A], exponents of each person's crops.
    max_crops
        Maximum number of crops in a part.

    Yields
    ------
    A part with all crops of one or more people, or with some of the crops of one person, and the
    exponents of each person's crops in it.
    """
    num_aug = len(gamma)
    if num_aug <= max_crops:
        step = max_crops // num_aug * num_aug
        for start in range(0, count, step):
            yield slice(start, min(start + step, count)), gamma
        return
    for person in range(0, count, num_aug):
        for first in range(0, num_aug, max_crops):
            part = gamma[first : first + max_crops]
            yield slice(person + first, person + first + len(part)), part


def _sample_people(
    source_image: SourceImage,
    camera: Camera,
    virtual: VirtualCameras,
    gamma: FloatArray,
    antialias_factor: int,
    background: float,
    crops: Tensor,
) -> None:
    """Sample crops [N, 3, side, side]; those of a person use the same part of the image."""
    large_px = virtual.side_px * antialias_factor
    to_ray = np.linalg.inv(
        corner_aligned_scaling(antialias_factor) @ virtual.intrinsic_matrix @ virtual.rotation
    )
    bounds_px = _bounds(camera, to_ray, large_px)
    source = source_pixels(camera, to_ray, large_px, large_px, source_image.device)
    levels = pyramid_level(virtual.scale * antialias_factor)
    exponents = np.resize(gamma / GAMMA, len(crops))

    # The inference mode is set for each thread separately.
    @torch.inference_mode()
    def sample(batch: PixelArray, level: int) -> None:
        rows = _as_slice(batch)
        index = rows if isinstance(rows, slice) else upload(rows, crops.device)
        linear_rgb = _sample_level(source_image, source[index], bounds_px[rows], level, background)
        if antialias_factor > 1:
            linear_rgb = functional.avg_pool2d(linear_rgb, antialias_factor)
        crops[index] = source_image.encode(linear_rgb, exponents[rows])

    source_image.for_each_batch(levels.reshape(-1, len(gamma)), sample)


def _as_slice(rows: PixelArray) -> PixelArray | slice:
    """Return consecutive rows as a slice, because indexing with a slice does not copy."""
    consecutive = slice(int(rows[0]), int(rows[-1]) + 1)
    return consecutive if (np.diff(rows) == 1).all() else rows


def _sample_level(
    source_image: SourceImage,
    source: Tensor,
    bounds_px: FloatArray,
    level: int,
    background: float,
) -> Tensor:
    """
    Sample crops from a level of the image's pyramid.

    Parameters
    ----------
    source_image
        The image.
    source
        [B, 2, S, S], image pixels to sample.
    bounds_px
        [B, 2, 2], minimum and maximum of these pixels.
    level
        Number of times that the image is halved.
    background
        Value outside of the image.

    Returns
    -------
    [B, 3, S, S], linear RGB.
    """
    count, _, side_px, _ = source.shape
    to_level = corner_aligned_scaling(0.5**level)
    factor, shift_px = to_level[0, 0], to_level[0, 2]
    at_level_px = factor * bounds_px + shift_px
    limit_px = source_image.size_px >> level
    low_px = np.floor(at_level_px[:, 0].min(axis=0)).astype(np.int64) - 1
    high_px = np.ceil(at_level_px[:, 1].max(axis=0)).astype(np.int64) + 2
    low_px = np.clip(low_px, 0, limit_px)
    high_px = np.clip(high_px, low_px, limit_px)
    if (high_px == low_px).any():
        return source.new_full((count, 3, side_px, side_px), background)
    linear_rgb = source_image.linear_rgb(low_px, high_px, level)
    if min(linear_rgb.shape[2:]) < 2:
        # The relative coordinates are undefined for a side of a single pixel.
        linear_rgb = functional.pad(linear_rgb, (0, 2, 0, 2))
    # Map image pixels to -1 at the first pixel of the part and 1 at the last one.
    scale = 2 / (np.array(linear_rgb.shape[:1:-1]) - 1)
    to_part = np.stack([(shift_px - low_px) * scale - 1, factor * scale])
    offset, slope = upload(to_part.astype(np.float32), source.device)
    # All crops are sampled like one crop of their total height.
    positions = source.permute(0, 2, 3, 1).reshape(1, count * side_px, side_px, 2)
    grid = torch.addcmul(offset, positions, slope)
    sampled = functional.grid_sample(linear_rgb, grid, padding_mode='zeros', align_corners=True)
    sampled = sampled.view(3, count, side_px, side_px).transpose(0, 1)
    exceeds_image = (at_level_px[:, 0] < 0) | (at_level_px[:, 1] > limit_px - 1)
    if background and exceeds_image.any():
        # The sampling pads with zeros.
        sampled = sampled + background * (1 - _coverage(factor * source + shift_px, limit_px))
    return sampled


def _coverage(points_px: Tensor, size_px: PixelArray) -> Tensor:
    """
    Return the weight of the image's pixels in bilinear samples, [B, 1, S, S].

    Parameters
    ----------
    points_px
        [B, 2, S, S], x and y of the samples.
    size_px
        [2], width and height of the image.
    """
    width, height = size_px.tolist()
    x, y = points_px[:, :1], points_px[:, 1:]
    across = (x + 1).clamp(0, 1) * (width - x).clamp(0, 1)
    return across * (y + 1).clamp(0, 1) * (height - y).clamp(0, 1)


def _bounds(camera: Camera, to_ray: FloatArray, side_px: int) -> FloatArray:
    """
    Return the minimum and maximum of the image pixels that crops show, [N, 2, 2].

    Without lens distortion a crop in front of the camera shows a convex quadrilateral, which its
    corners determine.  Otherwise they are computed from a coarse grid of points; the second
    differences of the grid limit how far points between the grid points can exceed it.
    """
    bend_px: FloatArray | float = 0.0
    if _is_homography(camera, to_ray, side_px):
        points = source_pixels(camera, to_ray, side_px, 2, torch.device('cpu')).double().numpy()
    else:
        grid = source_pixels(camera, to_ray, side_px, BOUND_POINTS_PER_SIDE, torch.device('cpu'))
        points = grid.double().numpy()
        bend_px = np.max(
            [np.abs(np.diff(points, n=2, axis=axis)).max(axis=(2, 3)) for axis in (2, 3)], axis=0
        )
    low_px, high_px = points.min(axis=(2, 3)) - bend_px, points.max(axis=(2, 3)) + bend_px
    return np.clip(np.stack([low_px, high_px], axis=1), -MAX_COORDINATE_PX, MAX_COORDINATE_PX)


def source_pixels(
    camera: Camera, to_ray: FloatArray, side_px: int, count: int, device: torch.device
) -> Tensor:
    """
    Return the image pixels of the real camera that correspond to pixels of crops.

    Parameters
    ----------
    camera
        The real camera.
    to_ray
        [N, 3, 3], map pixels of the crops to rays of the real camera.
    side_px
        Height and width of the crops.
    count
        Number of points along each side, from the first pixel to the last; all pixels if it is
        `side_px`.
    device
        Device of the result.

    Returns
    -------
    [N, 2, count, count], x and y, float32; far outside the image for rays that point backwards.
    """
    distorted = len(camera.distortion_coeffs) > 0
    # Without lens distortion the map from crop pixels to image pixels is one homography.
    matrix = to_ray if distorted else camera.intrinsic_matrix @ to_ray
    along_u, along_v, constant = upload(matrix.astype(np.float32)[..., None, None], device).unbind(
        dim=2
    )
    positions = torch.linspace(0, side_px - 1, count, device=device)
    rays = (along_u * positions + constant) + along_v * positions[:, None]
    if camera.fisheye:
        # A fisheye lens also shows points next to and behind the camera.
        across = torch.linalg.vector_norm(rays[:, :2], dim=1, keepdim=True).clamp_(min=1e-9)
        angle = torch.atan2(across, rays[:, 2:])
        points = rays[:, :2] * (equidistant_radius(angle, camera.distortion_coeffs) / across)
    else:
        points = rays[:, :2] / rays[:, 2:]
        if distorted:
            xy = distort_xy(points[:, 0], points[:, 1], camera.distortion_coeffs)
            points = torch.stack(xy, dim=1)
    if distorted:
        ((fx, skew, cx), (_, fy, cy), _) = camera.intrinsic_matrix.tolist()
        x, y = points.unbind(dim=1)
        points = torch.stack([fx * x + skew * y + cx, fy * y + cy], dim=1)
    if _is_homography(camera, to_ray, side_px):
        return points
    finite = points.nan_to_num_(nan=-MAX_COORDINATE_PX).clamp_(
        -MAX_COORDINATE_PX, MAX_COORDINATE_PX
    )
    if camera.fisheye:
        return finite
    return finite.masked_fill_(rays[:, 2:] <= 0, -MAX_COORDINATE_PX)


def _is_homography(camera: Camera, to_ray: FloatArray, side_px: int) -> bool:
    """Return whether crops are in front of a camera without lens distortion."""
    if len(camera.distortion_coeffs):
        return False
    # The depth is linear across a crop, so it is positive everywhere if it is at the corners.
    corners = np.array([[u, v, 1] for u in (0, side_px - 1) for v in (0, side_px - 1)])
    return bool((to_ray[:, 2] @ corners.T > 0).all())
