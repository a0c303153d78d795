"""What the node tells of itself once a second."""

from __future__ import annotations

import dataclasses

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue


@dataclasses.dataclass
class Tally:
    """
    What happened to the frames so far.

    Parameters
    ----------
    images
        Images that came in.
    frames
        Images that came in with their camera_info.
    worked_on
        Frames whose people were published.
    people
        How many people there were in the last one.
    """

    images: int = 0
    frames: int = 0
    worked_on: int = 0
    people: int = 0


def to_message(
    name: str, model: str, stamp: Time, before: Tally, now: Tally, drops: dict[str, int]
) -> DiagnosticArray:
    """
    Return the message.

    Parameters
    ----------
    name
        The node's name.
    model
        The model's name.
    stamp
        The time.
    before, now
        The tally of a second ago, and the present one.
    drops
        How many frames were dropped so far, by cause.
    """
    status = DiagnosticStatus()
    status.name = f'{name}: frames'
    status.hardware_id = model
    status.level, status.message = _verdict(before, now)
    values = {'model': model, **dataclasses.asdict(now)}
    values |= {f'dropped: {cause}': count for cause, count in sorted(drops.items())}
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    message = DiagnosticArray()
    message.header.stamp = stamp
    message.status = [status]
    return message


def _verdict(before: Tally, now: Tally) -> tuple[bytes, str]:
    if now.images == before.images:
        return DiagnosticStatus.WARN, 'no images come in'
    if now.frames == before.frames:
        return DiagnosticStatus.WARN, 'images come in without a camera_info of the same stamp'
    if now.worked_on == before.worked_on:
        return DiagnosticStatus.WARN, 'frames come in, but none was worked on'
    return DiagnosticStatus.OK, f'{now.people} people'
