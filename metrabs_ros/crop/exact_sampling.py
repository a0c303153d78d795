"""Sampling what virtual cameras see, by torch: exact, on any device, several crops a person."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera, distort_xy, equidistant_radius
from metrabs_ros.crop.light import (
    GAMMA,
    corner_aligned_scaling,
    decoded_region,
    pyramid_level,
)
from metrabs_ros.crop.sampling import THREADS
from metrabs_ros.crop.virtual import VirtualCameras

FAR_OUTSIDE_PX = 1e6
PIXELS_AT_ONCE = 1 << 24


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
    crops = torch.empty(len(virtual), 3, side_px, side_px, device=device)
    exponents = torch.as_tensor(gamma / GAMMA, dtype=torch.float32, device=device)
    people_at_once = max(1, PIXELS_AT_ONCE // (each * (side_px * antialias_factor) ** 2))
    step = people_at_once * each
    for start in range(0, len(crops), step):
        part = slice(start, min(start + step, len(crops)))
        source = source_pixels(camera, virtual.select(part), antialias_factor, device)
        levels = pyramid_level(virtual.scale[part] * antialias_factor)
        _sample_people(image, source, levels, each, antialias_factor, crops[part])
        by_person = crops[part].view(-1, each, 3, side_px, side_px)
        torch.pow(by_person.clamp_(min=0), exponents[:, None, None, None], out=by_person)
    return crops


def _sample_people(
    image: ImageArray,
    source: tuple[Tensor, Tensor],
    levels: NDArray[np.int64],
    each: int,
    antialias_factor: int,
    crops: Tensor,
) -> None:
    """Sample crops [N, 3, side, side] in linear light, those of a person from one region."""
    x, y = source

    def sample(run: slice) -> None:
        large = _sample_run(image, x[run], y[run], int(levels[run.start]))
        smooth = large if antialias_factor == 1 else functional.avg_pool2d(large, antialias_factor)
        crops[run] = smooth

    runs = [run for start in range(0, len(crops), each) for run in _runs(levels, start, each)]
    # Decoding and sampling let other threads run meanwhile.
    list(THREADS.map(sample, runs))


def _runs(levels: NDArray[np.int64], start: int, each: int) -> list[slice]:
    """Return the parts of a person's crops in which neighbours have the same level."""
    changes = start + 1 + np.flatnonzero(np.diff(levels[start : start + each]))
    edges = [start, *changes.tolist(), start + each]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _sample_run(image: ImageArray, x: Tensor, y: Tensor, level: int) -> Tensor:
    """Sample from a level of the image's pyramid, at pixels [A, S, S] of the image."""
    to_level = corner_aligned_scaling(0.5**level)
    factor, shift_px = to_level[0, 0], to_level[0, 2]
    bounds_px = torch.stack([*x.aminmax(), *y.aminmax()]).double().cpu().numpy()
    at_level_px = factor * bounds_px.reshape(2, 2).T + shift_px
    origin, decoded = decoded_region(image, at_level_px, level)
    region = torch.from_numpy(decoded).to(x.device)
    if min(region.shape[:2]) < 2:
        # Coordinates relative to the region's extent need one.
        region = functional.pad(region, (0, 0, 0, 2, 0, 2))
    places = torch.empty(*x.shape, 2, device=x.device)
    for axis, (pixels, size) in enumerate(((x, region.shape[1]), (y, region.shape[0]))):
        # From pixels of the image to -1 in the region's first pixel and 1 in its last.
        scale = 2 / (size - 1)
        offset = float((shift_px - origin[axis]) * scale - 1)
        torch.add(offset, pixels, alpha=float(factor * scale), out=places[..., axis])
    planes = region.permute(2, 0, 1)[None].expand(len(x), -1, -1, -1)
    return functional.grid_sample(planes, places, padding_mode='zeros', align_corners=True)


def source_pixels(
    camera: Camera,
    virtual: VirtualCameras,
    antialias_factor: int,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
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
    x and y, [N, side, side] each, float32; far outside of any image where rays point backwards.
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
    behind = z <= 0
    if camera.fisheye:
        # It sees what is beside and behind it, too.
        across = torch.sqrt(x * x + y * y).clamp_(min=1e-9)
        bend = equidistant_radius(torch.atan2(across, z), camera.distortion_coeffs) / across
        x, y, behind = x * bend, y * bend, torch.zeros_like(behind)
    else:
        x, y = x / z, y / z
        if distorted:
            x, y = distort_xy(x, y, camera.distortion_coeffs)
    if distorted:
        ((fx, skew, cx), (_, fy, cy), _) = camera.intrinsic_matrix.tolist()
        x, y = fx * x + skew * y + cx, fy * y + cy
    # The depth is linear across the crop, so that its corners tell whether it is 0 anywhere.
    if not distorted and not behind[:, :: len(place) - 1, :: len(place) - 1].any():
        return x, y
    return _outside_where(behind, x), _outside_where(behind, y)


def _outside_where(behind: Tensor, pixels: Tensor) -> Tensor:
    finite = torch.nan_to_num(pixels, nan=-FAR_OUTSIDE_PX)
    return finite.clamp_(-FAR_OUTSIDE_PX, FAR_OUTSIDE_PX).masked_fill_(behind, -FAR_OUTSIDE_PX)
