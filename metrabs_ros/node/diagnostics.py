"""What the node publishes about itself once per second."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from metrabs_ros.foreign_text import printable
from metrabs_ros.node.drops import FAILED, UNCALIBRATED, Drops, Fallbacks, summed

KEPT_LATENCIES = 300
PERCENTILES = (50, 95)
MAX_MESSAGE_CHARS = 200


class Tally:
    """
    Counts frames of each camera.

    The thread that receives counts images, and the one that processes frames all else, so that
    each number is written by one thread only.
    """

    def __init__(self) -> None:
        self.images_of: dict[str, int] = {}
        self.worked_on_of: dict[str, int] = {}
        self.people_of: dict[str, int] = {}
        self.oversized_messages = 0

    def add_cameras(self, names: Iterable[str]) -> None:
        """Begin to count for cameras that are not counted yet."""
        for name in names:
            for counts in (self.images_of, self.worked_on_of, self.people_of):
                counts.setdefault(name, 0)

    def count_image(self, camera: str) -> None:
        """Count an image that was received."""
        self.images_of[camera] += 1

    def count_oversized_message(self) -> None:
        """Count a message beside the images that is too large to be deserialised."""
        self.oversized_messages += 1

    def count_worked_on(self, camera: str, people: int) -> None:
        """Count a frame whose people were published, and note their number."""
        self.worked_on_of[camera] += 1
        self.people_of[camera] = people

    @property
    def images(self) -> int:
        """How many images were received."""
        return sum(self.images_of.values())

    @property
    def worked_on(self) -> int:
        """How many frames' people were published."""
        return sum(self.worked_on_of.values())


class Latencies:
    """How long the stages of processing took for the last frames."""

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
        """Return percentiles of each stage in milliseconds, one number per key."""
        with self._lock:
            by_stage = {stage: list(kept) for stage, kept in self._by_stage.items()}
        return {
            f'{stage} p{percentile} ms': f'{1000 * value:.1f}'
            for stage, kept in by_stage.items()
            for percentile, value in zip(PERCENTILES, np.percentile(kept, PERCENTILES))
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """
    All counts at a time.

    Parameters
    ----------
    images, worked_on, people
        By camera: images received, frames whose people were published, people in the last one.
    drops
        How many frames were dropped, by cause.
    drops_of
        By camera.
    fallbacks
        How many frames were processed without something that was asked for, by cause.
    explanations
        The latest explanation of each cause of drops.
    time_s
        When, by a clock that never jumps.
    """

    images: dict[str, int] = dataclasses.field(default_factory=dict)
    worked_on: dict[str, int] = dataclasses.field(default_factory=dict)
    people: dict[str, int] = dataclasses.field(default_factory=dict)
    drops: dict[str, int] = dataclasses.field(default_factory=dict)
    drops_of: dict[str, int] = dataclasses.field(default_factory=dict)
    fallbacks: dict[str, int] = dataclasses.field(default_factory=dict)
    explanations: dict[str, str] = dataclasses.field(default_factory=dict)
    time_s: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def in_flight(self) -> int:
        """How many images are neither worked on nor dropped yet."""
        settled = sum(self.worked_on.values()) + sum(self.drops.values())
        return sum(self.images.values()) - settled


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
        self.fallbacks = Fallbacks(logger)
        self.tally = Tally()
        self.latencies = Latencies()

    def report(self) -> Report:
        """Return all counts as they are now."""
        # In this order, so that no frame is counted as dropped or worked on but not as received.
        drops = self.drops.counts_of_cameras()
        worked_on, people = dict(self.tally.worked_on_of), dict(self.tally.people_of)
        return Report(
            images=dict(self.tally.images_of),
            worked_on=worked_on,
            people=people,
            drops=summed((cause, count) for (cause, _), count in drops.items()),
            drops_of=summed((camera, count) for (_, camera), count in drops.items()),
            fallbacks=self.fallbacks.counts(),
            explanations=self.drops.explanations(),
        )


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
    values = {**about, **_counts(before, now)}
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    message = DiagnosticArray()
    message.header.stamp = stamp
    message.status = [status]
    return message


def _counts(before: Report, now: Report) -> dict[str, int | str]:
    """Return all counts and rates, one number per key."""
    images, worked_on = sum(now.images.values()), sum(now.worked_on.values())
    passed_s = max(now.time_s - before.time_s, 1e-3)
    new_images = images - sum(before.images.values())
    new_frames = worked_on - sum(before.worked_on.values())
    counts: dict[str, int | str] = {
        'images': images,
        'worked_on': worked_on,
        'in_flight': now.in_flight,
        'people': sum(now.people.values()),
        'images a second': f'{new_images / passed_s:.1f}',
        'frames a second': f'{new_frames / passed_s:.1f}',
    }
    for camera in filter(None, now.images):
        counts[f'images of {camera}'] = now.images[camera]
        counts[f'worked_on of {camera}'] = now.worked_on.get(camera, 0)
        counts[f'dropped of {camera}'] = now.drops_of.get(camera, 0)
        counts[f'people of {camera}'] = now.people.get(camera, 0)
    counts |= {f'dropped: {cause}': count for cause, count in sorted(now.drops.items())}
    counts |= {f'fell back: {cause}': count for cause, count in sorted(now.fallbacks.items())}
    return counts


def verdict(before: Report, now: Report) -> tuple[bytes, str]:
    """Return the level of what happened since the last report, and a sentence about it."""
    level, sentence = _verdict(before, now)
    return level, printable(sentence, MAX_MESSAGE_CHARS)


def _verdict(before: Report, now: Report) -> tuple[bytes, str]:
    new_drops = _increased(before.drops, now.drops)
    new_fallbacks = _increased(before.fallbacks, now.fallbacks)
    if FAILED in new_drops:
        return DiagnosticStatus.ERROR, f'frames fail: {now.explanations.get(FAILED, "")}'
    silent = [camera for camera, n in now.images.items() if n == before.images.get(camera, 0)]
    if len(silent) == len(now.images):
        return DiagnosticStatus.WARN, 'no images come in'
    if silent:
        return DiagnosticStatus.WARN, f'no images come in from {", ".join(silent)}'
    if UNCALIBRATED in new_drops or UNCALIBRATED in new_fallbacks:
        return DiagnosticStatus.WARN, 'the camera is not calibrated'
    if new_drops and not _increased(before.worked_on, now.worked_on):
        worst = max(new_drops, key=lambda cause: new_drops[cause])
        return DiagnosticStatus.WARN, f'frames come in, but none was worked on: {worst}'
    if new_fallbacks:
        return DiagnosticStatus.WARN, f'worked on with a fallback: {next(iter(new_fallbacks))}'
    return DiagnosticStatus.OK, f'{sum(now.people.values())} people'


def _increased(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """Return by how much counts have increased, of those that have."""
    increases = {name: count - before.get(name, 0) for name, count in now.items()}
    return {name: increase for name, increase in increases.items() if increase > 0}
