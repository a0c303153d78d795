"""Who was where when, out of the results of a recording."""

from __future__ import annotations

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.people import to_metres, to_people
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MAX_MAGNITUDE, People
from metrabs_ros.recordings.bag_message import Recorded, Topic
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.message_types import SKELETONS, typestore
from metrabs_ros.recordings.metadata import UnusableMetadata, read_metadata
from metrabs_ros.recordings.progress import progress_bar
from metrabs_ros.recordings.stamps import NANOSECONDS, stamp_ns_of
from metrabs_ros.regular_file import shown

MAX_CAMERAS = 20
MAX_JOINTS = 1000
MAX_REMARKS, REMARK_CHARS = 50, 1000
PER_JOINT = (
    *('positions', 'velocities', 'standard_deviations', 'confidences', 'image_points', 'in_view'),
)
"""The fields of a Skeleton with an entry for each joint."""

GAP_STEPS = 2.5
"""A gap is a step between frames that is longer than the usual one by this factor."""


@dataclasses.dataclass(frozen=True)
class Observations:
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


class _UnusableSkeletons(ValueError):  # noqa: N818
    """A message with skeletons, or one of its skeletons, is not valid; the text says why."""


def read_observations(path: pathlib.Path, tell: Callable[[str], None]) -> list[Observations]:
    """
    Return the sightings in a bag, of each camera.

    Messages and skeletons that are not valid are left out, and counted in a remark.

    Raises
    ------
    UnusableFile
        If there is no bag.
    UnreadableRecording
        If there are no skeletons in it.
    """
    bag = Bag(path, tell, progress_bar)
    try:
        topics = bag.skeleton_topics()
        if len(topics) > MAX_CAMERAS:
            tell(
                f'{shown(path)} has {len(topics)} topics with skeletons; the report is about the '
                f'first {MAX_CAMERAS}'
            )
        remarks = _remarks(path)
        with progress_bar('reading skeletons', None, ' messages') as advance:
            return [_read(bag, topic, remarks, advance) for topic in topics[:MAX_CAMERAS]]
    finally:
        bag.close()


def _read(
    bag: Bag, topic: Topic, remarks: tuple[str, ...], advance: Callable[[int], None]
) -> Observations:
    stamps_s: list[float] = []
    recorded_s: list[float] = []
    counts: list[int] = []
    rows: dict[str, list[Any]] = {
        name: [] for name in ('frames', 'ids', 'places', 'speeds', 'confidence', 'seen')
    }
    frame_id = ''
    joint_names: tuple[str, ...] = ()
    deviations_mm: FloatArray = np.zeros(0)
    measured = 0
    invalid: Counter[str] = Counter()
    examples: dict[str, str] = {}

    def leave_out(what: str, count: int, why: str) -> None:
        invalid[what] += count
        examples.setdefault(what, why)

    for message in bag.messages([topic]):
        advance(1)
        try:
            skeletons, people = _valid_people(message, leave_out)
        except _UnusableSkeletons as error:
            leave_out('messages', 1, str(error))
            continue
        frame_id = skeletons.header.frame_id
        if people.skeleton.joint_names != joint_names:
            # Deviations of other joints cannot be averaged with these.
            joint_names = people.skeleton.joint_names
            deviations_mm, measured = np.zeros(len(joint_names)), 0
        velocities_m_s = to_metres(people.velocities_mm_s.mean(axis=1))
        rows['frames'] += [len(stamps_s)] * len(people)
        rows['ids'].append(people.ids)
        rows['places'].append(to_metres(people.positions_mm))
        rows['speeds'].append(np.linalg.norm(velocities_m_s, axis=-1))
        rows['confidence'].append(people.confidence)
        rows['seen'].append(people.seen)
        deviations_mm += people.joint_std_mm.sum(axis=0)
        measured += len(people)
        stamps_s.append(stamp_ns_of(skeletons.header) / NANOSECONDS)
        recorded_s.append(message.time_ns / NANOSECONDS)
        counts.append(len(people))
    left_out = tuple(
        f'{count} {what} on {printable(topic.name)} were left out, as they are not valid: '
        f'{examples[what]}'
        for what, count in invalid.items()
    )
    return Observations(
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
        deviations_m=to_metres(deviations_mm / max(measured, 1)),
        remarks=(*remarks, *left_out),
    )


def _valid_people(
    message: Recorded, leave_out: Callable[[str, int, str], None]
) -> tuple[Any, People]:
    """Return a message and its valid people; raises an _UnusableSkeletons if there are none."""
    try:
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
    except Exception as error:  # Data of another kind makes the library fail in many ways.
        raise _UnusableSkeletons(f'they are no SkeletonArray ({printable(error)})') from error
    joints, edges = len(skeletons.joint_names), len(skeletons.joint_edges)
    if not 0 < joints <= MAX_JOINTS:
        raise _UnusableSkeletons(f'joint_names has {joints} names; it must have 1 to {MAX_JOINTS}')
    if edges % 2 or (edges and int(max(skeletons.joint_edges)) >= joints):
        raise _UnusableSkeletons('joint_edges are no pairs of joints')
    sec, nanosec = int(skeletons.header.stamp.sec), int(skeletons.header.stamp.nanosec)
    if sec < 0 or nanosec >= NANOSECONDS:
        raise _UnusableSkeletons(f'the stamp {sec} s and {nanosec} ns is invalid')
    whole = []
    for skeleton in skeletons.skeletons:
        lengths = {name: len(getattr(skeleton, name)) for name in PER_JOINT}
        wrong = next((name for name, length in lengths.items() if length != joints), None)
        if wrong is None:
            whole.append(skeleton)
        else:
            leave_out(
                'skeletons', 1, f'{wrong} has {lengths[wrong]} entries for {joints} joint_names'
            )
    people = to_people(dataclasses.replace(skeletons, skeletons=whole))
    usable = people.finite() & _in_range(people)
    if not usable.all():
        leave_out('skeletons', int((~usable).sum()), 'a value is not finite or out of range')
        people = people.select(usable)
    return skeletons, people


def _in_range(people: People) -> NDArray[np.bool_]:
    """Tell of whom all other values are possible, [N]."""
    velocities = np.abs(people.velocities_mm_s).max(axis=(1, 2), initial=0)
    confidence = people.confidence
    # Also not a number is not in a range.
    return np.asarray(
        (velocities < MAX_MAGNITUDE)
        & (confidence >= 0)
        & (confidence <= 1)
        & (people.joint_std_mm >= 0).all(axis=1)
    )


def _joined(arrays: list[Any], nothing: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([nothing, *arrays])


def _remarks(path: pathlib.Path) -> tuple[str, ...]:
    """Return what annotate said of the recording, if it wrote the results."""
    try:
        about = read_metadata(path).about
    except UnusableMetadata:
        return ()
    remarks = about.get('remarks')
    said = [text for text in remarks if isinstance(text, str)] if isinstance(remarks, list) else []
    unusable = about.get('unusable')
    for cause, found in unusable.items() if isinstance(unusable, dict) else ():
        if isinstance(found, list) and len(found) == 2 and isinstance(found[0], int):
            said.append(f'{found[0]} frames were not worked on, {cause}: {found[1]}')
    return tuple(printable(text, REMARK_CHARS) for text in said[:MAX_REMARKS])
