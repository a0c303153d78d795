"""Drawings of people: on the image, and in a top view."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.box_overlap import box_intersection_px2
from metrabs_ros.people import People

Color = tuple[int, int, int]

GOLDEN_RATIO = 0.6180339887498949
SUBPIXEL_BITS = 3
LABEL_FONT = cv2.FONT_HERSHEY_SIMPLEX
DARK_GREY, GREY, LIGHT_GREY, WHITE = (40,) * 3, (120,) * 3, (220,) * 3, (255,) * 3
LABEL_PADDING_PX = 3
LABEL_STEPS = (0, 1, 2)
"""Distances of the possible label positions from the person's box, in label heights."""


def color_of(person_id: int) -> tuple[float, float, float]:
    """Return the colour of a person id, (red, green, blue) from 0 to 1."""
    return colorsys.hsv_to_rgb(person_id * GOLDEN_RATIO % 1, 0.75, 1.0)


def draw_people(image_bgr: ImageArray, people: People) -> None:
    """
    Draw skeletons, ids and distances of people onto an image.

    Extrapolated people are drawn without bones.  Labels are placed where they cover no person, if
    there is room.

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
    labels = short_labels(people)
    sizes_px = [_label_size(label, image_bgr) for label in labels]
    nearest_first = np.argsort(people.distances_mm, kind='stable')
    corners_px = place_labels(sizes_px, people.boxes_px, image_bgr.shape, nearest_first.tolist())
    for i, corner_px in enumerate(corners_px):
        _draw_label(image_bgr, labels[i], corner_px, WHITE, DARK_GREY, _bgr(people.ids[i]))


def format_label(people: People, index: int) -> str:
    """Return the label of a person: id, distance and, if known, height."""
    label = short_labels(people)[index]
    stature_mm = people.statures_mm[index]
    return label if np.isnan(stature_mm) else f'{label}, {stature_mm / 1000:.2f} m tall'


def short_labels(people: People) -> list[str]:
    """Return the id and the distance of each of N people, camera frame, as texts [N]."""
    distances_mm = people.distances_mm.tolist()
    return [f'{i}: {mm / 1000:.1f} m' for i, mm in zip(people.ids.tolist(), distances_mm)]


def place_labels(
    sizes_px: Sequence[tuple[int, int]],
    boxes_px: FloatArray,
    image_shape: tuple[int, ...],
    order: Sequence[int],
) -> list[tuple[int, int]]:
    """
    Place the label of each person next to its box, where it covers the least of boxes and labels.

    Parameters
    ----------
    sizes_px
        N label sizes: width, height.
    boxes_px
        [N, 4], left, top, width, height.
    image_shape
        Height and width, further entries are ignored.
    order
        Indices of the N labels; labels placed first get the better positions.

    Returns
    -------
    list of tuple of int
        Left and top of each label, inside the image where it is large enough.
    """
    limit_px = np.array(image_shape[1::-1])
    # Values far outside the image would overflow.
    low = np.clip(boxes_px[:, :2], -1e5, 1e5)
    high = np.clip(boxes_px[:, :2] + boxes_px[:, 2:4], -1e5, 1e5)
    boxes_px = np.concatenate([low, high - low], axis=1)
    # Labels that are not placed yet have no area.
    labels_px = np.zeros((len(sizes_px), 4))
    for i in order:
        size = np.array(sizes_px[i])
        corners = _label_candidates(size, low[i], high[i])
        corners = np.clip(corners, 0, np.maximum(limit_px - size, 0))
        candidates_px = np.concatenate([corners, np.tile(size, (len(corners), 1))], axis=1)
        covered_px2 = box_intersection_px2(candidates_px[:, None], boxes_px).sum(axis=1)
        # A label that covers another label makes both unreadable.
        covered_px2 += 10 * box_intersection_px2(candidates_px[:, None], labels_px).sum(axis=1)
        labels_px[i] = candidates_px[np.argmin(covered_px2)]
    return [(int(left), int(top)) for left, top in labels_px[:, :2]]


def _label_candidates(size: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Return possible upper left corners [K, 2] of a label, the preferred ones first."""
    centre = (low + high) / 2
    corners = []
    for step in LABEL_STEPS:
        gap_px = LABEL_PADDING_PX + step * size[1]
        above, below = low[1] - size[1] - gap_px, high[1] + gap_px
        for y in (above, below):
            corners += [(x, y) for x in (low[0], centre[0] - size[0] / 2, high[0] - size[0])]
        for x in (high[0] + gap_px, low[0] - size[0] - gap_px):
            corners += [(x, y) for y in (low[1], centre[1], high[1] - size[1])]
    return np.rint(corners)


def draw_top_view(paths_mm: Mapping[int, Sequence[FloatArray]], size_px: int = 800) -> ImageArray:
    """
    Draw the paths of people in a top view, with the camera at the bottom.

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
        _draw_text(canvas, f'{radius_m:g} m', (origin[0] + 3, origin[1] - radius_px), GREY)
    corners = to_canvas(np.array([[-0.02, 0.03], [0.02, 0.03], [0, 0]]) * reach_m)
    cv2.fillPoly(canvas, [corners.round().astype(np.int32)], (60, 60, 60), cv2.LINE_AA)
    for person_id, path_m in zip(paths_mm, paths_m):
        color = tuple(0.8 * value for value in _bgr(person_id))
        points = _fixed_point(to_canvas(path_m))
        cv2.polylines(canvas, [np.array(points)], False, color, 1, cv2.LINE_AA, SUBPIXEL_BITS)
        end = tuple(to_canvas(path_m[-1]).round().astype(int).tolist())
        cv2.circle(canvas, end, 4, color, -1, cv2.LINE_AA)
        if len(path_m) > 10:
            _draw_text(canvas, str(person_id), (end[0] + 6, end[1] - 2), color)
    return canvas


def _round_distances(reach_m: float) -> list[float]:
    """Return at most 8 multiples of a round distance, up to the farthest position."""
    magnitude = 10.0 ** math.floor(math.log10(reach_m))
    step_m = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5) if reach_m / (step * magnitude) <= 8)
    return [step_m * magnitude * i for i in range(1, int(reach_m / (step_m * magnitude)) + 1)]


def _label_scale(image: ImageArray) -> float:
    return max(0.4, min(image.shape[:2]) / 1400)


def _label_size(text: str, image: ImageArray) -> tuple[int, int]:
    """Return width and height of a label with its background, in pixels."""
    (width, height), baseline = cv2.getTextSize(text, LABEL_FONT, _label_scale(image), 1)
    return width + 2 * LABEL_PADDING_PX, height + baseline + LABEL_PADDING_PX


def _draw_label(
    image: ImageArray,
    text: str,
    corner_px: tuple[int, int],
    color: Sequence[float],
    background: Sequence[float],
    border: Sequence[float],
) -> None:
    """Draw a label with its upper left corner at a pixel."""
    (_, height), _ = cv2.getTextSize(text, LABEL_FONT, _label_scale(image), 1)
    width_px, height_px = _label_size(text, image)
    (left, top), end = corner_px, (corner_px[0] + width_px - 1, corner_px[1] + height_px - 1)
    cv2.rectangle(image, corner_px, end, background, -1)
    cv2.rectangle(image, corner_px, end, border, 1)
    baseline = (left + LABEL_PADDING_PX, top + LABEL_PADDING_PX + height)
    cv2.putText(image, text, baseline, LABEL_FONT, _label_scale(image), color, 1, cv2.LINE_AA)


def _draw_text(
    image: ImageArray, text: str, position: Sequence[float], color: Sequence[float]
) -> None:
    """Draw text on a white outline, with its baseline at a position inside the image."""
    scale = _label_scale(image)
    (width, height), _ = cv2.getTextSize(text, LABEL_FONT, scale, 1)
    x = int(np.clip(position[0], 0, max(image.shape[1] - width, 0)))
    y = int(np.clip(position[1], height, image.shape[0] - 1))
    cv2.putText(image, text, (x, y), LABEL_FONT, scale, WHITE, 3, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), LABEL_FONT, scale, color, 1, cv2.LINE_AA)


def _bgr(person_id: int) -> Color:
    red, green, blue = color_of(int(person_id))
    return round(255 * blue), round(255 * green), round(255 * red)


def _fixed_point(points_px: FloatArray) -> list[tuple[int, int]]:
    # OpenCV's fixed-point numbers overflow far outside the image.
    limited = np.clip(points_px, -1e5, 1e5)
    return [(int(x), int(y)) for x, y in np.rint(limited * 2**SUBPIXEL_BITS)]
