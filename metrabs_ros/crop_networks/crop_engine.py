"""Interface of the engines that run a network on crops."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from metrabs_ros.crop_networks.crop_network import CropNetwork

MAX_BATCH = 64
OPTIMAL_BATCH = 4
"""Batch size that TensorRT engines are optimised for."""
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class CropEngine(Protocol):
    """Runs a network on crops."""

    def __call__(self, crops: Tensor) -> tuple[Tensor, ...]:
        """
        Run the network.

        Parameters
        ----------
        crops
            [N, 3, side, side], float32, RGB from 0 to 1, on the engine's device.

        Returns
        -------
        The outputs of the network, each [N, ...], on the same device; see `CropNetwork.heads`.
        """
        ...


def weights_hash(model: CropNetwork) -> str:
    """Return a checksum of the weights of a network."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def split_batches(count: int, sizes: tuple[int, ...]) -> Iterator[tuple[slice, int]]:
    """
    Split a number of crops into batches of a few sizes.

    Parameters
    ----------
    count
        Number of crops.
    sizes
        Prepared batch sizes, in ascending order.

    Yields
    ------
    The rows of a batch, and the smallest batch size that they fit into.
    """
    for start in range(0, count, sizes[-1]):
        rows = slice(start, min(start + sizes[-1], count))
        yield rows, next(size for size in sizes if size >= rows.stop - start)
