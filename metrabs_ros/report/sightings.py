"""Who was where when, out of the results of a recording."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.messages.people import to_metres, to_people
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.message_types import SKELETONS, typestore
from metrabs_ros.recordings.recorded import Topic
from metrabs_ros.recordings.stamps import NANOSECONDS, stamp_ns_of

GAP_STEPS = 2.5
"""A gap is a step between frames that is longer than the usual one by this factor."""


@dataclasses.dataclass(frozen=True)
class Sightings:
    """
    S sightings of people in F frames of a camera.

    Parameters
    ----------
    topic, frame_id
        Where they were published, and in which frame.
    stamps_s
        [F], when each frame was taken.
    recorded_s
        [F], when its skeletons, or what they were found in, were recorded.
    people
        [F], how many there were.
    frames
        [S], in which frame each sighting was, by its number.
    ids
        [S].
    places_m
        [S, 3], where the hips were, in the frame of the skeletons.
    speeds_m_s
        [S].
    confidence
        [S], from 0 to 1.
    seen
        [S], whether the person was seen, or carried over from earlier frames.
    joint_names
        J names.
    deviations_m
        [J], the mean of each joint's standard deviation.
    remarks
        What was said when people were found.
    """

    topic: str
    frame_id: str
    stamps_s: FloatArray
    recorded_s: FloatArray
    people: NDArray[np.int64]
    frames: NDArray[np.int64]
    ids: NDArray[np.int64]
    places_m: FloatArray
    speeds_m_s: FloatArray
    confidence: FloatArray
    seen: NDArray[np.bool_]
    joint_names: tuple[str, ...]
    deviations_m: FloatArray
    remarks: tuple[str, ...] = ()

    @property
    def times_s(self) -> FloatArray:
        """When each frame was taken, since the first, [F]."""
        return self.stamps_s - self.stamps_s[:1].sum()

    @property
    def distances_m(self) -> FloatArray:
        """How far each sighting was from the origin, the camera as a rule, [S]."""
        return np.linalg.norm(self.places_m, axis=-1)

    @property
    def ground_axes(self) -> tuple[int, int]:
        """Which axes lie on the ground: to the right and forward on a plan."""
        return (0, 2) if 'optical' in self.frame_id or self.has_y_down else (0, 1)

    @property
    def has_y_down(self) -> bool:
        """Whether people are spread along z rather than y: the frame is a camera's."""
        if not len(self.places_m):
            return True
        return bool(np.ptp(self.places_m[:, 2]) >= np.ptp(self.places_m[:, 1]))

    def of_person(self, person_id: int) -> NDArray[np.intp]:
        """Return which sightings are of a person."""
        return np.flatnonzero(self.ids == person_id)

    @property
    def steps_s(self) -> FloatArray:
        """How long after the frame before each frame came, [F - 1]."""
        return np.diff(self.stamps_s)

    def gaps(self) -> list[tuple[float, float]]:
        """Return when frames were missing, since the first, and for how long, in seconds."""
        steps_s = self.steps_s
        if len(steps_s) < 2:
            return []
        is_long = steps_s > GAP_STEPS * np.median(steps_s)
        return list(zip(self.times_s[:-1][is_long].tolist(), steps_s[is_long].tolist()))

    def latencies_s(self) -> FloatArray:
        """How long after each frame was taken it was recorded, where both clocks agree, [L]."""
        latencies_s = self.recorded_s - self.stamps_s
        return latencies_s[(latencies_s >= 0) & (latencies_s < 60)]


def read_sightings(path: pathlib.Path, tell: Callable[[str], None]) -> list[Sightings]:
    """
    Return the sightings in a bag, of each camera.

    Raises
    ------
    UnreadableRecording
        If there are no skeletons in it.
    """
    bag = Bag(path, tell)
    try:
        topics = bag.skeleton_topics()
        remarks = _remarks(path)
        return [_read(bag, topic, remarks) for topic in topics]
    finally:
        bag.close()


def _read(bag: Bag, topic: Topic, remarks: tuple[str, ...]) -> Sightings:
    stamps_s: list[float] = []
    recorded_s: list[float] = []
    counts: list[int] = []
    rows: dict[str, list[Any]] = {
        name: [] for name in ('frames', 'ids', 'places', 'speeds', 'confidence', 'seen')
    }
    frame_id = ''
    joint_names: tuple[str, ...] = ()
    deviations_mm: FloatArray = np.zeros(0)
    for message in bag.messages([topic]):
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
        people = to_people(skeletons)
        frame_id, joint_names = skeletons.header.frame_id, people.skeleton.joint_names
        velocities_m_s = to_metres(people.velocities_mm_s.mean(axis=1))
        rows['frames'] += [len(stamps_s)] * len(people)
        rows['ids'].append(people.ids)
        rows['places'].append(to_metres(people.positions_mm))
        rows['speeds'].append(np.linalg.norm(velocities_m_s, axis=-1))
        rows['confidence'].append(people.confidence)
        rows['seen'].append(people.seen)
        if len(deviations_mm) != len(joint_names):
            deviations_mm = np.zeros(len(joint_names))
        deviations_mm += people.joint_std_mm.sum(axis=0)
        stamps_s.append(stamp_ns_of(skeletons.header) / NANOSECONDS)
        recorded_s.append(message.time_ns / NANOSECONDS)
        counts.append(len(people))
    sightings = max(len(rows['frames']), 1)
    return Sightings(
        topic=topic.name,
        frame_id=frame_id,
        stamps_s=np.array(stamps_s, float),
        recorded_s=np.array(recorded_s, float),
        people=np.array(counts, np.int64),
        frames=np.array(rows['frames'], np.int64),
        ids=_joined(rows['ids'], np.zeros(0, np.int64)),
        places_m=_joined(rows['places'], np.zeros((0, 3))),
        speeds_m_s=_joined(rows['speeds'], np.zeros(0)),
        confidence=_joined(rows['confidence'], np.zeros(0)),
        seen=_joined(rows['seen'], np.zeros(0, bool)),
        joint_names=joint_names,
        deviations_m=to_metres(deviations_mm / sightings),
        remarks=remarks,
    )


def _joined(arrays: list[Any], nothing: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([nothing, *arrays])


def _remarks(path: pathlib.Path) -> tuple[str, ...]:
    """Return what annotate said of the recording, if it wrote the results."""
    try:
        metadata = yaml.safe_load((path / 'metadata.yaml').read_text(encoding='utf-8'))
        custom = metadata['rosbag2_bagfile_information']['custom_data']
        about = json.loads(custom['metrabs_ros'])
    except (OSError, yaml.YAMLError, KeyError, ValueError, TypeError):
        return ()
    unusable = [
        f'{count} frames were not worked on, {cause}: {example}'
        for cause, (count, example) in about.get('unusable', {}).items()
    ]
    return (*about.get('remarks', ()), *unusable)
