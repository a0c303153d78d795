"""What was found so far, for runs that are interrupted to go on where they stopped."""

from __future__ import annotations

import json
import pathlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.people import People, in_view
from metrabs_ros.regular_file import open_own
from metrabs_ros.skeletons.conventions import Skeleton

ENTRY_HEADER = struct.Struct('<qqqI')
"""Of a frame: its camera, its stamp, how many bytes follow, and their checksum."""
MAX_ENTRY_BYTES = 256 * 2**20
FAILURE_MARK = -1.0
"""Begins the numbers of a `Failure`; those of an `Entry` begin with a count."""
FORMAT_VERSION = 3
"""Of the entries; to be increased whenever it changes, so that other ones are not misread."""


class Key(NamedTuple):
    """Which frame it is: its camera and its stamp."""

    camera: int
    stamp_ns: int


class Entry(NamedTuple):
    """
    What was found in a frame.

    Parameters
    ----------
    people
        The people, by `to_numbers`.
    memory
        What the finder needs besides to go on with the next frame, by `PeopleFinder.memory`.
    """

    people: FloatArray
    memory: FloatArray

    def to_numbers(self) -> FloatArray:
        """Return all of this as a row of numbers."""
        return np.concatenate([[len(self.memory)], self.memory, self.people])

    @classmethod
    def from_numbers(cls, numbers: FloatArray) -> Entry:
        """Return what `to_numbers` made numbers of."""
        count = int(numbers[0])
        return cls(numbers[1 + count :], numbers[1 : 1 + count])


class Failure(NamedTuple):
    """
    Why the networks failed at a frame.

    Parameters
    ----------
    cause
        The kind of error.
    why
        Its message.
    """

    cause: str
    why: str

    def to_numbers(self) -> FloatArray:
        """Return all of this as a row of numbers."""
        text = json.dumps(self).encode()
        return np.concatenate([[FAILURE_MARK], np.frombuffer(text, np.uint8)])

    @classmethod
    def from_numbers(cls, numbers: FloatArray) -> Failure:
        """Return what `to_numbers` made numbers of."""
        return cls(*json.loads(numbers[1:].astype(np.uint8).tobytes()))


def parse_entry(numbers: FloatArray) -> Entry | Failure:
    """Return what was noted in a journal as numbers."""
    return (Failure if numbers[0] == FAILURE_MARK else Entry).from_numbers(numbers)


class ResumeLog:
    """
    The people found in one frame after the other, in a file that only grows.

    An entry that a killed run left incomplete is cut off.

    Parameters
    ----------
    file
        Where it is kept.
    identity
        What the people were found in, with what and how: a journal of anything else is no use.
    """

    def __init__(self, file: pathlib.Path, identity: Mapping[str, object]) -> None:
        about = {**identity, 'journal_format': FORMAT_VERSION}
        first_line = (json.dumps(about, sort_keys=True) + '\n').encode()
        self._file = open_own(file, 'r+b')
        self._is_replaying = self._file.readline(len(first_line)) == first_line
        if not self._is_replaying:
            self._file.seek(0)
            self._file.truncate(0)
            self._file.write(first_line)
        self.replayed = 0
        """How many frames were found in it."""

    def replay(self, key: Key) -> FloatArray | None:
        """Return what is known of a frame, or None; frames must be asked for in their order."""
        if not self._is_replaying:
            return None
        start = self._file.tell()
        numbers = self._read(key)
        if numbers is None:
            self._file.seek(start)
            self._file.truncate(start)
            self._is_replaying = False
        else:
            self.replayed += 1
        return numbers

    def append(self, key: Key, found: FloatArray) -> None:
        """Note what was found in the next frame."""
        self.append_batch([(key, found)])

    def append_batch(self, found: Sequence[tuple[Key, FloatArray]]) -> None:
        """
        Note what was found in frames that went through the network together.

        They are written at once: if only a part of them were known, the others would later go
        through the network in another batch, with results that differ in the last digits.
        """
        self._file.write(b''.join(_encode(key, numbers) for key, numbers in found))
        self._file.flush()

    def _read(self, key: Key) -> FloatArray | None:
        head = self._file.read(ENTRY_HEADER.size)
        if len(head) < ENTRY_HEADER.size:
            return None
        camera, stamp_ns, size, checksum = ENTRY_HEADER.unpack(head)
        if (camera, stamp_ns) != key or not 0 <= size <= MAX_ENTRY_BYTES:
            return None
        data = self._file.read(size)
        if len(data) != size or zlib.crc32(data) != checksum:
            return None
        return np.frombuffer(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _encode(key: Key, found: FloatArray) -> bytes:
    data = np.ascontiguousarray(found, np.float64).tobytes()
    return ENTRY_HEADER.pack(*key, len(data), zlib.crc32(data)) + data


def to_numbers(people: People) -> FloatArray:
    """Return all that was found of people as a row of numbers."""
    columns = (
        *(people.boxes_px, people.confidence, people.poses3d_mm, people.poses2d_px),
        *(people.joint_confidence, people.joint_std_mm),
    )
    count = len(people)
    flat = [column.reshape(count, column.size // max(count, 1)) for column in columns]
    return np.concatenate(flat, axis=1).reshape(-1)


def from_numbers(numbers: FloatArray, skeleton: Skeleton, image_shape: tuple[int, ...]) -> People:
    """Return the people of whom `to_numbers` made numbers."""
    joints = len(skeleton)
    rows = numbers.reshape(-1, 5 + 7 * joints)
    boxes_px, confidence, rest = rows[:, :4], rows[:, 4], rows[:, 5:]
    ends = np.cumsum([3 * joints, 2 * joints, joints])
    poses3d, poses2d, joint_confidence, joint_std_mm = np.split(rest, ends, axis=1)
    # In arrays of their own, in which sums add up as in those that were written.
    boxes_px, confidence, joint_confidence, joint_std_mm = (
        np.ascontiguousarray(array)
        for array in (boxes_px, confidence, joint_confidence, joint_std_mm)
    )
    poses3d_mm = np.ascontiguousarray(poses3d).reshape(-1, joints, 3)
    poses2d_px = np.ascontiguousarray(poses2d).reshape(-1, joints, 2)
    return People(
        skeleton=skeleton,
        boxes_px=boxes_px,
        confidence=confidence,
        poses3d_mm=poses3d_mm,
        poses2d_px=poses2d_px,
        joint_confidence=joint_confidence,
        in_view=in_view(poses3d_mm, poses2d_px, image_shape),
        ids=np.full(len(rows), -1),
        joint_std_mm=joint_std_mm,
    )
