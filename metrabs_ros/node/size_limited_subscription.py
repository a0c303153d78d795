"""Subscriptions that refuse messages by their size, before rclpy makes Python objects of them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from std_msgs.msg import Header

CDR_HEADER_BYTES = 4
"""Before the first field of a message; the second byte is odd if it is little-endian."""
STAMP_BYTES = 8


class OversizedMessage(NamedTuple):
    """
    What is known of a message that was not deserialised; `str` gives a sentence about it.

    Parameters
    ----------
    header
        With the message's stamp.
    size_bytes
        Its size as it was received.
    limit_bytes
        The largest size that is deserialised.
    """

    header: Header
    size_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        """Return what is wrong with it, and what to do."""
        return (
            f'a message has {self.size_bytes} bytes; up to {self.limit_bytes} bytes are '
            'processed; publish fewer or shorter entries'
        )


def size_limited(
    kind: type,
    limit_bytes: int,
    take: Callable[[Any], None],
    refuse: Callable[[OversizedMessage], None],
) -> Callable[[bytes], None]:
    """
    Return a callback for a subscription with ``raw=True``.

    rclpy makes a Python object of each element of an array, which takes up to 0.1 ms per element
    and blocks the executor meanwhile.  Only the size of a message bounds that time.

    Parameters
    ----------
    kind
        The message type; its first field is a std_msgs/Header.
    limit_bytes
        The largest size that is deserialised.
    take
        Called with each deserialised message.
    refuse
        Called for each message that is larger.
    """

    def receive(serialised: bytes) -> None:
        if len(serialised) > limit_bytes:
            header = Header(stamp=_stamp_of(serialised))
            refuse(OversizedMessage(header, len(serialised), limit_bytes))
        else:
            take(deserialize_message(serialised, kind))

    return receive


def _stamp_of(serialised: bytes) -> Time:
    """Return the stamp of a serialised message that begins with a header; 0 if it is too short."""
    if len(serialised) < CDR_HEADER_BYTES + STAMP_BYTES:
        return Time()
    order = '<' if serialised[1] & 1 else '>'
    sec, nanosec = struct.unpack_from(f'{order}iI', serialised, CDR_HEADER_BYTES)
    return Time(sec=sec, nanosec=nanosec)
