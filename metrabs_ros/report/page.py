"""The page of a report: one file, without anything from elsewhere."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from metrabs_ros.report import figures
from metrabs_ros.report.sightings import Sightings, read_sightings

CLOSEST_SHOWN = 12
FEWEST_SIGHTINGS = 3
"""Who is there for less may be a mistake of the network's."""
GAPS_SHOWN = 12
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


def write_report(path: pathlib.Path, output: pathlib.Path, tell: Callable[[str], None]) -> None:
    """
    Write a page about the people in a bag.

    Parameters
    ----------
    path
        Results of annotating a recording, or a recording of what the node published.
    output
        The file of the page.
    tell
        Is told in a sentence of everything that is not as it should be.

    Raises
    ------
    UnreadableRecording
        If there are no skeletons in it.
    """
    everything = read_sightings(path, tell)
    parts = [_header(path, everything)]
    parts += [section for sightings in everything for section in _camera(sightings)]
    output.parent.mkdir(parents=True, exist_ok=True)
    title = html.escape(path.resolve().name)
    body = '\n'.join(parts)
    output.write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}: people</title><style>{STYLE}</style></head>\n'
        f'<body><main>\n{body}\n</main></body></html>\n',
        encoding='utf-8',
    )


def _header(path: pathlib.Path, everything: Sequence[Sightings]) -> str:
    remarks = dict.fromkeys(remark for sightings in everything for remark in sightings.remarks)
    said = ''.join(f'<p class="warning">{html.escape(remark)}</p>' for remark in remarks)
    return f'<h1>{html.escape(path.resolve().name)}</h1>{said}'


def _camera(sightings: Sightings) -> list[str]:
    """Return the sections about a camera."""
    sections = [_section(sightings.topic, _facts(sightings))]
    if not len(sightings.stamps_s):
        return [*sections, _section('Nothing to see', '<p>There were no frames.</p>')]
    if len(sightings.ids):
        sections += [
            _section(
                'People over time',
                _picture('People over time', figures.people_over_time(sightings)),
            ),
            _section('Distances', _picture('Distances', figures.distances_over_time(sightings))),
            _section(
                'From above',
                _picture('From above', figures.from_above(sightings)) + _plan(sightings),
            ),
            _section('Closest approaches', _closest(sightings)),
        ]
    sections.append(
        _section(
            'Frame rate and gaps',
            _picture('Frame rate', figures.rates(sightings)) + _gaps(sightings),
        )
    )
    # Stamps that were made from the recording say nothing.
    if sightings.latencies_s().any():
        note = (
            'From the stamp of the image to when it was recorded: in results of annotate the '
            "image, in a recording of the node's topics the skeletons."
        )
        sections.append(
            _section('Latency', _picture('Latency', figures.latencies(sightings)) + _note(note))
        )
    if len(sightings.ids):
        sections.append(
            _section('Confidence', _picture('Confidence', figures.confidences(sightings)))
        )
    return sections


def _facts(sightings: Sightings) -> str:
    stamps_s = sightings.stamps_s
    length_s = float(np.ptp(stamps_s)) if len(stamps_s) else 0.0
    facts = {
        'frames': f'{len(stamps_s)}',
        'length': f'{length_s:.1f} s',
        'frames a second': f'{(len(stamps_s) - 1) / length_s:.1f}' if length_s else 'unknown',
        'different people': f'{len(np.unique(sightings.ids))}',
        'people a frame': f'{sightings.people.mean():.1f}' if len(stamps_s) else '0',
    }
    if len(sightings.ids):
        facts['nearest'] = f'{sightings.distances_m.min():.2f} m'
        facts['median confidence'] = f'{np.median(sightings.confidence):.2f}'
    items = ''.join(f'<div><b>{value}</b>{name}</div>' for name, value in facts.items())
    frame = html.escape(sightings.frame_id or 'no frame')
    return f'<div class="facts">{items}</div>' + _note(f'Positions are in {frame}, in metres.')


def _plan(sightings: Sightings) -> str:
    right, forward = sightings.ground_axes
    return _note(
        f'{"xyz"[right]} is to the right, {"xyz"[forward]} up the page; the triangle is the '
        'origin, the camera as a rule.'
    )


def _closest(sightings: Sightings) -> str:
    """Return a table of how near each person came, the nearest first."""
    rows = []
    for person_id in np.unique(sightings.ids).tolist():
        own = sightings.of_person(person_id)
        if len(own) < FEWEST_SIGHTINGS:
            continue
        nearest = own[np.argmin(sightings.distances_m[own])]
        times_s = sightings.times_s[sightings.frames[own]]
        rows.append(
            (
                float(sightings.distances_m[nearest]),
                f'<td>{person_id}</td><td>{sightings.distances_m[nearest]:.2f} m</td>'
                f'<td>{sightings.times_s[sightings.frames[nearest]]:.1f} s</td>'
                f'<td>{sightings.speeds_m_s[nearest]:.1f} m/s</td>'
                f'<td>{times_s[0]:.1f} to {times_s[-1]:.1f} s</td>',
            )
        )
    rows.sort(key=lambda row: row[0])
    head = ''.join(f'<th>{name}</th>' for name in ('id', 'nearest', 'when', 'speed', 'there'))
    note = _note(f'Of those who were there in at least {FEWEST_SIGHTINGS} frames.')
    return _table(head, [cells for _, cells in rows], CLOSEST_SHOWN) + note


def _gaps(sightings: Sightings) -> str:
    gaps = sorted(sightings.gaps(), key=lambda gap: -gap[1])
    if not gaps:
        return _note('No frames are missing.')
    rows = [f'<td>{start_s:.2f} s</td><td>{gap_s:.2f} s</td>' for start_s, gap_s in gaps]
    return _table('<th>gap at</th><th>length</th>', rows, GAPS_SHOWN)


def _table(head: str, rows: Sequence[str], most: int) -> str:
    body = ''.join(f'<tr>{cells}</tr>' for cells in rows[:most])
    more = _note(f'and {len(rows) - most} more') if len(rows) > most else ''
    return f'<table><tr>{head}</tr>{body}</table>{more}'


def _section(title: str, content: str) -> str:
    return f'<section><h2>{html.escape(title)}</h2>{content}</section>'


def _note(text: str) -> str:
    return f'<p class="note">{text}</p>'


def _picture(title: str, png: bytes) -> str:
    return f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
