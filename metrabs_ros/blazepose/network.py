"""BlazePose's landmark network: 33 joints of one person in a crop (Bazarevsky et al., 2020)."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, sigmoid
from metrabs_ros.backends.openvino import OpenVinoEngine
from metrabs_ros.blazepose.regions import Regions

JOINTS = 33
POINTS = 39
MM_PER_M = 1000.0
CENTRE_POINT, TOP_POINT = 33, 34
SIZE_FACTORS = {'blazepose': 1.045, 'blazepose_lite': 1.059, 'blazepose_heavy': 1.100}
"""
Size of an average adult (1.70 m) relative to the people that each network predicts.

Measured with pedestrians at known distances; see benchmarks/stature.py and docs/accuracy.md.
"""
STATURE_BIASES = {'blazepose': 1.021, 'blazepose_lite': 1.016, 'blazepose_heavy': 1.079}
"""
Stature that the bones of an average adult imply, relative to 1.70 m, after scaling.

The median sum of bones of the same pedestrians, times the size factor; see
`PoseEstimator.stature_bias`.
"""


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """
    Network outputs for N crops.

    Parameters
    ----------
    points_px
        [N, 33, 2], crop pixels.
    root_relative_mm
        [N, 33, 3], relative to the midpoint of the hips, along the crop's axes.
    visibility
        [N, 33], from 0 to 1.
    presence
        [N], probability that the crop shows a person.
    regions
        N regions of interest of the people, in crop pixels.
    """

    points_px: FloatArray
    root_relative_mm: FloatArray
    visibility: FloatArray
    presence: FloatArray
    regions: Regions


class BlazePoseLandmarks:
    """
    Landmark network: from crops to landmarks.

    Parameters
    ----------
    model_file
        ``pose_landmark_full.tflite``.
    threads
        Number of CPU threads; 0 uses one thread per core.
    precision
        ``fp32`` or ``bf16``.
    size_factor
        Factor of the root-relative positions; see `SIZE_FACTORS`.
    """

    side_px = 256
    margin = 1.25
    """Side of a crop, as a multiple of the diameter of the region of interest."""

    def __init__(
        self,
        model_file: pathlib.Path,
        threads: int = 0,
        precision: str = 'fp32',
        size_factor: float = 1.0,
    ) -> None:
        outputs = ('Identity', 'Identity_1', 'Identity_4')
        self._engine = OpenVinoEngine(model_file, outputs, threads, precision)
        self._millimetres = MM_PER_M * size_factor

    def __call__(self, crops: NDArray[np.float32]) -> Landmarks:
        """Estimate the landmarks in crops [N, 256, 256, 3], RGB from 0 to 1."""
        points, presence, world = self._engine(crops)
        points = points.reshape(-1, POINTS, 5).astype(np.float64)
        # The network's origin is the outer edge of the crop, not the centre of the first pixel.
        points_px = points[..., :2] - 0.5
        return Landmarks(
            points_px=points_px[:, :JOINTS],
            root_relative_mm=(
                world.reshape(-1, POINTS, 3)[:, :JOINTS].astype(np.float64) * self._millimetres
            ),
            visibility=sigmoid(points[:, :JOINTS, 3]),
            presence=presence.reshape(-1).astype(np.float64),
            regions=Regions(points_px[:, CENTRE_POINT], points_px[:, TOP_POINT]),
        )
