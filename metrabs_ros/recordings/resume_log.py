"""Log of the people found in each frame, from which an interrupted run is resumed."""

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
"""Header of an entry: camera, stamp, payload size in bytes, and CRC-32 of the payload."""
MAX_ENTRY_BYTES = 256 * 2**20
FAILURE_MARK = -1.0
"""First number of an encoded `Failure`; that of an `Entry` is a count."""
FORMAT_VERSION = 4
"""Version of the entry format.  Increase it with every change, so that old logs are not read."""


class Key(NamedTuple):
    """Key of a frame: index of the camera, and stamp in nanoseconds."""

    camera: int
    stamp_ns: int


class Entry(NamedTuple):
    """
    The result of a frame.

    Parameters
    ----------
    people
        The people, encoded by `to_numbers`.
    state
        Detector state after this frame; see `StreamDetector.state`.
    """

    people: FloatArray
    state: FloatArray

    def to_numbers(self) -> FloatArray:
        """Encode the entry as an array of numbers."""
        return np.concatenate([[len(self.state)], self.state, self.people])

    @classmethod
    def from_numbers(cls, numbers: FloatArray) -> Entry:
        """Decode an array from `to_numbers`."""
        count = int(numbers[0])
        return cls(numbers[1 + count :], numbers[1 : 1 + count])


class Failure(NamedTuple):
    """
    An exception of the networks at a frame.

    Parameters
    ----------
    cause
        Type of the exception.
    message
        Message of the exception.
    """

    cause: str
    message: str

    def to_numbers(self) -> FloatArray:
        """Encode the entry as an array of numbers."""
        text = json.dumps(self).encode()
        return np.concatenate([[FAILURE_MARK], np.frombuffer(text, np.uint8)])

    @classmethod
    def from_numbers(cls, numbers: FloatArray) -> Failure:
        """Decode an array from `to_numbers`."""
        return cls(*json.loads(numbers[1:].astype(np.uint8).tobytes()))


def parse_entry(numbers: FloatArray) -> Entry | Failure:
    """Decode a payload of a resume log."""
    return (Failure if numbers[0] == FAILURE_MARK else Entry).from_numbers(numbers)


class ResumeLog:
    """
    An append-only file with the results of consecutive frames.

    Entries of an earlier run are replayed in order.  Entries after an incomplete one are removed.

    Parameters
    ----------
    file
        The file; it is created if it does not exist.
    identity
        Everything that the results depend on.  A log of a different run is discarded.
    """

    def __init__(self, file: pathlib.Path, identity: Mapping[str, object]) -> None:
        run = {**identity, 'log_format': FORMAT_VERSION}
        first_line = (json.dumps(run, sort_keys=True) + '\n').encode()
        self._file = open_own(file, 'r+b')
        self._is_replaying = self._file.readline(len(first_line)) == first_line
        if not self._is_replaying:
            self._file.seek(0)
            self._file.truncate(0)
            self._file.write(first_line)
        self.replayed = 0
        """Number of replayed frames."""

    def replay(self, key: Key) -> FloatArray | None:
        """
        Return the payload of a frame; None if the log does not have it.

        Frames must be requested in their order.  After the first None, the rest of the log is
        removed, and new frames are appended.
        """
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

    def append(self, key: Key, payload: FloatArray) -> None:
        """Append the payload of the next frame."""
        self.append_batch([(key, payload)])

    def append_batch(self, entries: Sequence[tuple[Key, FloatArray]]) -> None:
        """
        Append the payloads of the frames of a batch with one write.

        If only a part of a batch were logged, a resumed run would process the other frames in a
        different batch, and the results would differ by rounding errors.
        """
        self._file.write(b''.join(_encode(key, payload) for key, payload in entries))
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


def _encode(key: Key, payload: FloatArray) -> bytes:
    data = np.ascontiguousarray(payload, np.float64).tobytes()
    return ENTRY_HEADER.pack(*key, len(data), zlib.crc32(data)) + data


def to_numbers(people: People) -> FloatArray:
    """Encode people as an array of numbers."""
    columns = (
        *(people.boxes_px, people.confidence, people.poses3d_mm, people.poses2d_px),
        *(people.network_poses2d_px, people.joint_confidence, people.joint_std_mm),
    )
    count = len(people)
    flat = [column.reshape(count, column.size // max(count, 1)) for column in columns]
    return np.concatenate(flat, axis=1).reshape(-1)


def from_numbers(numbers: FloatArray, skeleton: Skeleton, image_shape: tuple[int, ...]) -> People:
    """
    Decode people from an array.

    Parameters
    ----------
    numbers
        Array from `to_numbers`.
    skeleton
        Skeleton of the people.
    image_shape
        Height and width of the image in pixels.
    """
    joints = len(skeleton)
    rows = numbers.reshape(-1, 5 + 9 * joints)
    boxes_px, confidence, rest = rows[:, :4], rows[:, 4], rows[:, 5:]
    ends = np.cumsum([3 * joints, 2 * joints, 2 * joints, joints])
    poses3d, poses2d, network, joint_confidence, joint_std_mm = np.split(rest, ends, axis=1)
    # The summation order, and thus the rounding of sums, depends on the memory layout.
    boxes_px, confidence, joint_confidence, joint_std_mm = (
        np.ascontiguousarray(array)
        for array in (boxes_px, confidence, joint_confidence, joint_std_mm)
    )
    poses3d_mm = np.ascontiguousarray(poses3d).reshape(-1, joints, 3)
    poses2d_px = np.ascontiguousarray(poses2d).reshape(-1, joints, 2)
    network_poses2d_px = np.ascontiguousarray(network).reshape(-1, joints, 2)
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
        network_poses2d_px=network_poses2d_px,
    )
