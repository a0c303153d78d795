"""Source images for crop sampling: in host memory, or on another device."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.image_pyramid import GAMMA, THREAD_POOL, decode_part

PixelArray = NDArray[np.int64]


class SourceImage(abc.ABC):
    """
    An image that is converted to linear RGB in parts.

    Parameters
    ----------
    size_px
        [2], width and height.
    device
        Device of the converted parts.
    """

    def __init__(self, size_px: tuple[int, int], device: torch.device) -> None:
        self.size_px = np.array(size_px)
        self.device = device

    @abc.abstractmethod
    def linear_rgb(self, low_px: PixelArray, high_px: PixelArray, level: int) -> Tensor:
        """
        Return a part of the image in linear RGB, at a level of the pyramid.

        Parameters
        ----------
        low_px
            [2], upper left pixel of the part at that level.
        high_px
            [2], exclusive end at the lower right.
        level
            Number of times that the image is halved.

        Returns
        -------
        [1, 3, h, w], float32.
        """

    @abc.abstractmethod
    def encode(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """
        Gamma-encode crops, each with its own exponent.

        Parameters
        ----------
        linear_rgb
            [N, 3, h, w], float32, not negative; it may be overwritten.
        exponents
            [N].

        Returns
        -------
        [N, 3, h, w], float32.
        """

    @abc.abstractmethod
    def for_each_batch(
        self, levels: PixelArray, sample: Callable[[PixelArray, int], None]
    ) -> None:
        """
        Call a function for batches of crops that are sampled from the same part of the image.

        Parameters
        ----------
        levels
            [P, A], pyramid level of each person's crops.
        sample
            Function of a batch [B] of crop indices from 0 to P x A, and of their level.
        """


class HostImage(SourceImage):
    """
    An image in host memory; only the requested parts are converted.

    Parameters
    ----------
    image
        [H, W, 3], uint8, RGB; not copied.
    """

    def __init__(self, image: ImageArray) -> None:
        super().__init__((image.shape[1], image.shape[0]), torch.device('cpu'))
        self._image = image

    def linear_rgb(self, low_px: PixelArray, high_px: PixelArray, level: int) -> Tensor:
        """Return a part in linear RGB; see `SourceImage`."""
        part = decode_part(self._image, low_px, high_px, level)
        return torch.from_numpy(part[None]).permute(0, 3, 1, 2)

    def encode(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """Gamma-encode crops; see `SourceImage`."""
        import cv2

        pixels = linear_rgb.contiguous()
        # OpenCV needs half the time of torch.
        for rows, exponent in zip(pixels.flatten(1, 2).numpy(), exponents.tolist()):
            cv2.pow(rows, exponent, dst=rows)
        return pixels

    def for_each_batch(
        self, levels: PixelArray, sample: Callable[[PixelArray, int], None]
    ) -> None:
        """Call a function for each person and level, so that each part is small."""
        crops = np.arange(levels.size).reshape(levels.shape)
        batches = [
            (person_crops[person_levels == level], level)
            for person_crops, person_levels in zip(crops, levels)
            for level in np.unique(person_levels).tolist()
        ]
        # Decoding and sampling release the GIL.
        list(THREAD_POOL.map(lambda batch: sample(*batch), batches))


class DeviceImage(SourceImage):
    """
    An image that is copied to a device once.

    Parameters
    ----------
    image
        [H, W, 3], uint8, RGB.
    device
        The device.
    """

    def __init__(self, image: ImageArray, device: torch.device) -> None:
        super().__init__((image.shape[1], image.shape[0]), device)
        # Tensors do not support negative strides.
        self._blue_first = image.strides[2] < 0
        if self._blue_first:
            image = image[..., ::-1]
        if min(image.strides) < 0:
            image = np.ascontiguousarray(image)
        with warnings.catch_warnings():
            # The image of a message is read-only; this class does not write to it.
            warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
            self._pixels = upload(image, device)

    def linear_rgb(self, low_px: PixelArray, high_px: PixelArray, level: int) -> Tensor:
        """Return a part in linear RGB; see `SourceImage`."""
        (left, top), (right, bottom) = (low_px << level).tolist(), (high_px << level).tolist()
        part = self._pixels[top:bottom, left:right]
        if self._blue_first:
            part = part.flip(-1)
        linear_rgb = part.permute(2, 0, 1)[None].to(
            torch.float32, memory_format=torch.contiguous_format
        )
        linear_rgb.div_(255).pow_(GAMMA)
        for _ in range(level):
            linear_rgb = functional.avg_pool2d(linear_rgb, 2)
        return linear_rgb

    def encode(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """Gamma-encode crops; see `SourceImage`."""
        if (exponents == exponents[0]).all():
            return linear_rgb.pow_(float(exponents[0]))
        return linear_rgb.pow_(
            upload(exponents.astype(np.float32)[:, None, None, None], self.device)
        )

    def for_each_batch(
        self, levels: PixelArray, sample: Callable[[PixelArray, int], None]
    ) -> None:
        """Call a function once for each level, because each call needs many kernels."""
        for level in np.unique(levels).tolist():
            sample(np.flatnonzero(levels == level), level)


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device; copies to a GPU are asynchronous."""
    tensor = torch.from_numpy(array)
    if device.type == 'cuda':
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def create_source_image(image: ImageArray, device: torch.device) -> SourceImage:
    """Return an image [H, W, 3], uint8, RGB, for sampling on a device."""
    return HostImage(image) if device.type == 'cpu' else DeviceImage(image, device)
