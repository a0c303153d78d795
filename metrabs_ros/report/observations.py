"""Detections of people in a result bag, as arrays per camera."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.conversions.stamps import NS_PER_S, to_seconds
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.recordings.bag_message import Topic
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.metadata import UnusableMetadata, read_metadata
from metrabs_ros.recordings.progress import progress_bar
from metrabs_ros.recordings.scale_cues import read_static_transforms, transform_topics
from metrabs_ros.recordings.skeleton_messages import UnusableSkeletons, recorded_people
from metrabs_ros.recordings.topic_selection import FUSED_TOPIC
from metrabs_ros.recordings.transform_buffer import TransformBuffer
from metrabs_ros.regular_file import shown

MAX_CAMERAS = 20
SUFFIX = '/pose/skeletons'
MAX_WARNINGS, MAX_WARNING_CHARS = 50, 1000
GAP_STEPS = 2.5
"""Minimum duration of a gap, in multiples of the median time between frames."""


@dataclasses.dataclass(frozen=True)
class Observations:
    """
    D detections of people in F frames of a camera, or of several cameras that were fused.

    Parameters
    ----------
    topic, frame_id
        Topic of the skeletons, and their TF frame.
    stamps_s
        [F], stamps of the frames in seconds.
    recorded_s
        [F], times of recording in seconds: of the skeletons, or of the images in results of
        annotate.
    people
        [F], number of people.
    frames
        [D], index of the frame.
    ids
        [D], id of the person.
    positions_m
        [D, 3], position of the hips in the frame of the skeletons, in metres.
    speeds_m_s
        [D], speed in metres per second.
    confidence
        [D], from 0 to 1.
    seen
        [D], whether the person was detected in the frame; otherwise the pose is predicted.
    joint_names
        J names.
    deviations_m
        [J], mean standard deviation of each joint, in metres.
    warnings
        Warnings of annotate and of reading.
    cameras_m
        [C, 3], positions of the cameras in the frame of the skeletons, in metres.
    camera_names
        C names; empty for a single camera.
    """

    topic: str
    frame_id: str
    stamps_s: FloatArray
    recorded_s: FloatArray
    people: NDArray[np.int64]
    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    positions_m: FloatArray
    speeds_m_s: FloatArray
    confidence: FloatArray
    seen: NDArray[np.bool_]
    joint_names: tuple[str, ...]
    deviations_m: FloatArray
    warnings: tuple[str, ...] = ()
    cameras_m: FloatArray = dataclasses.field(default_factory=lambda: np.zeros((1, 3)))
    camera_names: tuple[str, ...] = ('',)

    @property
    def is_fused(self) -> bool:
        """Whether the people were fused from several cameras."""
        return FUSED_TOPIC.fullmatch(self.topic) is not None

    @property
    def camera_name(self) -> str:
        """Name of the camera of the topic, or of the frame if the topic has none."""
        return self.topic.removesuffix(SUFFIX).strip('/') or self.frame_id

    @property
    def times_s(self) -> FloatArray:
        """Time of each frame since the first one, in seconds, [F]."""
        return self.stamps_s - self.stamps_s[:1].sum()

    @property
    def distances_m(self) -> FloatArray:
        """Distance of each detection from the origin, usually the camera, [D]."""
        return np.linalg.norm(self.positions_m, axis=-1)

    @property
    def ground_axes(self) -> tuple[int, int]:
        """Indices of the horizontal axes that point right and up in a top view."""
        if self.is_fused:
            return 0, 1
        return (0, 2) if 'optical' in self.frame_id or self.has_y_down else (0, 1)

    @property
    def has_y_down(self) -> bool:
        """Whether positions vary more along z than along y, as in an optical frame."""
        if not len(self.positions_m):
            return True
        return bool(np.ptp(self.positions_m[:, 2]) >= np.ptp(self.positions_m[:, 1]))

    def of_person(self, person_id: int) -> NDArray[np.intp]:
        """Return the indices of the detections of a person."""
        return np.flatnonzero(self.ids == person_id)

    @property
    def steps_s(self) -> FloatArray:
        """Time between consecutive frames in seconds, [F - 1]."""
        return np.diff(self.stamps_s)

    def gaps(self) -> list[tuple[float, float]]:
        """Return the start, since the first frame, and the duration of each gap, in seconds."""
        steps_s = self.steps_s
        if len(steps_s) < 2:
            return []
        is_long = steps_s > GAP_STEPS * np.median(steps_s)
        return list(zip(self.times_s[:-1][is_long].tolist(), steps_s[is_long].tolist()))

    def latencies_s(self) -> FloatArray:
        """Return the latencies from stamp to recording that are plausible, in seconds, [L]."""
        latencies_s = self.recorded_s - self.stamps_s
        return latencies_s[(latencies_s >= 0) & (latencies_s < 60)]


def read_observations(path: pathlib.Path, warn: Callable[[str], None]) -> list[Observations]:
    """
    Read the detections of each camera from a bag; those of fused people are first.

    Messages and skeletons that are not valid are skipped and counted in a warning.

    Parameters
    ----------
    path
        The bag.
    warn
        Called with each warning message.

    Raises
    ------
    UnusableFile
        If the path does not exist or cannot be read.
    UnreadableRecording
        If the bag has no skeletons.
    """
    bag = Bag(path, warn, progress_bar)
    try:
        topics = bag.skeleton_topics()
        topics.sort(key=lambda topic: FUSED_TOPIC.fullmatch(topic.name) is None)
        if len(topics) > MAX_CAMERAS:
            warn(
                f'{shown(path)} has {len(topics)} topics with skeletons; the report has the first '
                f'{MAX_CAMERAS}'
            )
        warnings = _read_warnings(path)
        with progress_bar('reading skeletons', None, ' messages') as advance:
            cameras = [_read(bag, topic, warnings, advance) for topic in topics[:MAX_CAMERAS]]
        transforms = TransformBuffer()
        read_static_transforms(bag, transform_topics(bag), transforms)
        return _with_positions(cameras, transforms)
    finally:
        bag.close()


def _with_positions(
    cameras: list[Observations], transforms: TransformBuffer
) -> list[Observations]:
    """Return the observations; those of fused people with the positions of static cameras."""
    frames = {own.frame_id: own.camera_name for own in cameras if not own.is_fused}

    def placed(fused: Observations) -> Observations:
        found = {}
        for frame, name in frames.items():
            with contextlib.suppress(UnusableInput):
                found[name] = transforms.lookup(fused.frame_id, frame, 0).translation_m
        positions_m = np.array(list(found.values())).reshape(-1, 3)
        return dataclasses.replace(fused, cameras_m=positions_m, camera_names=tuple(found))

    return [placed(own) if own.is_fused else own for own in cameras]


def _read(
    bag: Bag, topic: Topic, warnings: tuple[str, ...], advance: Callable[[int], None]
) -> Observations:
    stamps_s: list[float] = []
    recorded_s: list[float] = []
    counts: list[int] = []
    rows: dict[str, list[Any]] = {
        name: [] for name in ('frames', 'ids', 'positions', 'speeds', 'confidence', 'seen')
    }
    frame_id = ''
    joint_names: tuple[str, ...] = ()
    deviations_mm: FloatArray = np.zeros(0)
    measured = 0
    invalid: Counter[str] = Counter()
    examples: dict[str, str] = {}

    def count_invalid(kind: str, count: int, reason: str) -> None:
        invalid[kind] += count
        examples.setdefault(kind, reason)

    for message in bag.messages([topic]):
        advance(1)
        try:
            skeletons, people = recorded_people(message, count_invalid)
        except UnusableSkeletons as error:
            count_invalid('messages', 1, str(error))
            continue
        frame_id = skeletons.header.frame_id
        if people.skeleton.joint_names != joint_names:
            # Deviations of different joints cannot be averaged.
            joint_names = people.skeleton.joint_names
            deviations_mm, measured = np.zeros(len(joint_names)), 0
        velocities_m_s = to_metres(people.velocities_mm_s.mean(axis=1))
        rows['frames'] += [len(stamps_s)] * len(people)
        rows['ids'].append(people.ids)
        rows['positions'].append(to_metres(people.positions_mm))
        rows['speeds'].append(np.linalg.norm(velocities_m_s, axis=-1))
        rows['confidence'].append(people.confidence)
        rows['seen'].append(people.seen)
        deviations_mm += people.joint_std_mm.sum(axis=0)
        measured += len(people)
        stamps_s.append(to_seconds(skeletons.header.stamp))
        recorded_s.append(message.time_ns / NS_PER_S)
        counts.append(len(people))
    skipped = tuple(
        f'{count} {kind} on {printable(topic.name)} are not valid and were skipped: '
        f'{examples[kind]}'
        for kind, count in invalid.items()
    )
    return Observations(
        topic=topic.name,
        frame_id=frame_id,
        stamps_s=np.array(stamps_s, float),
        recorded_s=np.array(recorded_s, float),
        people=np.array(counts, np.int64),
        frames=np.array(rows['frames'], np.int64),
        ids=_concatenate(rows['ids'], np.zeros(0, np.int64)),
        positions_m=_concatenate(rows['positions'], np.zeros((0, 3))),
        speeds_m_s=_concatenate(rows['speeds'], np.zeros(0)),
        confidence=_concatenate(rows['confidence'], np.zeros(0)),
        seen=_concatenate(rows['seen'], np.zeros(0, bool)),
        joint_names=joint_names,
        deviations_m=to_metres(deviations_mm / max(measured, 1)),
        warnings=(*warnings, *skipped),
    )


def _concatenate(arrays: list[Any], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([empty, *arrays])


def _read_warnings(path: pathlib.Path) -> tuple[str, ...]:
    """Return the warnings in the summary of annotate; empty in other bags."""
    try:
        summary = read_metadata(path).summary
    except UnusableMetadata:
        return ()
    # `remarks` in results of earlier versions.
    warnings = summary.get('warnings', summary.get('remarks'))
    texts = (
        [text for text in warnings if isinstance(text, str)] if isinstance(warnings, list) else []
    )
    unusable = summary.get('unusable')
    for cause, value in unusable.items() if isinstance(unusable, dict) else ():
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], int):
            texts.append(f'{value[0]} frames were not processed, {cause}: {value[1]}')
    return tuple(printable(text, MAX_WARNING_CHARS) for text in texts[:MAX_WARNINGS])
