"""Subscriptions that reject oversized messages before they are deserialised."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

CDR_HEADER_BYTES = 4
"""Size of the CDR encapsulation header; its second byte is odd for little-endian data."""
STAMP_BYTES = 8
"""Size of a serialised builtin_interfaces/Time."""


class OversizedMessage(NamedTuple):
    """
    Placeholder for a message that was not deserialised because of its size.

    Parameters
    ----------
    header
        Header with the stamp of the message.
    size_bytes
        Size of the serialised message.
    max_bytes
        Maximum size of messages that are deserialised.
    """

    header: Header
    size_bytes: int
    max_bytes: int

    def __str__(self) -> str:
        """Return an error message."""
        return (
            f'a message has {self.size_bytes} bytes; up to {self.max_bytes} bytes are '
            'processed; publish fewer or shorter entries'
        )


def size_limited(
    message_type: type,
    max_bytes: int,
    on_message: Callable[[Any], None],
    on_oversized: Callable[[OversizedMessage], None],
) -> Callable[[bytes], None]:
    """
    Return a callback for a subscription with ``raw=True``.

    rclpy creates a Python object for each array element, which takes up to 0.1 ms per element and
    blocks the executor.  Limiting the size of messages limits that time.

    Parameters
    ----------
    message_type
        Message type; its first field must be a std_msgs/Header.
    max_bytes
        Maximum size of messages that are deserialised.
    on_message
        Called with each deserialised message.
    on_oversized
        Called for each oversized message.
    """

    def receive(serialised: bytes) -> None:
        if len(serialised) > max_bytes:
            header = Header(stamp=stamp_of(serialised))
            on_oversized(OversizedMessage(header, len(serialised), max_bytes))
        else:
            on_message(deserialize_message(serialised, message_type))

    return receive


def stamp_of(serialised: bytes) -> Time:
    """Return the header stamp of a serialised message; 0 if the data is too short."""
    if len(serialised) < CDR_HEADER_BYTES + STAMP_BYTES:
        return Time()
    order = '<' if serialised[1] & 1 else '>'
    sec, nanosec = struct.unpack_from(f'{order}iI', serialised, CDR_HEADER_BYTES)
    return Time(sec=sec, nanosec=nanosec)
