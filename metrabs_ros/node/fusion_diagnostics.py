"""Diagnostics message of the fusion node: one status for all cameras, and one for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from metrabs_ros.foreign_text import printable
from metrabs_ros.node.diagnostics import MAX_MESSAGE_CHARS

STATUS_SUFFIX = ': people'
"""End of the name of the status of all cameras."""


@dataclasses.dataclass(frozen=True)
class CameraCounts:
    """
    Counters and measurements of one camera.

    Parameters
    ----------
    messages, fused
        Received messages of skeletons, and those that were used.
    drops
        Messages that were not used, by cause.
    people
        Number of people in the latest message.
    latency_s
        Median time from stamp to reception, in seconds.
    reprojection_px
        Distance between image points and the projected people.
    problem
        Why the camera is not used at present; empty if it is used.
    """

    messages: int = 0
    fused: int = 0
    drops: Mapping[str, int] = dataclasses.field(default_factory=dict)
    people: int = 0
    latency_s: float = 0.0
    reprojection_px: float = 0.0
    problem: str = ''


def to_message(
    name: str,
    stamp: Time,
    about: Mapping[str, str],
    previous: Mapping[str, CameraCounts],
    current: Mapping[str, CameraCounts],
    passed_s: float,
) -> DiagnosticArray:
    """
    Return the diagnostics message.

    Parameters
    ----------
    name
        Node name.
    stamp
        Time of the message.
    about
        Key-value pairs of the fusion as a whole.
    previous, current
        Counters of each camera by name, `passed_s` ago and now.
    passed_s
        Time between them, in seconds.
    """
    cameras = [
        _camera_status(name, camera, previous.get(camera, CameraCounts()), counts, passed_s)
        for camera, counts in current.items()
    ]
    message = DiagnosticArray(status=[_summary(name, about, cameras), *cameras])
    message.header.stamp = stamp
    return message


def _camera_status(
    name: str, camera: str, previous: CameraCounts, current: CameraCounts, passed_s: float
) -> DiagnosticStatus:
    new = current.messages - previous.messages
    level, text = DiagnosticStatus.OK, f'{current.people} people'
    if not new:
        level, text = DiagnosticStatus.WARN, 'no skeletons received'
    elif current.problem:
        level, text = DiagnosticStatus.WARN, f'excluded: {current.problem}'
    values = {
        'messages': str(current.messages),
        'fused': str(current.fused),
        'messages per second': f'{new / max(passed_s, 1e-3):.1f}',
        'people': str(current.people),
        'latency ms': f'{1000 * current.latency_s:.0f}',
        'reprojection error px': f'{current.reprojection_px:.1f}',
        **{f'dropped: {cause}': str(count) for cause, count in sorted(current.drops.items())},
    }
    return _status(f'{name}: camera {camera}'.rstrip(), camera, level, text, values)


def _summary(
    name: str, about: Mapping[str, str], cameras: Sequence[DiagnosticStatus]
) -> DiagnosticStatus:
    problems = [
        f'camera {status.hardware_id}: {status.message}'
        for status in cameras
        if status.level != DiagnosticStatus.OK
    ]
    level = DiagnosticStatus.WARN if problems else DiagnosticStatus.OK
    text = '; '.join(problems) or f'{about.get("people", "0")} people'
    return _status(f'{name}{STATUS_SUFFIX}', '', level, text, about)


def _status(
    name: str, hardware_id: str, level: bytes, text: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=level,
        message=printable(text, MAX_MESSAGE_CHARS),
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
