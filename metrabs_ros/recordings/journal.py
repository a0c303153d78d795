"""What was found so far, for runs that are interrupted to go on where they stopped."""

from __future__ import annotations

import json
import pathlib
import struct
import zlib
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.people import People, in_view
from metrabs_ros.skeleton import Skeleton

HEAD = struct.Struct('<qqqI')
"""Of a frame: its camera, its stamp, how many people, and a checksum of what follows."""
UNUSABLE = -1
"""Instead of the number of people: that a frame could not be worked on."""


class Key(NamedTuple):
    """Which frame it is: its camera and its stamp."""

    camera: int
    stamp_ns: int


class Journal:
    """
    The people found in one frame after the other, in a file that only grows.

    What a killed run left half-written is cut off.

    Parameters
    ----------
    file
        Where it is kept.
    identity
        What the people were found in, with what and how: a journal of anything else is no use.
    """

    def __init__(self, file: pathlib.Path, identity: Mapping[str, object]) -> None:
        first_line = (json.dumps(identity, sort_keys=True) + '\n').encode()
        self._file: BinaryIO = open(file, 'a+b')  # noqa: SIM115, closed by close()
        self._file.seek(0)
        self._is_replaying = self._file.readline() == first_line
        if not self._is_replaying:
            self._file.truncate(0)
            self._file.write(first_line)
        self.replayed = 0
        """How many frames were found in it."""

    def take(self, key: Key) -> FloatArray | None:
        """Return what is known of a frame, or None; frames must be asked for in their order."""
        if not self._is_replaying:
            return None
        start = self._file.tell()
        head = self._file.read(HEAD.size)
        if len(head) == HEAD.size:
            camera, stamp_ns, size, checksum = HEAD.unpack(head)
            data = self._file.read(max(size, 0))
            if (camera, stamp_ns) == key and zlib.crc32(data) == checksum:
                self.replayed += 1
                return np.frombuffer(data)
        self._file.truncate(start)
        self._file.seek(start)
        self._is_replaying = False
        return None

    def put(self, key: Key, found: FloatArray) -> None:
        """Note what was found in the next frame."""
        data = np.ascontiguousarray(found, np.float64).tobytes()
        self._file.write(HEAD.pack(*key, len(data), zlib.crc32(data)) + data)
        self._file.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


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
    poses3d_mm, poses2d_px = poses3d.reshape(-1, joints, 3), poses2d.reshape(-1, joints, 2)
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
