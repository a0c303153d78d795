"""Absolute 3D human poses from a calibrated camera."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

# The messages, generated at build time, and the hand-written modules share this package's name
# but not always a folder.
__path__ = pkgutil.extend_path(__path__, __name__)

if TYPE_CHECKING:
    from metrabs_ros.estimator import PoseEstimator

__all__ = ['load_model']
__version__ = '0.1.0'


def load_model(
    name_or_folder: str,
    engine: str = 'auto',
    precision: str = 'auto',
    device: str = 'auto',
    detector: str = 'auto',
) -> PoseEstimator:
    """
    Load a model for absolute 3D human poses.

    Parameters
    ----------
    name_or_folder
        ``blazepose``, whose weights are fetched at the first use.
    engine
        ``auto`` or ``openvino``.
    precision
        ``auto`` or ``fp32``.
    device
        ``auto`` or ``cpu``.
    detector
        ``auto`` or ``blazepose``.

    Raises
    ------
    ValueError
        If there is no such model, or it cannot run in the way asked for.
    metrabs_ros.models.store.WeightsError
        If the weights are damaged or cannot be fetched.
    """
    from metrabs_ros.models import load

    return load.load_model(name_or_folder, engine, precision, device, detector)
