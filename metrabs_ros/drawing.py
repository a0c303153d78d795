"""Drawings of people: on the image, and as a map seen from above."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.people import People

Color = tuple[int, int, int]

GOLDEN_RATIO = 0.6180339887498949
SUBPIXEL_BITS = 3
LABEL_FONT = cv2.FONT_HERSHEY_SIMPLEX
BLACK, GREY, LIGHT_GREY, WHITE = (0,) * 3, (120,) * 3, (220,) * 3, (255,) * 3


def color_of(person_id: int) -> tuple[float, float, float]:
    """Return the colour of a person id, (red, green, blue) from 0 to 1."""
    return colorsys.hsv_to_rgb(person_id * GOLDEN_RATIO % 1, 0.75, 1.0)


def draw_people(image_bgr: ImageArray, people: People) -> None:
    """
    Draw skeletons, ids, distances and heights of people onto an image.

    Extrapolated people are drawn without bones.

    Parameters
    ----------
    image_bgr
        [H, W, 3], uint8, modified in place.
    people
        People with image points.
    """
    thickness = max(1, round(min(image_bgr.shape[:2]) / 400))
    edges = np.array(people.skeleton.edges)
    for i in range(len(people)):
        color = _bgr(people.ids[i])
        points = _fixed_point(people.poses2d_px[i])
        style = (cv2.LINE_AA, SUBPIXEL_BITS)
        if people.seen[i]:
            for a, b in edges:
                cv2.line(image_bgr, points[a], points[b], color, thickness, *style)
        else:
            for point in points:
                cv2.circle(image_bgr, point, thickness, color, -1, *style)
        left, top = people.boxes_px[i, :2]
        _draw_label(image_bgr, format_label(people, i), (left, top - 4), color, BLACK)


def format_label(people: People, index: int) -> str:
    """Return the label of a person: id, distance and, if known, height."""
    label = f'{people.ids[index]}: {people.distances_mm[index] / 1000:.1f} m'
    stature_mm = people.statures_mm[index]
    return label if np.isnan(stature_mm) else f'{label}, {stature_mm / 1000:.2f} m tall'


def draw_top_view(paths_mm: Mapping[int, Sequence[FloatArray]], size_px: int = 800) -> ImageArray:
    """
    Draw the paths of people seen from above, with the camera at the bottom.

    Parameters
    ----------
    paths_mm
        Positions [3] over time for each id, camera frame, y down.
    size_px
        Height and width of the drawing.

    Returns
    -------
    [size, size, 3], uint8, BGR.
    """
    canvas = np.full((size_px, size_px, 3), 255, np.uint8)
    paths_m = [np.array(path)[:, (0, 2)] / 1000 for path in paths_mm.values()]
    all_points_m = np.concatenate([np.zeros((1, 2)), *paths_m])
    reach_m = max(1.0, all_points_m[:, 1].max(), 2 * np.abs(all_points_m[:, 0]).max())
    scale = 0.88 * size_px / reach_m
    origin = np.array([size_px / 2, 0.95 * size_px])

    def to_canvas(points_m: FloatArray) -> FloatArray:
        return origin + points_m * (scale, -scale)

    for radius_m in _round_distances(reach_m):
        radius_px = round(radius_m * scale)
        centre = tuple(origin.astype(int).tolist())
        cv2.ellipse(
            canvas, centre, (radius_px, radius_px), 0, 180, 360, LIGHT_GREY, 1, cv2.LINE_AA
        )
        _draw_label(canvas, f'{radius_m:g} m', (origin[0] + 3, origin[1] - radius_px), GREY, WHITE)
    corners = to_canvas(np.array([[-0.02, 0.03], [0.02, 0.03], [0, 0]]) * reach_m)
    cv2.fillPoly(canvas, [corners.round().astype(np.int32)], (60, 60, 60), cv2.LINE_AA)
    for person_id, path_m in zip(paths_mm, paths_m):
        color = tuple(0.8 * value for value in _bgr(person_id))
        points = _fixed_point(to_canvas(path_m))
        cv2.polylines(canvas, [np.array(points)], False, color, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        end = tuple(to_canvas(path_m[-1]).round().astype(int).tolist())
        cv2.circle(canvas, end, 4, color, -1, cv2.LINE_AA)
        if len(path_m) > 10:
            _draw_label(canvas, str(person_id), (end[0] + 6, end[1] - 2), color, WHITE)
    return canvas


def _round_distances(reach_m: float) -> list[float]:
    step_m = next(step for step in (0.5, 1, 2, 5, 10, 20, 50, 100) if reach_m / step <= 8)
    return [step_m * i for i in range(1, int(reach_m / step_m) + 1)]


def _draw_label(
    image: ImageArray,
    text: str,
    position: Sequence[float],
    color: Sequence[float],
    outline_color: Sequence[float],
) -> None:
    scale = max(0.4, min(image.shape[:2]) / 1400)
    (width, height), _ = cv2.getTextSize(text, LABEL_FONT, scale, 1)
    x = int(np.clip(position[0], 0, max(image.shape[1] - width, 0)))
    y = int(np.clip(position[1], height, image.shape[0] - 1))
    cv2.putText(image, text, (x, y), LABEL_FONT, scale, outline_color, 3, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), LABEL_FONT, scale, color, 1, cv2.LINE_AA)


def _bgr(person_id: int) -> Color:
    red, green, blue = color_of(int(person_id))
    return round(255 * blue), round(255 * green), round(255 * red)


def _fixed_point(points_px: FloatArray) -> list[tuple[int, int]]:
    # OpenCV's fixed-point numbers overflow far outside the image.
    limited = np.clip(points_px, -1e5, 1e5)
    return [(int(x), int(y)) for x, y in np.rint(limited * 2**SUBPIXEL_BITS)]
