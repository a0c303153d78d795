"""Message types of recordings, from the definitions of ROS 2 and of this package."""

from __future__ import annotations

import functools
import pathlib
import re
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from metrabs_ros.conversions.message_types import MessageConstructor, MessageTypes
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.recordings.bag_message import BagMessage, Topic

DEFINITIONS = pathlib.Path(__file__).parent / 'msg'
SKELETONS, MARKERS = 'metrabs_ros/msg/SkeletonArray', 'visualization_msgs/msg/MarkerArray'
TRANSFORMS, CAMERA_INFO = 'tf2_msgs/msg/TFMessage', 'sensor_msgs/msg/CameraInfo'
IDL_SEPARATOR = f'{"=" * 80}\n'
IDL_START = f'{IDL_SEPARATOR}IDL: '
"""First characters of a message definition in IDL rather than in the .msg format."""
# Unterminated strings and comments extend to the end; this keeps the search linear.
_IDL_TEXT = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_IDL_ANNOTATION = re.compile(r'@\w+\s*\([^()]*\)')
IMAGE, COMPRESSED_IMAGE = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@functools.cache
def typestore() -> Typestore:
    """Return the standard message types of ROS 2 and those of this package."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: Any = {}
    for file in sorted(DEFINITIONS.glob('*.msg')):
        name = f'metrabs_ros/msg/{file.stem}'
        types |= get_types_from_msg(file.read_text(encoding='utf-8'), name)
    store.register(types)
    return store


@functools.cache
def message_types() -> MessageTypes:
    """Return factories for the messages that contain people."""
    return MessageTypes(
        Header=message_factory('std_msgs/msg/Header'),
        Point=message_factory('geometry_msgs/msg/Point'),
        Vector3=message_factory('geometry_msgs/msg/Vector3'),
        ColorRGBA=message_factory('std_msgs/msg/ColorRGBA'),
        TransformStamped=message_factory('geometry_msgs/msg/TransformStamped'),
        Marker=message_factory('visualization_msgs/msg/Marker'),
        MarkerArray=message_factory(MARKERS),
        ImagePoint=message_factory('metrabs_ros/msg/ImagePoint'),
        Skeleton=message_factory('metrabs_ros/msg/Skeleton'),
        SkeletonArray=message_factory(SKELETONS),
    )


@functools.cache
def message_factory(msgtype: str) -> MessageConstructor:
    """Return a factory for messages of a type; omitted fields are zero or empty."""
    store = typestore()
    kind = store.types[msgtype]
    fields = dict(store.fielddefs[msgtype][1])
    if all(node == Nodetype.BASE for node, _ in fields.values()):
        zeros = {name: _default_value(description) for name, description in fields.items()}
        return lambda **given: kind(**zeros | given) if len(given) < len(zeros) else kind(**given)
    dtypes = {
        name: dtype for name, description in fields.items() if (dtype := _dtype(description))
    }

    def make(**given: Any) -> Any:
        for name, dtype in dtypes.items():
            if name in given:
                given[name] = np.asarray(given[name], dtype)
        for name, description in fields.items():
            if name not in given:
                given[name] = _default_value(description)
        return kind(**given)

    return make


def header_at(stamp_ns: int, frame_id: str) -> Any:
    """Return a std_msgs/Header with a stamp in nanoseconds and a frame."""
    sec, nanosec = divmod(stamp_ns, NS_PER_S)
    stamp = message_factory('builtin_interfaces/msg/Time')(sec=sec, nanosec=nanosec)
    return message_factory('std_msgs/msg/Header')(stamp=stamp, frame_id=frame_id)


def _dtype(description: Any) -> np.dtype[Any] | None:
    """Return the element type of an array of numbers; None for other fields."""
    node, detail = description
    if node not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return None
    (element, (name, *_)), _ = detail
    if element != Nodetype.BASE or name == 'string':
        return None
    return np.dtype({'char': 'uint8', 'byte': 'uint8'}.get(name, name))


def _default_value(description: Any) -> Any:
    """Return the default value of a field."""
    node, detail = description
    if node == Nodetype.BASE:
        return {'string': '', 'bool': False}.get(detail[0], 0)
    if node == Nodetype.NAME:
        return message_factory(detail)()
    length = detail[1] if node == Nodetype.ARRAY else 0
    dtype = _dtype(description)
    if dtype is not None:
        return np.zeros(length, dtype)
    return [_default_value(detail[0]) for _ in range(length)]


def field_types(topic: Topic) -> Typesdict | None:
    """Return the field types of a topic's messages; None without a valid definition."""
    store = typestore_of(topic.msgtype, topic.definition)
    return None if store is None else store.fielddefs


@functools.lru_cache(maxsize=1000)
def typestore_of(msgtype: str, definition: str) -> Typestore | None:
    """Return the types of a message definition; None if it is empty or invalid."""
    if not definition or _has_expressions(definition):
        return None
    try:
        if not definition.startswith(IDL_START):
            types = get_types_from_msg(definition, msgtype)
        else:
            types = {}
            for part in definition.split(IDL_SEPARATOR)[1:]:
                types.update(get_types_from_idl(part.partition('\n')[2]))
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        store.hash_rihs01(msgtype)
    except Exception:  # An invalid definition can raise any exception in the parser.
        return None
    return store


def deserialize(message: BagMessage) -> Any:
    """
    Return a message of a bag; None if its data is invalid.

    The definition of ROS is used: definitions in bags can be wrong, and those of the messages
    that are read here do not change.
    """
    try:
        return typestore().deserialize_cdr(message.data, message.topic.msgtype)
    except Exception:  # Invalid data can raise any exception in the library.
        return None


def _has_expressions(definition: str) -> bool:
    """
    Return whether a definition in IDL contains parentheses or shift operators.

    ROS does not generate them.  The time of the parser is exponential in the number of nested
    parentheses, and a shift allocates as much memory as its value needs.
    """
    if not definition.startswith(IDL_START):
        return False
    code = _IDL_ANNOTATION.sub('', _IDL_TEXT.sub('', definition))
    return '(' in code or '<<' in code
