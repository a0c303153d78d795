"""HTML page of the report, as one file without external resources."""

from __future__ import annotations

import base64
import html
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.input_files import read_start
from metrabs_ros.recordings.output_files import (
    UNFINISHED,
    UnusableOutput,
    absolute,
    check_stream,
    is_stream,
    translate_os_errors,
)
from metrabs_ros.regular_file import shown
from metrabs_ros.report import figures
from metrabs_ros.report.observations import Observations, read_observations

MAX_LISTED_PEOPLE = 12
MIN_DETECTIONS = 3
"""Minimum number of detections of a person in the table of closest approaches."""
MAX_LISTED_GAPS = 12
START_OF_VERSION_0_1 = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
)
START = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="generator" content="metrabs_ros report">'
)
"""First characters of a report, which identify it when it is to be replaced."""
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #22272e; background: #f6f8fa; margin: 0; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 24px; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 8px; }
section { background: #fff; border: 1px solid #d8dee4; border-radius: 8px; padding: 16px;
          margin-top: 16px; overflow-x: auto; }
img { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 14px 3px 0; }
th { font-weight: 600; border-bottom: 1px solid #d8dee4; }
.facts { display: flex; flex-wrap: wrap; gap: 8px 28px; }
.facts b { display: block; font-size: 22px; }
.note { color: #57606a; font-size: 13px; }
.warning { color: #9a3412; }
"""


def write_report(path: pathlib.Path, output: pathlib.Path, warn: Callable[[str], None]) -> None:
    """
    Write a report of the people in a bag.

    Parameters
    ----------
    path
        Results of annotate, or a recording of the node's topics.
    output
        The HTML file.
    warn
        Called with each warning message.

    Raises
    ------
    UnusableFile
        If the bag does not exist or cannot be read.
    UnreadableRecording
        If the bag has no skeletons.
    UnusableOutput
        If the file cannot be written, or is not a report.
    """
    _check_output(path, output)
    cameras = read_observations(path, warn)
    parts = [_header(path, cameras)]
    has_fused = any(own.is_fused for own in cameras)
    for own in cameras:
        # Each person is shown once.
        is_shown = own.is_fused or not has_fused
        parts += _camera_sections(own) if is_shown else _frame_sections(own)
    title = html.escape(_name_of(path))
    body = '\n'.join(parts)
    _write(
        output,
        f'{START}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}: people</title><style>{STYLE}</style></head>\n'
        f'<body><main>\n{body}\n</main></body></html>\n',
    )


def _check_output(path: pathlib.Path, output: pathlib.Path) -> None:
    """Raise an `UnusableOutput` if the output exists and is not a report."""
    if is_stream(output):
        with translate_os_errors(output):
            check_stream(output)
        return
    if os.path.isdir(output):
        raise UnusableOutput(f'{shown(output)} is a folder; give a file with -o')
    if absolute(output) == absolute(path):
        raise UnusableOutput(f'{shown(output)} is the bag itself; give another file with -o')
    if os.path.exists(output) and not _is_report(output):
        raise UnusableOutput(
            f'{shown(output)} already exists and is not a report; give another file with -o'
        )


def _is_report(file: pathlib.Path) -> bool:
    start = read_start(file, len(START.encode()))
    # Reports of version 0.1 have no generator tag.
    return start == START.encode() or start.startswith(START_OF_VERSION_0_1.encode())


def _write(output: pathlib.Path, text: str) -> None:
    """Write the file atomically, except to streams."""
    if is_stream(output):
        with translate_os_errors(output):
            output.write_text(text, encoding='utf-8')
        return
    target = absolute(output)
    with translate_os_errors(output):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(UNFINISHED, f'.{target.stem[:50]}', target.parent)
        try:
            with open(descriptor, 'w', encoding='utf-8') as file:
                file.write(text)
                # Temporary files are created readable by their owner only.
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def _name_of(path: pathlib.Path) -> str:
    return shown(absolute(path).name)


def _header(path: pathlib.Path, cameras: Sequence[Observations]) -> str:
    warnings = dict.fromkeys(
        warning for observations in cameras for warning in observations.warnings
    )
    paragraphs = ''.join(f'<p class="warning">{html.escape(text)}</p>' for text in warnings)
    return f'<h1>{html.escape(_name_of(path))}</h1>{paragraphs}'


def _camera_sections(observations: Observations) -> list[str]:
    """Return the sections of a camera, or of the people of several cameras."""
    sections = [_section(printable(observations.topic), _facts(observations))]
    if not len(observations.stamps_s):
        return [*sections, _section('No data', '<p>There are no frames.</p>')]
    if len(observations.ids):
        sections += _people_sections(observations)
    sections.append(_rate_section(observations))
    # The stamps of image files equal the times of recording.
    if observations.latencies_s().any():
        note = (
            'Time from the stamp of the image to the recording of the image (in results of '
            "annotate) or of the skeletons (in a recording of the node's topics)."
        )
        sections.append(
            _section(
                'Latency', _picture('Latency', figures.plot_latencies(observations)) + _note(note)
            )
        )
    if len(observations.ids):
        sections.append(
            _section('Confidence', _picture('Confidence', figures.plot_confidences(observations)))
        )
    return sections


def _frame_sections(observations: Observations) -> list[str]:
    """Return the sections of a camera whose people are shown as fused people."""
    sections = [_section(printable(observations.topic), _facts(observations))]
    if len(observations.stamps_s):
        sections.append(_rate_section(observations))
    return sections


def _people_sections(observations: Observations) -> list[str]:
    over_time = _section(
        'People over time',
        _picture('People over time', figures.plot_people_over_time(observations))
        + _omitted_people(observations),
    )
    top_view = _section(
        'Top view', _picture('Top view', figures.plot_top_view(observations)) + _plan(observations)
    )
    if observations.is_fused:
        # Distances from the origin of the world say nothing.
        speeds = _picture('Speeds', figures.plot_speeds(observations))
        return [over_time, _section('Speeds', speeds), top_view]
    distances = _picture('Distances', figures.plot_distances(observations))
    return [
        over_time,
        _section('Distances', distances),
        top_view,
        _section('Closest approaches', _closest(observations)),
    ]


def _rate_section(observations: Observations) -> str:
    return _section(
        'Frame rate and gaps',
        _picture('Frame rate', figures.plot_frame_rate(observations)) + _gaps(observations),
    )


def _facts(observations: Observations) -> str:
    stamps_s = observations.stamps_s
    length_s = float(np.ptp(stamps_s)) if len(stamps_s) else 0.0
    facts = {
        'frames': f'{len(stamps_s)}',
        'duration': f'{length_s:.1f} s',
        'frames per second': f'{(len(stamps_s) - 1) / length_s:.1f}' if length_s else 'unknown',
        'person ids': f'{len(np.unique(observations.ids))}',
        'people per frame': f'{observations.people.mean():.1f}' if len(stamps_s) else '0',
    }
    if len(observations.ids):
        if not observations.is_fused:
            facts['minimum distance'] = f'{observations.distances_m.min():.2f} m'
        facts['median confidence'] = f'{np.median(observations.confidence):.2f}'
    items = ''.join(f'<div><b>{value}</b>{name}</div>' for name, value in facts.items())
    name = printable(observations.frame_id)
    frame = f'the frame {html.escape(name)}' if name else 'a frame without a name'
    return f'<div class="facts">{items}</div>' + _note(f'Positions are in metres in {frame}.')


def _plan(observations: Observations) -> str:
    right, forward = observations.ground_axes
    triangles = (
        'The triangles are the cameras with a static transform.'
        if observations.is_fused
        else 'The triangle is the origin of the frame, usually the camera.'
    )
    return _note(
        f'{"xyz"[right]} points to the right and {"xyz"[forward]} upwards in the plot. {triangles}'
    )


def _closest(observations: Observations) -> str:
    """Return a table of the minimum distance of each person, in ascending order."""
    rows = []
    distances_m, times_s = observations.distances_m, observations.times_s
    by_id = np.argsort(observations.ids, kind='stable')
    starts = np.flatnonzero(np.diff(observations.ids[by_id])) + 1
    for indices in np.split(by_id, starts):
        if len(indices) < MIN_DETECTIONS:
            continue
        nearest = indices[np.argmin(distances_m[indices])]
        first, last = observations.frames[indices[0]], observations.frames[indices[-1]]
        rows.append(
            (
                float(distances_m[nearest]),
                f'<td>{observations.ids[nearest]}</td><td>{distances_m[nearest]:.2f} m</td>'
                f'<td>{times_s[observations.frames[nearest]]:.1f} s</td>'
                f'<td>{observations.speeds_m_s[nearest]:.1f} m/s</td>'
                f'<td>{times_s[first]:.1f} to {times_s[last]:.1f} s</td>',
            )
        )
    rows.sort(key=lambda row: row[0])
    head = ''.join(f'<th>{name}</th>' for name in ('id', 'distance', 'time', 'speed', 'detected'))
    note = _note(f'The table lists people with at least {MIN_DETECTIONS} detections.')
    return _table(head, [cells for _, cells in rows], MAX_LISTED_PEOPLE) + note


def _gaps(observations: Observations) -> str:
    gaps = sorted(observations.gaps(), key=lambda gap: -gap[1])
    if not gaps:
        return _note('There are no gaps.')
    rows = [f'<td>{start_s:.2f} s</td><td>{gap_s:.2f} s</td>' for start_s, gap_s in gaps]
    return _table('<th>start of gap</th><th>duration</th>', rows, MAX_LISTED_GAPS)


def _table(head: str, rows: Sequence[str], max_rows: int) -> str:
    body = ''.join(f'<tr>{cells}</tr>' for cells in rows[:max_rows])
    more = _note(f'and {len(rows) - max_rows} more') if len(rows) > max_rows else ''
    return f'<table><tr>{head}</tr>{body}</table>{more}'


def _section(title: str, content: str) -> str:
    return f'<section><h2>{html.escape(title)}</h2>{content}</section>'


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _omitted_people(observations: Observations) -> str:
    """Return a note with the number of people that are not drawn; '' if all are."""
    count = len(np.unique(observations.ids)) - len(figures.drawn_ids(observations))
    return _note(f'{count} more people with fewer detections are not drawn.') if count > 0 else ''


def _picture(title: str, png: bytes) -> str:
    return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
