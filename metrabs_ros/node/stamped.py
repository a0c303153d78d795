"""Messages that belong to images, to be had by the images' stamps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Generic, TypeVar

from builtin_interfaces.msg import Time

KEPT_MESSAGES = 60

Message = TypeVar('Message')
Key = tuple[int, int]


class Stamped(Generic[Message]):
    """The last messages that came, by their stamps."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._by_stamp: OrderedDict[Key, Message] = OrderedDict()
        self.newest: Message | None = None

    def put(self, message: Any) -> None:
        """Keep a message that came in."""
        with self._changed:
            self._by_stamp[key_of(message.header.stamp)] = message
            while len(self._by_stamp) > KEPT_MESSAGES:
                self._by_stamp.popitem(last=False)
            self.newest = message
            self._changed.notify_all()

    def wait_for_any(self, patience_s: float) -> None:
        """Wait until there is any message, or patience ends."""
        with self._changed:
            self._changed.wait_for(lambda: self.newest is not None, patience_s)

    def wait_for(self, stamp: Time, patience_s: float) -> Message | None:
        """Return the message of a stamp as soon as it is there; None when patience ends."""
        key = key_of(stamp)
        with self._changed:
            self._changed.wait_for(lambda: key in self._by_stamp, patience_s)
            return self._by_stamp.get(key)


def key_of(stamp: Time) -> Key:
    """Return what can be looked up of a stamp, which itself cannot."""
    return stamp.sec, stamp.nanosec
