"""Message types that the conversions create, for publishers and for recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

MessageConstructor = Callable[..., Any]
"""Constructor of a message with fields as keyword arguments; other fields are zero or empty."""


@dataclasses.dataclass(frozen=True)
class MessageTypes:
    """
    Constructors of the message types.

    They are the generated classes of a ROS installation, or those that a library for recordings
    creates from the same message definitions.
    """

    Header: MessageConstructor
    Point: MessageConstructor
    Vector3: MessageConstructor
    ColorRGBA: MessageConstructor
    TransformStamped: MessageConstructor
    Marker: MessageConstructor
    MarkerArray: MessageConstructor
    ImagePoint: MessageConstructor
    Skeleton: MessageConstructor
    SkeletonArray: MessageConstructor


@dataclasses.dataclass(frozen=True)
class HriMessageTypes:
    """Constructors of the message types of ROS4HRI bodies, and of those that they contain."""

    Header: MessageConstructor
    IdsList: MessageConstructor
    NormalizedPointOfInterest2D: MessageConstructor
    NormalizedRegionOfInterest2D: MessageConstructor
    Skeleton2D: MessageConstructor
    BodyPosture: MessageConstructor
    JointState: MessageConstructor
    PointStamped: MessageConstructor
    TwistStamped: MessageConstructor
    String: MessageConstructor
    TransformStamped: MessageConstructor
