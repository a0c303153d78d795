"""Pictures of skeletons and of latent points, from the front and from the side."""

from __future__ import annotations

import pathlib

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metrabs_ros.arrays import FloatArray
from metrabs_ros.foreign_text import printable
from metrabs_ros.skeletons.affine_autoencoder import AffineAutoencoder
from metrabs_ros.skeletons.conventions import Skeleton

mpl.use('agg')
# Names are untrusted text and must not be parsed as formulas.
mpl.rcParams['text.parse_math'] = False

DPI = 110
INK, FAINT = '#22272e', '#c9d1d9'
LEFT, RIGHT, CENTRE = '#2563eb', '#c2410c', '#15803d'
"""Colours of the left side of the body, of the right side, and of the middle."""
MAX_NAME_CHARS = 24
MIN_LINE_WEIGHT = 0.05
"""Smallest weight of a latent point for which a line is drawn to a joint."""
UPPER_PARTS, LOWER_PARTS = ('head', 'nose', 'eye', 'ear', 'neck', 'htop'), ('ank', 'foot', 'toe')
FRONT, SIDE = (0, 1), (2, 1)
"""Axes across and up of the views: x to the right of the picture, y up, z to the viewer."""


def side_colors(skeleton: Skeleton) -> list[str]:
    """Return the colour of each joint by the side of the body."""
    colors = []
    for i, (name, other) in enumerate(zip(skeleton.joint_names, skeleton.mirror.tolist())):
        first_is_left = _is_left(name) or (i < other and not _is_left(skeleton.joint_names[other]))
        colors.append(CENTRE if other == i else LEFT if first_is_left else RIGHT)
    return colors


def _is_left(name: str) -> bool:
    return 'left' in name or name.startswith('l')


def in_body_frame(pose_mm: FloatArray, skeleton: Skeleton) -> FloatArray:
    """
    Return a pose [J, 3] as seen from the front: x to the right of the picture, y up.

    The left side of the body is on the right of the picture.  Without names of the head or the
    feet, up is only known to be along the body.
    """
    mirror = skeleton.mirror
    is_left = np.array([color == LEFT for color in side_colors(skeleton)])
    across = (pose_mm[is_left] - pose_mm[mirror[is_left]]).sum(axis=0) if is_left.any() else None
    centred = pose_mm - pose_mm.mean(axis=0)
    up = _mean_of(centred, skeleton, UPPER_PARTS) - _mean_of(centred, skeleton, LOWER_PARTS)
    if not np.linalg.norm(up) > 1:
        up = np.linalg.svd(centred, full_matrices=False)[2][0]
    up = up / np.linalg.norm(up)
    if across is None or not np.linalg.norm(across - (across @ up) * up) > 1:
        across = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    across = across - (across @ up) * up
    across = across / np.linalg.norm(across)
    rotated: FloatArray = centred @ np.stack([across, up, np.cross(across, up)]).T
    return rotated


def _mean_of(points_mm: FloatArray, skeleton: Skeleton, parts: tuple[str, ...]) -> FloatArray:
    """Return the mean of the joints whose names contain one of the parts; 0 without any."""
    own = [any(part in name for part in parts) for name in skeleton.joint_names]
    return points_mm[own].mean(axis=0) if any(own) else np.zeros(3)


def draw_skeleton(
    axes: Axes, points_mm: FloatArray, skeleton: Skeleton, view: tuple[int, int]
) -> None:
    """Draw the joints and bones of a pose [L, 3] in the body frame."""
    colors = side_colors(skeleton)
    for a, b in skeleton.edges:
        color = colors[a] if colors[a] != CENTRE else colors[b]
        axes.plot(*points_mm[[a, b]][:, view].T, color=color, linewidth=2, alpha=0.6)
    across_mm, up_mm = points_mm[:, view].T
    axes.scatter(across_mm, up_mm, c=colors, s=22, zorder=3)
    _hide_frame(axes)


def label_joints(
    axes: Axes, points_mm: FloatArray, names: list[str], colors: list[str], fontsize: float
) -> None:
    """
    Write the names of joints [L, 3], of a front view, in two columns beside the body.

    The left side of the body is on the right of the picture.
    """
    order = np.argsort(points_mm[:, 1])
    height_mm = np.ptp(points_mm[:, 1])
    middle_mm = (points_mm[:, 0].min() + points_mm[:, 0].max()) / 2
    halves: list[list[int]] = [[], []]
    for i in order.tolist():
        # Joints in the middle are written where there are fewer names.
        is_right = colors[i] == LEFT or (colors[i] == CENTRE and len(halves[1]) < len(halves[0]))
        halves[int(is_right)].append(i)
    for half, side, alignment in zip(halves, (-1, 1), ('right', 'left')):
        if not half:
            continue
        gap_mm = max(height_mm * 1.05 / max(len(half), 12), 1e-3)
        heights_mm = points_mm[half, 1].copy()
        for k in range(1, len(half)):
            heights_mm[k] = max(heights_mm[k], heights_mm[k - 1] + gap_mm)
        heights_mm -= (heights_mm - points_mm[half, 1]).mean()
        edge_mm = middle_mm + side * (np.ptp(points_mm[:, 0]) / 2 + 0.12 * height_mm)
        for i, label_mm in zip(half, heights_mm):
            axes.plot(
                (points_mm[i, 0], edge_mm), (points_mm[i, 1], label_mm), color=FAINT, linewidth=0.6
            )
            axes.text(
                edge_mm + side * 0.01 * height_mm,
                label_mm,
                printable(names[i], MAX_NAME_CHARS),
                ha=alignment,
                va='center',
                fontsize=fontsize,
                color=colors[i],
            )


def draw_autoencoder(
    autoencoder: AffineAutoencoder, pose_mm: FloatArray, file: pathlib.Path
) -> None:
    """Write a PNG file with the latent points of a pose [J, 3] on its joints."""
    skeleton = autoencoder.joints
    joints_mm = in_body_frame(pose_mm, skeleton)
    latents_mm = autoencoder.encode(joints_mm)
    lateral_mm = latents_mm[:, 0] - latents_mm[autoencoder.latent_mirror, 0]
    colors = np.where(
        autoencoder.latent_mirror == np.arange(len(latents_mm)),
        CENTRE,
        np.where(lateral_mm > 0, LEFT, RIGHT),
    )
    with mpl.rc_context({'font.size': 9, 'text.color': INK}):
        figure = Figure(figsize=(9, 7), layout='constrained')
        for axes, view, title in zip(
            figure.subplots(1, 2), (FRONT, SIDE), ('from the front', 'from its right side')
        ):
            axes.set_title(title)
            for joint, row in enumerate(autoencoder.decoder):
                for latent in np.flatnonzero(np.abs(row) > MIN_LINE_WEIGHT):
                    ends_mm = np.stack([joints_mm[joint], latents_mm[latent]])
                    axes.plot(*ends_mm[:, view].T, color=FAINT, linewidth=0.5, zorder=1)
            axes.scatter(*joints_mm[:, view].T, color=INK, s=7, zorder=2, label='joints')
            axes.scatter(
                *latents_mm[:, view].T,
                facecolors='none',
                edgecolors=colors.tolist(),
                s=70,
                linewidths=1.6,
                zorder=3,
            )
            _hide_frame(axes)
        figure.suptitle(
            f'{len(latents_mm)} latent points (circles; blue: left, orange: right, green: middle) '
            f'of {len(joints_mm)} joints'
        )
        figure.savefig(file, dpi=DPI, format='png')


def _hide_frame(axes: Axes) -> None:
    axes.set_aspect('equal', adjustable='datalim')
    axes.axis('off')
