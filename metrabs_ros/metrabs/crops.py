"""Sampling what virtual cameras see, by torch: exact, on any device, several crops a person."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera, distort_xy, equidistant_radius
from metrabs_ros.image_pyramid import FAR_OUTSIDE_PX, GAMMA, corner_aligned_scaling, pyramid_level
from metrabs_ros.metrabs.source_image import PixelArray, SourceImage, uploaded
from metrabs_ros.virtual_cameras import VirtualCameras

PIXELS_AT_ONCE = 1 << 24
"""Of crops before they are averaged down; each takes about 30 bytes while crops are made."""
LARGEST_SIDE_PX = 6144
"""Of a crop before it is averaged down.  A crop is sampled as a whole: 1 GiB of memory."""
POINTS_PER_SIDE = 17
"""Of so many places along each side of a crop it is found out beforehand what they show."""


def check_sampled_size(side_px: int, antialias_factor: int) -> None:
    """
    Refuse crops that would take too much memory.

    Parameters
    ----------
    side_px
        Height and width of the model's crops.
    antialias_factor
        Crops are sampled this many times as large.

    Raises
    ------
    ValueError
        If a single crop would take more than about 1 GiB while it is sampled.
    """
    if side_px * antialias_factor > LARGEST_SIDE_PX:
        raise ValueError(
            f'antialias_factor is {antialias_factor}; crops of {side_px} x {side_px} pixels, as '
            f'this model has, are sampled with up to {LARGEST_SIDE_PX} x {LARGEST_SIDE_PX}, so it '
            f'must be at most {LARGEST_SIDE_PX // side_px}'
        )


@torch.inference_mode()
def sample_crops(
    source_image: SourceImage,
    camera: Camera,
    virtual: VirtualCameras,
    gamma: FloatArray,
    antialias_factor: int = 1,
) -> Tensor:
    """
    Sample what virtual cameras see from the image of the real one.

    Light is averaged, not code values: the image is gamma-decoded before it is sampled and
    encoded again after.  Small crops of large people are sampled from a pyramid of halved images.
    Only what the crops touch is decoded.

    Parameters
    ----------
    picture
        The real camera's image; the crops are made on its device.
    camera
        The real camera.
    virtual
        The N virtual ones; those next to each other best look at the same person.
    gamma
        [A], exponents beside the image's own gamma.  N is a multiple of A: each person's A crops
        have these one after the other.
    antialias_factor
        Crops are sampled this many times as large and averaged down.

    Returns
    -------
    [N, 3, side, side], float32, from 0 to 1, black where the image has nothing.
    """
    side_px, device = virtual.side_px, source_image.device
    crops = torch.empty(len(virtual), 3, side_px, side_px, device=device)
    crops_at_once = max(1, PIXELS_AT_ONCE // (side_px * antialias_factor) ** 2)
    for part, exponents in _parts(len(crops), gamma, crops_at_once):
        own = virtual.select(part)
        _sample_people(source_image, camera, own, exponents, antialias_factor, crops[part])
    return crops


def _parts(count: int, gamma: FloatArray, at_once: int) -> Iterator[tuple[slice, FloatArray]]:
    """
    Divide crops into parts that are sampled one after the other, so that memory is bounded.

    Parameters
    ----------
    count
        The number of crops; each person's `gamma` [A] ones are consecutive.
    gamma
        [A], of each person's crops.
    at_once
        The largest number of crops in a part.

    Yields
    ------
    A part with all crops of one or several people, or else with some of one person's crops, and
    the gamma of each person's crops in it.
    """
    each = len(gamma)
    if each <= at_once:
        step = at_once // each * each
        for start in range(0, count, step):
            yield slice(start, min(start + step, count)), gamma
        return
    for person in range(0, count, each):
        for first in range(0, each, at_once):
            own = gamma[first : first + at_once]
            yield slice(person + first, person + first + len(own)), own


def _sample_people(
    source_image: SourceImage,
    camera: Camera,
    virtual: VirtualCameras,
    gamma: FloatArray,
    antialias_factor: int,
    crops: Tensor,
) -> None:
    """Sample crops [N, 3, side, side], those of a person from one part of the image."""
    large_px, each = virtual.side_px * antialias_factor, len(gamma)
    to_ray = np.linalg.inv(
        corner_aligned_scaling(antialias_factor) @ virtual.intrinsic_matrix @ virtual.rotation
    )
    bounds_px = _bounds(camera, to_ray, large_px)
    source = source_pixels(camera, to_ray, large_px, large_px, source_image.device)
    levels = pyramid_level(virtual.scale * antialias_factor)
    exponents = np.resize(gamma / GAMMA, len(crops))

    # Each thread has a mode of its own.
    @torch.inference_mode()
    def sample(batch: PixelArray, level: int) -> None:
        rows = _as_slice(batch.reshape(-1))
        there = rows if isinstance(rows, slice) else uploaded(rows, crops.device)
        by_person = source[there].view(*batch.shape, 2, large_px, large_px)
        linear_rgb = _sample_level(source_image, by_person, bounds_px[batch], level)
        if antialias_factor > 1:
            linear_rgb = functional.avg_pool2d(linear_rgb, antialias_factor)
        encoded = source_image.encoded(linear_rgb, exponents[rows])
        wanted = levels[rows] == level
        if wanted.all():
            crops[there] = encoded
        else:
            kept = uploaded(np.flatnonzero(wanted), crops.device)
            crops[uploaded(batch.reshape(-1)[wanted], crops.device)] = encoded[kept]

    source_image.sample(levels.reshape(-1, each), sample)


def _as_slice(rows: PixelArray) -> PixelArray | slice:
    """Return the same rows in the form that copies nothing, if they have it."""
    in_a_row = slice(int(rows[0]), int(rows[-1]) + 1)
    return in_a_row if (np.diff(rows) == 1).all() else rows


def _sample_level(
    source_image: SourceImage, source: Tensor, bounds_px: FloatArray, level: int
) -> Tensor:
    """
    Sample from a level of the image's pyramid.

    Parameters
    ----------
    picture
        The image.
    source
        [P, A, 2, S, S], which pixels of it.
    bounds_px
        [P, A, 2, 2], between which pixels they are.
    level
        How often the image is halved.

    Returns
    -------
    [P x A, 3, S, S], in linear light.
    """
    people, each, _, side_px, _ = source.shape
    to_level = corner_aligned_scaling(0.5**level)
    factor, shift_px = to_level[0, 0], to_level[0, 2]
    at_level_px = factor * bounds_px + shift_px
    limit_px = source_image.size_px >> level
    low_px = np.floor(at_level_px[:, :, 0].min(axis=1)).astype(np.int64) - 1
    high_px = np.ceil(at_level_px[:, :, 1].max(axis=1)).astype(np.int64) + 2
    low_px = np.clip(low_px, 0, limit_px)
    # All parts are as large as the largest, and none begins where that does not fit.
    size_px = (np.clip(high_px, low_px, limit_px) - low_px).max(axis=0)
    if not size_px.all():
        return source.new_zeros(people * each, 3, side_px, side_px)
    low_px = np.minimum(low_px, limit_px - size_px)
    linear_rgb = source_image.linear_rgb(low_px, low_px + size_px, level)
    if min(linear_rgb.shape[2:]) < 2:
        # Coordinates relative to a part's extent need one.
        linear_rgb = functional.pad(linear_rgb, (0, 2, 0, 2))
    # From pixels of the image to -1 in the part's first pixel and 1 in its last.
    scale = 2 / (np.array(linear_rgb.shape[:1:-1]) - 1)
    offset, slope = (
        uploaded(values.astype(np.float32), source.device)
        for values in ((shift_px - low_px) * scale - 1, factor * scale)
    )
    places = source.permute(0, 1, 3, 4, 2).reshape(people, each * side_px, side_px, 2)
    grid = torch.addcmul(offset[:, None, None], places, slope)
    sampled = functional.grid_sample(linear_rgb, grid, padding_mode='zeros', align_corners=True)
    by_crop = sampled.view(people, 3, each, side_px, side_px).transpose(1, 2)
    return by_crop.reshape(people * each, 3, side_px, side_px)


def _bounds(camera: Camera, to_ray: FloatArray, side_px: int) -> FloatArray:
    """
    Return between which pixels of the image all that crops show is, [N, 2, 2].

    Between the places that are looked at, nothing can be farther out than what is seen bends.
    """
    looks = source_pixels(camera, to_ray, side_px, POINTS_PER_SIDE, torch.device('cpu'))
    points = looks.double().numpy()
    bend_px = np.max(
        [np.abs(np.diff(points, n=2, axis=axis)).max(axis=(2, 3)) for axis in (2, 3)], axis=0
    )
    low_px, high_px = points.min(axis=(2, 3)) - bend_px, points.max(axis=(2, 3)) + bend_px
    return np.clip(np.stack([low_px, high_px], axis=1), -FAR_OUTSIDE_PX, FAR_OUTSIDE_PX)


def source_pixels(
    camera: Camera, to_ray: FloatArray, side_px: int, count: int, device: torch.device
) -> Tensor:
    """
    Return which pixels of the real camera's image are shown by crops.

    Parameters
    ----------
    camera
        The real camera.
    to_ray
        [N, 3, 3], take pixels of the crops to rays of the real camera.
    side_px
        Height and width of the crops.
    count
        At how many places along each side, from its first pixel to its last; all if it is
        `side_px`.
    device
        Where the result is to be.

    Returns
    -------
    [N, 2, count, count], x and y, float32; far outside of any image where rays point backwards.
    """
    distorted = len(camera.distortion_coeffs) > 0
    # Without a lens model the way from pixel to pixel is one homography.
    matrix = to_ray if distorted else camera.intrinsic_matrix @ to_ray
    along_u, along_v, constant = uploaded(
        matrix.astype(np.float32)[..., None, None], device
    ).unbind(dim=2)
    places = torch.linspace(0, side_px - 1, count, device=device)
    rays = (along_u * places + constant) + along_v * places[:, None]
    if camera.fisheye:
        # It sees what is beside and behind it, too.
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
    # The depth is linear across a crop, so that its corners tell whether it is 0 anywhere.
    corners = np.array([[u, v, 1] for u in (0, side_px - 1) for v in (0, side_px - 1)])
    in_front = bool((to_ray[:, 2] @ corners.T > 0).all())
    if in_front and not distorted:
        return points
    finite = points.nan_to_num_(nan=-FAR_OUTSIDE_PX).clamp_(-FAR_OUTSIDE_PX, FAR_OUTSIDE_PX)
    return finite if camera.fisheye else finite.masked_fill_(rays[:, 2:] <= 0, -FAR_OUTSIDE_PX)
