"""What the node tells of itself once a second."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from metrabs_ros.node.drops import Drops

KEPT_LATENCIES = 300
FAILED = 'failed: '
UNCALIBRATED = 'camera not calibrated'
"""Causes of drops that are worse than others."""


@dataclasses.dataclass
class Tally:
    """
    What happened to the frames so far.

    Parameters
    ----------
    images
        Images that came in.
    of_camera
        How many of them from each camera, if there are several.
    worked_on
        Frames whose people were published.
    people
        How many people there were in the last one, for each camera.
    """

    images: int = 0
    of_camera: dict[str, int] = dataclasses.field(default_factory=dict)
    worked_on: int = 0
    people: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def people_in_all(self) -> int:
        """How many people there were in the last frames of all cameras."""
        return sum(self.people.values())


class Latencies:
    """How long the stages of the last frames took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_stage: dict[str, collections.deque[float]] = {}

    @contextlib.contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Measure a stage."""
        start_s = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start_s)

    def add(self, stage: str, latency_s: float) -> None:
        """Add what was measured of a stage."""
        with self._lock:
            kept = self._by_stage.setdefault(stage, collections.deque(maxlen=KEPT_LATENCIES))
            kept.append(latency_s)

    def percentiles(self) -> dict[str, str]:
        """Return for each stage its 50th and 95th percentile, in milliseconds."""
        with self._lock:
            by_stage = {stage: list(kept) for stage, kept in self._by_stage.items()}
        return {
            f'{stage} ms, 50th and 95th percentile': ' '.join(
                f'{1000 * value:.1f}' for value in np.percentile(kept, (50, 95))
            )
            for stage, kept in by_stage.items()
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """
    What is told at a time.

    Parameters
    ----------
    tally
        What happened to the frames so far.
    drops
        How many frames were dropped so far, by cause.
    fallbacks
        How many frames were worked on without something that was asked for, by what.
    time_s
        When, by a clock that never jumps.
    """

    tally: Tally = dataclasses.field(default_factory=Tally)
    drops: dict[str, int] = dataclasses.field(default_factory=dict)
    fallbacks: dict[str, int] = dataclasses.field(default_factory=dict)
    time_s: float = dataclasses.field(default_factory=time.monotonic)


class Record:
    """
    All that is counted and measured.

    Parameters
    ----------
    logger
        Where explanations go.
    """

    def __init__(self, logger: Any) -> None:
        self.drops = Drops(logger)
        self.fallbacks = Drops(logger)
        self.tally = Tally()
        self.latencies = Latencies()

    def report(self) -> Report:
        """Return how things are now."""
        tally = copy.deepcopy(self.tally)
        return Report(tally, self.drops.counts(), self.fallbacks.counts())


def to_message(
    name: str, about: dict[str, str], stamp: Time, before: Report, now: Report
) -> DiagnosticArray:
    """
    Return the message.

    Parameters
    ----------
    name
        The node's name.
    about
        Further values: the model and what runs it, latencies.
    stamp
        The time.
    before, now
        The last report and the present one.
    """
    status = DiagnosticStatus()
    status.name = f'{name}: frames'
    status.hardware_id = about.get('model', '')
    status.level, status.message = verdict(before, now)
    passed_s = max(now.time_s - before.time_s, 1e-3)
    values = {
        **about,
        'images': now.tally.images,
        'worked_on': now.tally.worked_on,
        'people': now.tally.people_in_all,
        **{f'images of {name}': count for name, count in now.tally.of_camera.items() if name},
        **{f'people of {name}': count for name, count in now.tally.people.items() if name},
        'images a second': f'{(now.tally.images - before.tally.images) / passed_s:.1f}',
        'frames a second': f'{(now.tally.worked_on - before.tally.worked_on) / passed_s:.1f}',
    }
    values |= {f'dropped: {cause}': count for cause, count in sorted(now.drops.items())}
    values |= {f'fell back: {cause}': count for cause, count in sorted(now.fallbacks.items())}
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    message = DiagnosticArray()
    message.header.stamp = stamp
    message.status = [status]
    return message


def verdict(before: Report, now: Report) -> tuple[bytes, str]:
    """Return how bad it is since the last report, and why in a sentence."""
    new = {c: n - before.drops.get(c, 0) for c, n in now.drops.items()}
    new = {cause: count for cause, count in new.items() if count > 0}
    failures = [cause for cause in new if cause.startswith(FAILED)]
    if failures:
        return DiagnosticStatus.ERROR, f'frames fail: {failures[0].removeprefix(FAILED)}'
    if now.tally.images == before.tally.images:
        return DiagnosticStatus.WARN, 'no images come in'
    silent = [c for c, n in now.tally.of_camera.items() if n == before.tally.of_camera.get(c, 0)]
    if silent:
        return DiagnosticStatus.WARN, f'no images come in from {", ".join(silent)}'
    if UNCALIBRATED in new or UNCALIBRATED in _new_fallbacks(before, now):
        return DiagnosticStatus.WARN, 'the camera is not calibrated'
    if now.tally.worked_on == before.tally.worked_on and new:
        worst = max(new, key=lambda cause: new[cause])
        return DiagnosticStatus.WARN, f'frames come in, but none was worked on: {worst}'
    fallbacks = _new_fallbacks(before, now)
    if fallbacks:
        return DiagnosticStatus.WARN, f'worked on with a fallback: {fallbacks[0]}'
    return DiagnosticStatus.OK, f'{now.tally.people_in_all} people'


def _new_fallbacks(before: Report, now: Report) -> list[str]:
    return [c for c, n in now.fallbacks.items() if n > before.fallbacks.get(c, 0)]
