"""Sampling what virtual cameras see, by torch: exact, on any device, several crops a person."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera, distort_xy
from metrabs_ros.crop.light import (
    GAMMA,
    corner_aligned_scaling,
    decoded_region,
    pyramid_level,
)
from metrabs_ros.crop.virtual import VirtualCameras

FAR_OUTSIDE_PX = 1e6


def sample_crops(
    image: ImageArray,
    camera: Camera,
    virtual: VirtualCameras,
    gamma: FloatArray,
    antialias_factor: int = 1,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """
    Sample what virtual cameras see from the image of the real one.

    Light is averaged, not code values: the image is gamma-decoded before it is sampled and
    encoded again after.  Small crops of large people are sampled from a pyramid of halved images.
    Only what the crops touch is decoded.

    Parameters
    ----------
    image
        [H, W, 3], uint8.
    camera
        The real camera.
    virtual
        The N virtual ones; those next to each other best look at the same person.
    gamma
        [A], exponents beside the image's own gamma.  N is a multiple of A: each person's A crops
        have these one after the other.
    antialias_factor
        Crops are sampled this many times as large and averaged down.
    device
        Where the crops are to be.

    Returns
    -------
    [N, 3, side, side], float32, from 0 to 1, black where the image has nothing.
    """
    side_px, each = virtual.side_px, len(gamma)
    crops = torch.empty(len(virtual.scale), 3, side_px, side_px, device=device)
    exponent = torch.as_tensor(gamma / GAMMA, dtype=torch.float32, device=device)
    for start in range(0, len(crops), each):
        person = slice(start, start + each)
        _sample_person(image, camera, virtual.select(person), antialias_factor, crops[person])
        crops[person] = crops[person].clamp_(min=0) ** exponent[:, None, None, None]
    return crops


def _sample_person(
    image: ImageArray,
    camera: Camera,
    virtual: VirtualCameras,
    antialias_factor: int,
    crops: Tensor,
) -> None:
    """Sample the crops [A, 3, side, side] of one person in linear light."""
    source_px = source_pixels(camera, virtual, antialias_factor, crops.device)
    levels = pyramid_level(virtual.scale * antialias_factor)
    for level in np.unique(levels):
        chosen = torch.as_tensor(np.flatnonzero(levels == level), device=crops.device)
        factor = 0.5 ** int(level)
        at_level_px = source_px[chosen] * factor + (factor - 1) / 2
        bounds_px = torch.stack([at_level_px.amin((0, 1, 2)), at_level_px.amax((0, 1, 2))])
        origin, region = decoded_region(image, bounds_px.double().cpu().numpy(), int(level))
        large = _bilinear(torch.from_numpy(region).to(crops.device), at_level_px, origin)
        crops[chosen] = functional.avg_pool2d(large, antialias_factor)


def source_pixels(
    camera: Camera, virtual: VirtualCameras, antialias_factor: int, device: torch.device | str
) -> Tensor:
    """
    Return which pixel of the real camera's image each pixel of some crops shows.

    Parameters
    ----------
    camera
        The real camera.
    virtual
        The N virtual ones.
    antialias_factor
        Of crops so many times as large.
    device
        Where the result is to be.

    Returns
    -------
    [N, side, side, 2], float32, far outside of any image where the ray points backwards.
    """
    to_large = corner_aligned_scaling(antialias_factor)
    to_ray = np.linalg.inv(to_large @ virtual.intrinsic_matrix @ virtual.rotation)
    distorted = len(camera.distortion_coeffs) > 0
    # Without a lens model the way from pixel to pixel is one homography.
    matrix = to_ray if distorted else camera.intrinsic_matrix @ to_ray
    m = torch.as_tensor(matrix, dtype=torch.float32, device=device)[..., None, None]
    place = torch.arange(virtual.side_px * antialias_factor, dtype=torch.float32, device=device)
    u, v = place[None, None, :], place[None, :, None]
    x, y, z = ((m[:, i, 0] * u + m[:, i, 2]) + m[:, i, 1] * v for i in range(3))
    x, y = x / z, y / z
    if distorted:
        x, y = distort_xy(x, y, camera.distortion_coeffs)
        ((fx, skew, cx), (_, fy, cy), _) = camera.intrinsic_matrix.tolist()
        x, y = fx * x + skew * y + cx, fy * y + cy
    pixels = torch.stack([x, y], dim=-1)
    ahead = (z > 0)[..., None] & (pixels.abs() < FAR_OUTSIDE_PX)
    return torch.where(ahead, pixels, -FAR_OUTSIDE_PX)


def _bilinear(region: Tensor, pixels: Tensor, origin: NDArray[np.int64]) -> Tensor:
    """Sample a region [h, w, 3] that starts at a pixel [2], at pixels [A, S, S, 2]."""
    if min(region.shape[:2]) < 2:
        # Coordinates relative to the region's extent need one.
        region = functional.pad(region, (0, 0, 0, 2, 0, 2))
    last = torch.tensor([region.shape[1] - 1, region.shape[0] - 1], device=pixels.device)
    start = torch.as_tensor(origin, dtype=torch.float32, device=pixels.device)
    places = (pixels - start) * (2 / last) - 1
    planes = region.permute(2, 0, 1)[None].expand(len(pixels), -1, -1, -1)
    return functional.grid_sample(planes, places, padding_mode='zeros', align_corners=True)
