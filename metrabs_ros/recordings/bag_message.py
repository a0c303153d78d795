"""What bags consist of."""

from __future__ import annotations

from typing import Any, NamedTuple

RESULTS_SUFFIX = '_people'
"""What the name of results ends in, after that of the recording."""


class Topic(NamedTuple):
    """
    A topic of a bag.

    Parameters
    ----------
    name, msgtype
        For example ``/camera/image_raw`` and ``sensor_msgs/msg/Image``.
    definition
        The text of the message's definition as the bag has it; empty without one.
    digest
        Its hash, empty without one.
    qos
        The profiles that were offered, as the library for bags has them.
    """

    name: str
    msgtype: str
    definition: str = ''
    digest: str = ''
    qos: tuple[Any, ...] = ()


class BagMessage(NamedTuple):
    """A message: its topic, when it was recorded, and its data as ROS 2 serialises it (CDR)."""

    topic: Topic
    time_ns: int
    data: bytes | memoryview
