"""The kinds of messages that are written into bags, from the definitions of this package."""

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
from metrabs_ros.recordings.bag_message import Topic

DEFINITIONS = pathlib.Path(__file__).parent / 'msg'
SKELETONS, MARKERS = 'metrabs_ros/msg/SkeletonArray', 'visualization_msgs/msg/MarkerArray'
TRANSFORMS, CAMERA_INFO = 'tf2_msgs/msg/TFMessage', 'sensor_msgs/msg/CameraInfo'
IDL_SEPARATOR = f'{"=" * 80}\n'
IDL_START = f'{IDL_SEPARATOR}IDL: '
"""What the text of a definition begins with that is not in the language of .msg files."""
# What is not closed extends to the end: looking for it again and again would take long.
_IDL_TEXT = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_IDL_ANNOTATION = re.compile(r'@\w+\s*\([^()]*\)')
IMAGE, COMPRESSED_IMAGE = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


@functools.cache
def typestore() -> Typestore:
    """Return ROS 2's standard messages and this package's own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: Any = {}
    for file in sorted(DEFINITIONS.glob('*.msg')):
        name = f'metrabs_ros/msg/{file.stem}'
        types |= get_types_from_msg(file.read_text(encoding='utf-8'), name)
    store.register(types)
    return store


@functools.cache
def message_types() -> MessageTypes:
    """Return what makes the messages that people are told of with."""
    return MessageTypes(
        Header=maker('std_msgs/msg/Header'),
        Point=maker('geometry_msgs/msg/Point'),
        Vector3=maker('geometry_msgs/msg/Vector3'),
        ColorRGBA=maker('std_msgs/msg/ColorRGBA'),
        TransformStamped=maker('geometry_msgs/msg/TransformStamped'),
        Marker=maker('visualization_msgs/msg/Marker'),
        MarkerArray=maker(MARKERS),
        ImagePoint=maker('metrabs_ros/msg/ImagePoint'),
        Skeleton=maker('metrabs_ros/msg/Skeleton'),
        SkeletonArray=maker(SKELETONS),
    )


@functools.cache
def maker(msgtype: str) -> MessageConstructor:
    """Return what makes messages of a type; fields that are not given are zero or empty."""
    store = typestore()
    kind = store.types[msgtype]
    fields = dict(store.fielddefs[msgtype][1])
    if all(node == Nodetype.BASE for node, _ in fields.values()):
        zeros = {name: _zero(description) for name, description in fields.items()}
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
                given[name] = _zero(description)
        return kind(**given)

    return make


def _dtype(description: Any) -> np.dtype[Any] | None:
    """Return the type of the numbers in a field that is an array of numbers."""
    node, detail = description
    if node not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return None
    (element, (name, *_)), _ = detail
    if element != Nodetype.BASE or name == 'string':
        return None
    return np.dtype({'char': 'uint8', 'byte': 'uint8'}.get(name, name))


def _zero(description: Any) -> Any:
    """Return what a field is that was not given."""
    node, detail = description
    if node == Nodetype.BASE:
        return {'string': '', 'bool': False}.get(detail[0], 0)
    if node == Nodetype.NAME:
        return maker(detail)()
    length = detail[1] if node == Nodetype.ARRAY else 0
    dtype = _dtype(description)
    if dtype is not None:
        return np.zeros(length, dtype)
    return [_zero(detail[0]) for _ in range(length)]


def types_of(topic: Topic) -> Typesdict | None:
    """Return what a recording says that messages are made of, if it says so and makes sense."""
    store = store_of(topic.msgtype, topic.definition)
    return None if store is None else store.fielddefs


@functools.lru_cache(maxsize=1000)
def store_of(msgtype: str, definition: str) -> Typestore | None:
    """Return the types of a definition; None if there is none or it makes no sense."""
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
    except Exception:  # A text that is no definition makes the parser fail in many ways.
        return None
    return store


def _has_expressions(definition: str) -> bool:
    """
    Tell whether a definition in IDL has expressions in parentheses or shifts.

    ROS writes none, and the parser takes exponentially long for each pair of parentheses, and as
    much memory as a shift asks for.
    """
    if not definition.startswith(IDL_START):
        return False
    code = _IDL_ANNOTATION.sub('', _IDL_TEXT.sub('', definition))
    return '(' in code or '<<' in code
