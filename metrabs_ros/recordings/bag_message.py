"""Topics and messages of bags."""

from __future__ import annotations

from typing import Any, NamedTuple

RESULTS_SUFFIX = '_people'
"""Suffix that is appended to the name of a recording for the name of its results."""


class Topic(NamedTuple):
    """
    A topic of a bag.

    Parameters
    ----------
    name, msgtype
        Names of the topic and its type, such as ``/camera/image_raw`` and
        ``sensor_msgs/msg/Image``.
    definition
        Message definition in the bag; empty if the bag has none.
    qos
        Offered QoS profiles, as represented by rosbags.
    """

    name: str
    msgtype: str
    definition: str = ''
    qos: tuple[Any, ...] = ()


class BagMessage(NamedTuple):
    """A message of a bag: topic, time of recording in nanoseconds, and data in CDR."""

    topic: Topic
    time_ns: int
    data: bytes | memoryview
