"""The kinds of messages that are written, however they are sent or kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]
"""Makes a message of some fields by name; the others are zero or empty."""


@dataclasses.dataclass(frozen=True)
class MessageTypes:
    """
    What makes each kind of message that people are told of with.

    The generated classes of a ROS install are such, and so is what a library for recordings makes
    of the same definitions.
    """

    Header: Make
    Point: Make
    Vector3: Make
    ColorRGBA: Make
    TransformStamped: Make
    Marker: Make
    MarkerArray: Make
    ImagePoint: Make
    Skeleton: Make
    SkeletonArray: Make
