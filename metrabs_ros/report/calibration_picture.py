"""A picture of calibrated cameras and of the people's paths, from above and from the side."""

from __future__ import annotations

import pathlib

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.calibration import CalibratedCamera, Calibration

mpl.use('agg')
# Names are untrusted text and must not be parsed as formulas.
mpl.rcParams['text.parse_math'] = False

DPI = 130
FRUSTUM_SHARE = 0.08
"""Depth of drawn frustums relative to the size of the scene."""
MAX_GAP_S = 1.0
MAX_NAME_CHARS = 30
INK = '#22272e'
VIEWS = (('from above', (0, 1), 'x [m]', 'y [m]'), ('from the side', (0, 2), 'x [m]', 'z [m]'))
MAX_PATHS = 300


def draw_calibration(calibration: Calibration, file: pathlib.Path) -> None:
    """Write a PNG file with the cameras and the paths of people."""
    positions_m = to_metres(np.array([own.camera.position_mm for own in calibration.cameras]))
    paths_m = [to_metres(path.positions_mm) for path in calibration.paths]
    everything = np.concatenate([positions_m, *paths_m])
    size_m = max(float(np.linalg.norm(np.ptp(everything, axis=0)[:2])), 1.0)
    with mpl.rc_context({'font.size': 9}):
        figure = Figure(figsize=(9, 9), layout='constrained')
        all_axes = figure.subplots(2, 1, height_ratios=[2, 1])
        for axes, (title, dimensions, x_label, y_label) in zip(all_axes, VIEWS):
            axes.set_title(title)
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.grid(color='#eaeef2')
            axes.set_axisbelow(True)
            for k, path in enumerate(calibration.paths[:MAX_PATHS]):
                _draw_path(axes, path.times_s, paths_m[k][:, dimensions], f'C{k % 10}')
            for own in calibration.cameras:
                _draw_camera(axes, own, FRUSTUM_SHARE * size_m, dimensions)
            axes.set_aspect('equal', adjustable='datalim')
        all_axes[1].axhline(0, color=INK, linewidth=0.8)
        figure.savefig(file, dpi=DPI)


def _draw_path(axes: Axes, times_s: FloatArray, points_m: FloatArray, color: str) -> None:
    points_m = points_m.copy()
    # NaN interrupts the line where no person was seen.
    points_m[1:][np.diff(times_s) > MAX_GAP_S] = np.nan
    axes.plot(*points_m.T, color=color, linewidth=0.8, alpha=0.7)


def _draw_camera(
    axes: Axes, own: CalibratedCamera, depth_m: float, dimensions: tuple[int, int]
) -> None:
    camera = own.camera
    # The principal point is near the middle of the image.
    corners_px = 2 * camera.intrinsic_matrix[:2, 2] * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    rays = camera.unproject(corners_px)
    rays = rays / np.maximum(np.abs(rays[:, 2:]), 0.3)
    corners_m = to_metres(camera.to_world(1000 * depth_m * rays))[:, dimensions]
    place_m = to_metres(camera.position_mm)[list(dimensions)]
    for corner, following in zip(corners_m, np.roll(corners_m, -1, axis=0)):
        axes.plot(*zip(place_m, corner, following), color=INK, linewidth=0.9)
    axes.plot(*place_m, 'o', color=INK, markersize=3)
    name = printable(own.name, MAX_NAME_CHARS)
    axes.annotate(name, tuple(place_m), xytext=(5, 5), textcoords='offset points')
