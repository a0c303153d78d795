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
    An image with access to parts of it in linear RGB.

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
        Return parts of the image in linear RGB, at a level of the pyramid.

        Parameters
        ----------
        low_px
            [P, 2], upper left pixels of the parts at that level.
        high_px
            [P, 2], exclusive ends at the lower right; all parts have the same size.
        level
            Number of times that the image is halved.

        Returns
        -------
        [P, 3, h, w], float32.
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
        Call a function for batches of crops of a size that suits the device.

        Parameters
        ----------
        levels
            [P, A], pyramid level of each person's crops.
        sample
            Function of a batch [P', A'] of crop indices from 0 to P x A, where each row holds
            crops of one person, and of a level.  It must ignore crops that have another level.
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
        """Return parts in linear RGB; see `SourceImage`."""
        parts = [decode_part(self._image, low, high, level) for low, high in zip(low_px, high_px)]
        return torch.from_numpy(np.stack(parts) if len(parts) > 1 else parts[0][None]).permute(
            0, 3, 1, 2
        )

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
        """Call a function for each person and level, so that each part fits one person."""
        crops = np.arange(levels.size).reshape(levels.shape)
        batches = [
            (person_crops[person_levels == level][None], level)
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
        """Return parts in linear RGB; see `SourceImage`."""
        step = 2**level
        width, height = step * (high_px - low_px).max(axis=0)
        left, top = upload(step * low_px.T, self.device)
        columns = left[:, None] + torch.arange(width, device=self.device)
        rows = top[:, None] + torch.arange(height, device=self.device)
        parts = self._pixels[rows[:, :, None], columns[:, None, :]]
        if self._blue_first:
            parts = parts.flip(-1)
        linear_rgb = parts.permute(0, 3, 1, 2).to(
            torch.float32, memory_format=torch.contiguous_format
        )
        linear_rgb.div_(255).pow_(GAMMA)
        for _ in range(level):
            linear_rgb = functional.avg_pool2d(linear_rgb, 2)
        return linear_rgb

    def encode(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """Gamma-encode crops; see `SourceImage`."""
        return linear_rgb.pow_(
            upload(exponents.astype(np.float32)[:, None, None, None], self.device)
        )

    def for_each_batch(
        self, levels: PixelArray, sample: Callable[[PixelArray, int], None]
    ) -> None:
        """Call a function once for each level, for all people with crops of that level."""
        crops = np.arange(levels.size).reshape(levels.shape)
        for level in np.unique(levels).tolist():
            people = np.flatnonzero((levels == level).any(axis=1))
            sample(crops[people], level)


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device; copies to a GPU are asynchronous."""
    tensor = torch.from_numpy(array)
    if device.type == 'cuda':
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def create_source_image(image: ImageArray, device: torch.device) -> SourceImage:
    """Return an image [H, W, 3], uint8, RGB, for sampling on a device."""
    return HostImage(image) if device.type == 'cpu' else DeviceImage(image, device)
