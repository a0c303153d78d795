"""Messages that belong to images, found by the images' stamps."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from builtin_interfaces.msg import Time

MAX_KEPT = 60

Message = TypeVar('Message')
Key = tuple[int, int]


class StampedMessages(Generic[Message]):
    """The messages that were received last, by their stamps."""

    def __init__(self) -> None:
        self._by_stamp: OrderedDict[Key, Message] = OrderedDict()

    def put(self, key: Key, message: Message) -> None:
        """Keep a message in place of an earlier one of the same stamp."""
        # Removed first, so that it counts as received last.
        self._by_stamp.pop(key, None)
        self._by_stamp[key] = message
        if len(self._by_stamp) > MAX_KEPT:
            self._by_stamp.popitem(last=False)

    def get(self, key: Key) -> Message | None:
        """Return the message of a stamp, if it is kept."""
        return self._by_stamp.get(key)


def key_of(stamp: Time) -> Key:
    """Return a stamp as a key; unlike `rclpy.time.Time`, it may be before 1970."""
    return stamp.sec, stamp.nanosec
