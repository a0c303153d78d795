"""Images where they are sampled: in this machine's memory, or on another device."""

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
from metrabs_ros.image_pyramid import GAMMA, THREADS, decoded

PixelArray = NDArray[np.int64]


class SourceImage(abc.ABC):
    """
    An image that parts can be had of, in linear light.

    Parameters
    ----------
    size_px
        [2], its width and height.
    device
        Where the parts are.
    """

    def __init__(self, size_px: tuple[int, int], device: torch.device) -> None:
        self.size_px = np.array(size_px)
        self.device = device

    @abc.abstractmethod
    def linear_rgb(self, low_px: PixelArray, high_px: PixelArray, level: int) -> Tensor:
        """
        Return parts of the image at a level of its pyramid, gamma-decoded.

        Parameters
        ----------
        low_px
            [P, 2], the parts' upper left pixels at that level.
        high_px
            [P, 2], where they end, beyond their lower right pixels; all are of one size.
        level
            How often the image is halved.

        Returns
        -------
        [P, 3, h, w], float32.
        """

    @abc.abstractmethod
    def encoded(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """
        Gamma-encode crops, each to a power of its own.

        Parameters
        ----------
        light
            [N, 3, h, w], float32, not negative; it may be overwritten.
        exponents
            [N].

        Returns
        -------
        [N, 3, h, w], float32.
        """

    @abc.abstractmethod
    def sample(self, levels: PixelArray, sample: Callable[[PixelArray, int], None]) -> None:
        """
        Sample several people's crops, in the batches that suit the device.

        Parameters
        ----------
        levels
            [P, A], the level of the pyramid for each of a person's crops.
        sample
            Is given a batch [P', A'] of crops, those of a person in a row, as indices from 0 to
            P x A, and a level.  Crops of the batch that have another level are not to be kept.
        """


class HostImage(SourceImage):
    """
    An image in this machine's memory; only what is asked for is decoded.

    Parameters
    ----------
    image
        [H, W, 3], uint8, RGB; it is not copied.
    """

    def __init__(self, image: ImageArray) -> None:
        super().__init__((image.shape[1], image.shape[0]), torch.device('cpu'))
        self._image = image

    def linear_rgb(self, low_px: PixelArray, high_px: PixelArray, level: int) -> Tensor:
        """Return parts of the image; see `SourceImage`."""
        parts = [decoded(self._image, low, high, level) for low, high in zip(low_px, high_px)]
        return torch.from_numpy(np.stack(parts) if len(parts) > 1 else parts[0][None]).permute(
            0, 3, 1, 2
        )

    def encoded(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """Gamma-encode crops; see `SourceImage`."""
        import cv2

        code_values = linear_rgb.contiguous()
        # In half the time that torch takes.
        for rows, exponent in zip(code_values.flatten(1, 2).numpy(), exponents.tolist()):
            cv2.pow(rows, exponent, dst=rows)
        return code_values

    def sample(self, levels: PixelArray, sample: Callable[[PixelArray, int], None]) -> None:
        """Sample one person after the other, each from a part of its own size."""
        crops = np.arange(levels.size).reshape(levels.shape)
        batches = [
            (own[at == level][None], level)
            for own, at in zip(crops, levels)
            for level in np.unique(at).tolist()
        ]
        # Decoding and sampling let other threads run meanwhile.
        list(THREADS.map(lambda batch: sample(*batch), batches))


class DeviceImage(SourceImage):
    """
    An image whose bytes are brought to a device, once.

    Parameters
    ----------
    image
        [H, W, 3], uint8, RGB.
    device
        Where to.
    """

    def __init__(self, image: ImageArray, device: torch.device) -> None:
        super().__init__((image.shape[1], image.shape[0]), device)
        # Tensors have no negative strides.
        self._blue_first = image.strides[2] < 0
        if self._blue_first:
            image = image[..., ::-1]
        if min(image.strides) < 0:
            image = np.ascontiguousarray(image)
        with warnings.catch_warnings():
            # A message's memory is not to be written to, and nobody does.
            warnings.filterwarnings('ignore', message='The given NumPy array is not writable')
            self._pixels = uploaded(image, device)

    def linear_rgb(self, low_px: PixelArray, high_px: PixelArray, level: int) -> Tensor:
        """Return parts of the image; see `SourceImage`."""
        step = 2**level
        width, height = step * (high_px - low_px).max(axis=0)
        left, top = uploaded(step * low_px.T, self.device)
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

    def encoded(self, linear_rgb: Tensor, exponents: FloatArray) -> Tensor:
        """Gamma-encode crops; see `SourceImage`."""
        return linear_rgb.pow_(
            uploaded(exponents.astype(np.float32)[:, None, None, None], self.device)
        )

    def sample(self, levels: PixelArray, sample: Callable[[PixelArray, int], None]) -> None:
        """Sample all people of a level at once."""
        crops = np.arange(levels.size).reshape(levels.shape)
        for level in np.unique(levels).tolist():
            people = np.flatnonzero((levels == level).any(axis=1))
            sample(crops[people], level)


def uploaded(array: NDArray[Any], device: torch.device) -> Tensor:
    """Bring an array to a device; on a GPU, without waiting for what that does at the moment."""
    tensor = torch.from_numpy(array)
    if device.type == 'cuda':
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def source_image_on(image: ImageArray, device: torch.device) -> SourceImage:
    """Return an image [H, W, 3], uint8, RGB, to be sampled on a device."""
    return HostImage(image) if device.type == 'cpu' else DeviceImage(image, device)
