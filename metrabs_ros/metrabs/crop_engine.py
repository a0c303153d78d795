"""What runs MeTRAbs's network on crops."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from metrabs_ros.metrabs.network import CropModel

LARGEST_BATCH = 64
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class CropEngine(Protocol):
    """Runs the network, from crops to points."""

    def __call__(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """
        Find the points in crops.

        Parameters
        ----------
        crops
            [N, 3, side, side], float32, RGB from 0 to 1, on the engine's device.

        Returns
        -------
        Image points [N, P, 2] in crop pixels and metric points [N, P, 3] in millimetres, on the
        same device.
        """
        ...


def weights_hash(model: CropModel) -> str:
    """Return what tells one network's weights from another's."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def in_batches(count: int, sizes: tuple[int, ...]) -> Iterator[tuple[slice, int]]:
    """
    Cut a number of crops into batches of few sizes.

    Parameters
    ----------
    count
        How many there are.
    sizes
        That are prepared, the smallest first.

    Yields
    ------
    A batch's rows, and the smallest of the sizes that holds them.
    """
    for start in range(0, count, sizes[-1]):
        rows = slice(start, min(start + sizes[-1], count))
        yield rows, next(size for size in sizes if size >= rows.stop - start)
