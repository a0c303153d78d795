"""Replacement for message_filters: synchronisation of messages of several topics."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import rclpy.logging
from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.time import Time

__all__ = [
    'ApproximateTimeSynchronizer',
    'Cache',
    'SimpleFilter',
    'Subscriber',
    'TimeSynchronizer',
]


class SimpleFilter:
    """Forwards messages to callbacks."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:  # noqa: N802
        """Register a function that is called with each output and the given arguments."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:  # noqa: N802
        """Call all callbacks."""
        for cb, args in list(self.callbacks.values()):
            cb(*msg, *args)


class Subscriber(SimpleFilter):
    """
    Forwards the messages of a topic.

    The arguments are the node and the arguments of `create_subscription` without the callback.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.node = args[0]
        self.topic = args[2]
        kwargs.setdefault('qos_profile', 10)
        self.sub = self.node.create_subscription(*args[1:], self.callback, **kwargs)

    def callback(self, msg: Any) -> None:
        """Forward a message."""
        self.signalMessage(msg)

    def getTopic(self) -> str:  # noqa: N802
        """Return the topic name."""
        return self.topic

    def __getattr__(self, key: str) -> Any:
        """Return an attribute of the subscription."""
        if key == 'sub':
            raise AttributeError(key)
        return getattr(self.sub, key)


class Cache(SimpleFilter):
    """
    Stores the latest messages of a filter.

    Parameters
    ----------
    f
        Filter that provides the messages.
    cache_size
        Maximum number of messages.
    allow_headerless
        Whether messages without a stamp are stored with their time of reception.
    """

    def __init__(self, f: SimpleFilter, cache_size: int = 1, allow_headerless: bool = False):
        super().__init__()
        self.cache_size = cache_size
        self.allow_headerless = allow_headerless
        self.cache_msgs: list[Any] = []
        self.cache_times: list[Time] = []
        self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:  # noqa: N802
        """Connect the input to a filter."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Store and forward a message."""
        stamp = _stamp_of(msg, self.allow_headerless, 'message_filters_cache')
        if stamp is None:
            return
        self.cache_times.append(stamp)
        self.cache_msgs.append(msg)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0], self.cache_times[0]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list[Any]:  # noqa: N802
        """Return the messages of a closed time interval."""
        assert from_stamp <= to_stamp
        return [msg for msg, time in self._entries() if from_stamp <= time <= to_stamp]

    def getElemAfterTime(self, stamp: Time) -> Any:  # noqa: N802
        """Return the oldest message at or after a time, or None."""
        return next((msg for msg, time in self._entries() if time >= stamp), None)

    def getElemBeforeTime(self, stamp: Time) -> Any:  # noqa: N802
        """Return the newest message at or before a time, or None."""
        older = [msg for msg, time in self._entries() if time <= stamp]
        return older[-1] if older else None

    def getLastestTime(self) -> Time | None:  # noqa: N802
        """Return the time of the newest message, or None."""
        return self.cache_times[-1] if self.cache_times else None

    def getOldestTime(self) -> Time | None:  # noqa: N802
        """Return the time of the oldest message, or None."""
        return self.cache_times[0] if self.cache_times else None

    def getLast(self) -> Any:  # noqa: N802
        """Return the first message with the newest time, or None."""
        latest = self.getLastestTime()
        return None if latest is None else self.getElemAfterTime(latest)

    def _entries(self) -> list[tuple[Any, Time]]:
        return list(zip(self.cache_msgs, self.cache_times))


class TimeSynchronizer(SimpleFilter):
    """
    Synchronises messages with equal stamps.

    Parameters
    ----------
    fs
        Filters, one for each message of a set.
    queue_size
        Maximum number of queued messages per filter.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:  # noqa: N802
        """Connect the inputs to filters."""
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues))
        ]

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """Add a message, and forward the sets that it completes."""
        stamp = Time.from_msg(msg.header.stamp).nanoseconds
        with self.lock:
            self._enqueue(msg, stamp, my_queue)
            complete = set.intersection(*(set(queue) for queue in self.queues))
            sets = [[queue.pop(time) for queue in self.queues] for time in sorted(complete)]
        for messages in sets:
            self.signalMessage(*messages)

    def _enqueue(self, msg: Any, stamp: int, my_queue: dict[int, Any]) -> None:
        my_queue[stamp] = msg
        while len(my_queue) > self.queue_size:
            del my_queue[min(my_queue)]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """
    Synchronises messages with approximately equal stamps.

    Parameters
    ----------
    fs, queue_size
        See `TimeSynchronizer`.
    slop
        Maximum difference of the stamps of a set, in seconds.
    allow_headerless
        Whether messages without a stamp are used with their time of reception.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        allow_headerless: bool = False,
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """Add a message, and forward the set of nearest messages that it completes."""
        stamp = _stamp_of(msg, self.allow_headerless, 'message_filters_approx')
        if stamp is None:
            return
        with self.lock:
            self._enqueue(msg, stamp.nanoseconds, my_queue)
            messages = self._take_nearest(stamp.nanoseconds, my_queue_index)
        if messages:
            self.signalMessage(*messages)

    def _take_nearest(self, stamp: int, my_queue_index: int | None) -> list[Any]:
        slop = self.slop.nanoseconds
        candidates = [
            [stamp]
            if index == my_queue_index
            else sorted(
                (time for time in queue if abs(time - stamp) <= slop),
                key=lambda time: abs(time - stamp),
            )
            for index, queue in enumerate(self.queues)
        ]
        for times in itertools.product(*candidates):
            is_within_slop = max(times) - min(times) < slop
            if is_within_slop and all(time in q for time, q in zip(times, self.queues)):
                return [queue.pop(time) for queue, time in zip(self.queues, times)]
        return []


def _stamp_of(msg: Any, allow_headerless: bool, logger_name: str) -> Time | None:
    if hasattr(msg, 'header') and hasattr(msg.header, 'stamp'):
        stamp = msg.header.stamp
        return stamp if hasattr(stamp, 'nanoseconds') else Time.from_msg(stamp)
    if allow_headerless:
        return ROSClock().now()
    rclpy.logging.get_logger(logger_name).warning(
        'a message without a stamp was ignored; set allow_headerless to use its time of reception'
    )
    return None
