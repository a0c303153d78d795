"""Figures of the report."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.drawing import color_of
from metrabs_ros.foreign_text import printable
from metrabs_ros.report.observations import Observations

mpl.use('agg')
# Joint names are untrusted text and must not be parsed as formulas.
mpl.rcParams['text.parse_math'] = False

DPI = 130
INK, FAINT, ACCENT, WARNING = '#22272e', '#c9d1d9', '#2563eb', '#c2410c'
STYLE: dict[str, Any] = {
    'font.size': 9,
    'axes.edgecolor': FAINT,
    'axes.labelcolor': INK,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#eaeef2',
    'axes.axisbelow': True,
    'xtick.color': INK,
    'ytick.color': INK,
    'text.color': INK,
}
MAX_LABELLED_PEOPLE = 12
"""Maximum number of people with labels; those with the most detections are selected."""
MAX_CONNECTED_FRAMES = 5
"""A line is interrupted if the frames of consecutive detections differ by more than this."""
MAX_DRAWN_GAPS = 200
RATE_BINS = 60
"""Maximum number of bins of the frame rate."""
HEAT_CELLS = 60
"""Number of cells of the heat map along its longer side."""
MAX_SHOWN_JOINTS = 40
MAX_NAME_CHARS = 30
MAX_DRAWN_PEOPLE = 200
"""Maximum number of drawn people, which limits the time; see `MAX_LABELLED_PEOPLE`."""


def plot_people_over_time(observations: Observations) -> bytes:
    """Plot the number of people, and the times of each id; return a PNG file."""
    figure, (count, ids_axes) = _figure(2, 4.6, height_ratios=[1, 2], sharex=True)
    times_s = observations.times_s
    count.step(times_s, observations.people, where='post', color=ACCENT, linewidth=1.2)
    count.fill_between(times_s, observations.people, step='post', color=ACCENT, alpha=0.15)
    count.set_ylabel('people')
    # With a margin, so that the line is not at the edge.
    count.set_ylim(0, max(1.1 * observations.people.max(), 1))
    count.yaxis.set_major_locator(MaxNLocator(integer=True))
    ids = drawn_ids(observations)
    for row, person_id in enumerate(ids):
        indices = observations.of_person(person_id)
        x_s = times_s[observations.frames[indices]]
        ids_axes.scatter(x_s, np.full(len(indices), row), s=5, marker='s', color=_color(person_id))
    step = max(1, len(ids) // 15)
    ids_axes.set_yticks(range(0, len(ids), step), [str(person_id) for person_id in ids[::step]])
    ids_axes.set_ylabel('id')
    ids_axes.set_xlabel('time since the first frame in s')
    return _png(figure)


def plot_distances(observations: Observations) -> bytes:
    """Plot the distance of each person over time; return a PNG file."""
    figure, (axes,) = _figure(1, 3.4)
    _draw_lines(axes, observations, observations.distances_m)
    axes.set_ylabel('distance in m')
    axes.set_ylim(bottom=0)
    axes.set_xlabel('time since the first frame in s')
    return _png(figure)


def plot_speeds(observations: Observations) -> bytes:
    """Plot the speed of each person over time; return a PNG file."""
    figure, (axes,) = _figure(1, 3.4)
    _draw_lines(axes, observations, observations.speeds_m_s)
    axes.set_ylabel('speed in m/s')
    axes.set_ylim(bottom=0)
    axes.set_xlabel('time since the first frame in s')
    return _png(figure)


def plot_top_view(observations: Observations) -> bytes:
    """Plot the time at each position and the paths of people from above; return a PNG file."""
    figure = Figure(figsize=(9.0, 4.6), layout='constrained')
    with mpl.rc_context(STYLE):
        heat, paths = figure.subplots(1, 2, sharex=True, sharey=True)
        right, forward = observations.ground_axes
        positions_m = observations.positions_m[:, (right, forward)]
        cameras_m = observations.cameras_m[:, (right, forward)]
        corners = np.concatenate([positions_m, cameras_m])
        low, high = corners.min(axis=0), corners.max(axis=0)
        margin_m = max(0.5, 0.06 * float((high - low).max()))
        low, high = low - margin_m, high + margin_m
        step_s = float(np.median(observations.steps_s)) if len(observations.steps_s) else 1.0
        cells = np.maximum(np.ceil(HEAT_CELLS * (high - low) / (high - low).max()), 4).astype(int)
        seconds, x_edges, y_edges = np.histogram2d(
            positions_m[:, 0],
            positions_m[:, 1],
            bins=cells.tolist(),
            range=np.stack([low, high], axis=1).tolist(),
        )
        shown = np.where(seconds.T > 0, seconds.T * step_s, np.nan)
        mesh = heat.pcolormesh(x_edges, y_edges, shown, cmap='viridis')
        figure.colorbar(mesh, ax=heat, label='time in s', shrink=0.8)
        labelled = _most_detected(observations, MAX_LABELLED_PEOPLE)
        for person_id in drawn_ids(observations):
            indices = observations.of_person(person_id)
            breaks = _breaks(observations, indices)
            line = np.insert(positions_m[indices], breaks, np.nan, axis=0)
            ends = positions_m[indices[np.append(breaks, len(indices)) - 1]]
            paths.plot(*line.T, color=_color(person_id), linewidth=1.1)
            paths.plot(*ends.T, 'o', color=_color(person_id), markersize=3)
            if person_id in labelled:
                paths.annotate(
                    str(person_id),
                    ends[-1],
                    (3, 3),
                    textcoords='offset points',
                    color=_color(person_id),
                    fontsize=7,
                )
        for axes, title in ((heat, 'time at each position'), (paths, 'paths')):
            axes.plot(*cameras_m.T, '^', color=INK, markersize=9)
            for name, place_m in zip(observations.camera_names, cameras_m):
                axes.annotate(
                    printable(name, MAX_NAME_CHARS),
                    place_m,
                    (0, 7),
                    textcoords='offset points',
                    horizontalalignment='center',
                    fontsize=7,
                )
            axes.set_aspect('equal')
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(low[1], high[1])
            axes.set_title(title, fontsize=9)
            axes.set_xlabel('xyz'[right] + ' in m')
        heat.set_ylabel('xyz'[forward] + ' in m')
    return _png(figure)


def plot_frame_rate(observations: Observations) -> bytes:
    """Plot the frame rate over time and mark gaps; return a PNG file."""
    figure, (axes,) = _figure(1, 2.6)
    times_s = observations.times_s
    length_s = max(float(np.ptp(times_s)) if len(times_s) else 0.0, 1e-3)
    bins = int(np.clip(np.ceil(length_s), 1, RATE_BINS))
    counts, edges = np.histogram(times_s, bins=bins, range=(0, length_s))
    axes.stairs(counts / np.diff(edges), edges, color=ACCENT, fill=True, alpha=0.3)
    axes.stairs(counts / np.diff(edges), edges, color=ACCENT)
    longest = sorted(observations.gaps(), key=lambda gap: -gap[1])[:MAX_DRAWN_GAPS]
    for start_s, gap_s in longest:
        axes.axvspan(start_s, start_s + gap_s, color=WARNING, alpha=0.35, linewidth=0)
    axes.set_ylabel('frames per second')
    axes.set_xlabel('time since the first frame in s; gaps are marked')
    return _png(figure)


def plot_latencies(observations: Observations) -> bytes:
    """Plot a histogram of the latency from stamp to recording; return a PNG file."""
    figure, (axes,) = _figure(1, 2.6)
    latencies_ms = 1000 * observations.latencies_s()
    axes.hist(latencies_ms, bins=40, color=ACCENT, alpha=0.7)
    for share, name in ((50, 'median'), (95, '95 %')):
        value_ms = float(np.percentile(latencies_ms, share))
        axes.axvline(value_ms, color=INK, linewidth=1, linestyle='--')
        top = axes.get_ylim()[1]
        axes.text(value_ms, top, f' {name} {value_ms:.0f} ms', va='top', fontsize=8)
    axes.set_xlabel('latency from stamp to recording in ms')
    axes.set_ylabel('frames')
    return _png(figure)


def plot_confidences(observations: Observations) -> bytes:
    """Plot the confidence of people and the standard deviation of joints; return a PNG file."""
    figure = Figure(figsize=(9.0, 3.6), layout='constrained')
    with mpl.rc_context(STYLE):
        people, joints = figure.subplots(1, 2, width_ratios=[1, 1.6])
        people.hist(observations.confidence, bins=np.linspace(0, 1, 21), color=ACCENT, alpha=0.7)
        people.set_xlabel('confidence')
        people.set_ylabel('detections')
        names = [
            printable(name, MAX_NAME_CHARS) for name in observations.joint_names[:MAX_SHOWN_JOINTS]
        ]
        joints.bar(range(len(names)), 1000 * observations.deviations_m[: len(names)], color=ACCENT)
        joints.set_xticks(range(len(names)), names, rotation=90, fontsize=6)
        joints.set_ylabel('standard deviation in mm')
        joints.grid(visible=False, axis='x')
    return _png(figure)


def drawn_ids(observations: Observations) -> NDArray[np.int64]:
    """Return the ids of the people that are drawn, sorted."""
    return np.sort(_most_detected(observations, MAX_DRAWN_PEOPLE))


def _most_detected(observations: Observations, count: int) -> NDArray[np.int64]:
    ids, counts = np.unique(observations.ids, return_counts=True)
    return np.asarray(ids[np.argsort(-counts, kind='stable')[:count]])


def _figure(rows: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height), layout='constrained')
        axes = figure.subplots(rows, 1, squeeze=False, **options)
    return figure, list(axes[:, 0])


def _draw_lines(axes: Axes, observations: Observations, values: FloatArray) -> None:
    """Draw one line per person over time; label those with the most detections."""
    labelled = set(_most_detected(observations, MAX_LABELLED_PEOPLE).tolist())
    times_s = observations.times_s
    for person_id in drawn_ids(observations).tolist():
        label = str(person_id) if person_id in labelled else None
        indices = observations.of_person(person_id)
        breaks = _breaks(observations, indices)
        x_s = np.insert(times_s[observations.frames[indices]], breaks, np.nan)
        y = np.insert(values[indices], breaks, np.nan)
        axes.plot(x_s, y, color=_color(person_id), linewidth=1.1, label=label)
    if labelled:
        axes.legend(
            title='id',
            ncols=2,
            fontsize=7,
            title_fontsize=8,
            loc='upper left',
            bbox_to_anchor=(1, 1),
            frameon=False,
        )


def _breaks(observations: Observations, indices: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the detections of a person, by index in `indices`, before which a line breaks."""
    return np.flatnonzero(np.diff(observations.frames[indices]) > MAX_CONNECTED_FRAMES) + 1


def _color(person_id: int) -> tuple[float, float, float]:
    # Darker than on images, for contrast with a white page.
    red, green, blue = (0.8 * part for part in color_of(int(person_id)))
    return red, green, blue


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format='png', dpi=DPI)
    return data.getvalue()
