"""Statistics of the pose node and the diagnostics message made from them."""

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
from numpy.typing import NDArray

from metrabs_ros.conversions.cameras import UNCALIBRATED
from metrabs_ros.foreign_text import printable
from metrabs_ros.node.drops import FAILED, Drops, Fallbacks, sum_by_name
from metrabs_ros.placement.person_scale import Cue

MAX_LATENCIES = 300
"""Number of latest measurements per stage from which percentiles are computed."""
PERCENTILES = (50, 95)
MAX_MESSAGE_CHARS = 200
SCALE_KEYS: dict[str, int] = {
    **{f'scaled by {cue.name.lower()}': cue.value for cue in Cue if cue.name},
    'not scaled': 0,
}
"""Keys of the diagnostics that count people by the cue of their scale, and the cue."""


class FrameCounters:
    """
    Counters of the images and processed frames of each camera.

    The executor thread counts images and oversized messages, and the worker thread counts
    processed frames, so that each counter is written by one thread only.
    """

    def __init__(self) -> None:
        self.scaled_by_camera: dict[str, dict[str, int]] = {}
        """Number of people in all processed frames by the cue of their scale, for each camera."""
        self.images_by_camera: dict[str, int] = {}
        self.processed_by_camera: dict[str, int] = {}
        self.people_by_camera: dict[str, int] = {}
        self.oversized_messages = 0

    def add_cameras(self, names: Iterable[str]) -> None:
        """Create counters for cameras that have none."""
        for name in names:
            for counts in (self.images_by_camera, self.processed_by_camera, self.people_by_camera):
                counts.setdefault(name, 0)
            self.scaled_by_camera.setdefault(name, dict.fromkeys(SCALE_KEYS, 0))

    def count_image(self, camera: str) -> None:
        """Count a received image."""
        self.images_by_camera[camera] += 1

    def count_oversized_message(self) -> None:
        """Count a message that was rejected because of its size."""
        self.oversized_messages += 1

    def count_processed(self, camera: str, scale_cues: NDArray[np.uint8]) -> None:
        """Count a processed frame, given the `People.scale_cues` [N] of its people."""
        self.processed_by_camera[camera] += 1
        self.people_by_camera[camera] = len(scale_cues)
        counts = self.scaled_by_camera[camera]
        for key, cue in SCALE_KEYS.items():
            is_scaled = scale_cues & cue if cue else scale_cues == 0
            counts[key] += int(np.count_nonzero(is_scaled))

    @property
    def images(self) -> int:
        """Number of received images of all cameras."""
        return sum(self.images_by_camera.values())

    @property
    def processed(self) -> int:
        """Number of processed frames of all cameras."""
        return sum(self.processed_by_camera.values())


class Latencies:
    """Latencies of the processing stages for the latest frames."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_stage: dict[str, collections.deque[float]] = {}

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Measure the duration of a stage."""
        start_s = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start_s)

    def add(self, stage: str, latency_s: float) -> None:
        """Add a measurement of a stage."""
        with self._lock:
            kept = self._by_stage.setdefault(stage, collections.deque(maxlen=MAX_LATENCIES))
            kept.append(latency_s)

    def percentiles(self) -> dict[str, str]:
        """Return percentiles of each stage in milliseconds, one value per key."""
        with self._lock:
            by_stage = {stage: list(kept) for stage, kept in self._by_stage.items()}
        return {
            f'{stage} p{percentile} ms': f'{1000 * value:.1f}'
            for stage, kept in by_stage.items()
            for percentile, value in zip(PERCENTILES, np.percentile(kept, PERCENTILES))
        }


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """
    All counters at one time.

    Parameters
    ----------
    images, processed, people
        Received images, processed frames, and people in the latest processed frame, by camera.
    drops
        Dropped frames, by cause.
    drops_by_camera
        Dropped frames, by camera.
    scaled
        People in all processed frames by the cue of their scale, for each camera.
    fallbacks
        Frames processed with a fallback, by cause.
    explanations, fallback_explanations
        Latest explanation of the drops and of the fallbacks, by cause.
    time_s
        Time of the snapshot on the monotonic clock, in seconds.
    """

    images: dict[str, int] = dataclasses.field(default_factory=dict)
    processed: dict[str, int] = dataclasses.field(default_factory=dict)
    people: dict[str, int] = dataclasses.field(default_factory=dict)
    drops: dict[str, int] = dataclasses.field(default_factory=dict)
    drops_by_camera: dict[str, int] = dataclasses.field(default_factory=dict)
    scaled: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    fallbacks: dict[str, int] = dataclasses.field(default_factory=dict)
    explanations: dict[str, str] = dataclasses.field(default_factory=dict)
    fallback_explanations: dict[str, str] = dataclasses.field(default_factory=dict)
    time_s: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def in_flight(self) -> int:
        """Number of images that are neither processed nor dropped yet."""
        finished = sum(self.processed.values()) + sum(self.drops.values())
        return sum(self.images.values()) - finished


class Statistics:
    """
    Counters and latencies of the node.

    Parameters
    ----------
    logger
        ROS logger of the explanations.
    """

    def __init__(self, logger: Any) -> None:
        self.drops = Drops(logger)
        self.fallbacks = Fallbacks(logger)
        self.counters = FrameCounters()
        self.latencies = Latencies()

    def snapshot(self) -> Snapshot:
        """Return the current values of all counters."""
        # Images are read last, so that each finished frame is also counted as an image.
        drops = self.drops.counts_by_camera()
        processed = dict(self.counters.processed_by_camera)
        people = dict(self.counters.people_by_camera)
        return Snapshot(
            images=dict(self.counters.images_by_camera),
            processed=processed,
            people=people,
            drops=sum_by_name((cause, count) for (cause, _), count in drops.items()),
            drops_by_camera=sum_by_name((camera, count) for (_, camera), count in drops.items()),
            scaled={
                camera: dict(counts) for camera, counts in self.counters.scaled_by_camera.items()
            },
            fallbacks=self.fallbacks.counts(),
            explanations=self.drops.explanations(),
            fallback_explanations=self.fallbacks.explanations(),
        )


def to_message(
    name: str, about: dict[str, str], stamp: Time, previous: Snapshot, current: Snapshot
) -> DiagnosticArray:
    """
    Return the diagnostics message.

    Parameters
    ----------
    name
        Node name.
    about
        Additional key-value pairs: model, engine, latencies.
    stamp
        Time of the message.
    previous, current
        Previous and current snapshot.
    """
    status = DiagnosticStatus()
    status.name = f'{name}: frames'
    status.hardware_id = about.get('model', '')
    status.level, status.message = summarize(previous, current)
    values = {**about, **_counts(previous, current)}
    status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    message = DiagnosticArray()
    message.header.stamp = stamp
    message.status = [status]
    return message


def _counts(previous: Snapshot, current: Snapshot) -> dict[str, int | str]:
    """Return all counters and rates, one value per key."""
    images, processed = sum(current.images.values()), sum(current.processed.values())
    passed_s = max(current.time_s - previous.time_s, 1e-3)
    new_images = images - sum(previous.images.values())
    new_frames = processed - sum(previous.processed.values())
    counts: dict[str, int | str] = {
        'images': images,
        'processed': processed,
        'in_flight': current.in_flight,
        'people': sum(current.people.values()),
        'images per second': f'{new_images / passed_s:.1f}',
        'frames per second': f'{new_frames / passed_s:.1f}',
    }
    for camera in filter(None, current.images):
        counts[f'images of {camera}'] = current.images[camera]
        counts[f'processed of {camera}'] = current.processed.get(camera, 0)
        counts[f'dropped of {camera}'] = current.drops_by_camera.get(camera, 0)
        counts[f'people of {camera}'] = current.people.get(camera, 0)
    for camera, scaled in current.scaled.items():
        of_camera = f' of {camera}' if camera else ''
        counts |= {f'{key}{of_camera}': count for key, count in scaled.items()}
    counts |= {f'dropped: {cause}': count for cause, count in sorted(current.drops.items())}
    counts |= {f'fallback: {cause}': count for cause, count in sorted(current.fallbacks.items())}
    explanations = sorted(current.fallback_explanations.items())
    return counts | {f'explanation: {cause}': text for cause, text in explanations}


def summarize(previous: Snapshot, current: Snapshot) -> tuple[bytes, str]:
    """Return the diagnostic level and a summary of the time between two snapshots."""
    level, message = _summarize(previous, current)
    return level, printable(message, MAX_MESSAGE_CHARS)


def _summarize(previous: Snapshot, current: Snapshot) -> tuple[bytes, str]:
    new_drops = _increases(previous.drops, current.drops)
    new_fallbacks = _increases(previous.fallbacks, current.fallbacks)
    if FAILED in new_drops:
        return DiagnosticStatus.ERROR, f'frames fail: {current.explanations.get(FAILED, "")}'
    silent = [
        camera
        for camera, count in current.images.items()
        if count == previous.images.get(camera, 0)
    ]
    if len(silent) == len(current.images):
        return DiagnosticStatus.WARN, 'no images received'
    if silent:
        return DiagnosticStatus.WARN, f'no images received from {", ".join(silent)}'
    if UNCALIBRATED in new_drops or UNCALIBRATED in new_fallbacks:
        return DiagnosticStatus.WARN, 'the camera is not calibrated'
    if new_drops and not _increases(previous.processed, current.processed):
        worst = max(new_drops, key=lambda cause: new_drops[cause])
        return DiagnosticStatus.WARN, f'images received, but none processed: {worst}'
    if new_fallbacks:
        return DiagnosticStatus.WARN, f'processed with a fallback: {next(iter(new_fallbacks))}'
    return DiagnosticStatus.OK, f'{sum(current.people.values())} people'


def _increases(previous: dict[str, int], current: dict[str, int]) -> dict[str, int]:
    """Return the increments of the counts that have increased."""
    increases = {name: count - previous.get(name, 0) for name, count in current.items()}
    return {name: increase for name, increase in increases.items() if increase > 0}
