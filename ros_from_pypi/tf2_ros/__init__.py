"""Replacement for tf2_ros: transforms over ROS topics."""

from tf2_py import *  # noqa: F403

from .buffer import Buffer
from .buffer_client import BufferClient
from .buffer_interface import (
    BufferInterface,
    ConvertRegistration,
    NotImplementedException,
    Stamped,
    TransformRegistration,
    TypeException,
    convert,
)
from .static_transform_broadcaster import StaticTransformBroadcaster
from .transform_broadcaster import TransformBroadcaster
from .transform_listener import TransformListener

__all__ = [
    'Buffer',
    'BufferClient',
    'BufferInterface',
    'ConnectivityException',  # noqa: F405
    'ConvertRegistration',
    'ExtrapolationException',  # noqa: F405
    'InvalidArgumentException',  # noqa: F405
    'LookupException',  # noqa: F405
    'NotImplementedException',
    'Stamped',
    'StaticTransformBroadcaster',
    'TimeoutException',  # noqa: F405
    'TransformBroadcaster',
    'TransformException',  # noqa: F405
    'TransformListener',
    'TransformRegistration',
    'TypeException',
    'convert',
]
