"""The node's parameters, in one table: name, default, description, range."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidTopicNameException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_full_topic_name import validate_full_topic_name

from metrabs_ros.conversions.images import MAX_PIXELS
from metrabs_ros.foreign_text import printable

MAX_REASON_CHARS = 300
"""Characters of a value, or of the reason why it is not allowed, in an error message."""
TYPE_NAMES = {
    bool: 'true or false',
    int: 'an integer',
    float: 'a number',
    str: 'a string',
    list: 'a list of strings',
}
NAMESPACE = r'/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*'
LONGEST_CAMERA_TOPIC = 'pose/image_annotated'
"""The longest of the topics below a camera's namespace."""


def setting(
    default: Any,
    description: str,
    *,
    fixed: bool = False,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """
    Describe a parameter.

    Parameters
    ----------
    default
        Its value unless another is given; its type is the parameter's.
    description
        What it is for.
    fixed
        It cannot change while the node runs.
    low, high
        The smallest and the largest value, for numbers.
    choices
        The values that there are, for texts.
    """
    about = {
        'description': description,
        'fixed': fixed,
        'low': low,
        'high': high,
        'choices': choices,
    }
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All parameters of the node."""

    autostart: bool = setting(
        True, 'Configure and activate at the start, without being told to.', fixed=True
    )

    model: str = setting(
        'blazepose',
        'The pose network: blazepose, metrabs_s, metrabs_l or a folder with a checkpoint.',
        fixed=True,
    )
    engine: str = setting(
        'auto', 'What runs the network: auto, torch, tensorrt or openvino.', fixed=True
    )
    precision: str = setting('auto', 'Of the numbers in it: auto, fp32, fp16 or bf16.', fixed=True)
    device: str = setting('auto', 'Where it runs: auto, cpu, cuda or cuda:N.', fixed=True)
    threads: int = setting(
        0, 'How many threads it may use on the CPU; 0 for one a core.', fixed=True, low=0, high=256
    )
    detector: str = setting(
        'auto',
        'What finds people: auto, blazepose, onnx:FILE, ultralytics:NAME, or topic for '
        'vision_msgs/Detection2DArray on detections.',
        fixed=True,
    )
    detection_class: str = setting(
        '', "With detector topic: only detections of this class_id count; '' for all."
    )
    skeleton: str = setting('', "The convention of the joints; '' for all joints of the model.")
    num_aug: int = setting(
        1, 'How many crops of each person MeTRAbs looks at, to average over.', low=1, high=50
    )
    antialias_factor: int = setting(
        1, 'Crops are sampled so many times as large and averaged down.', low=1, high=8
    )
    internal_batch_size: int = setting(
        64, 'How many crops the network works on at once.', low=1, high=1024
    )
    detector_threshold: float = setting(
        0.0, 'The lowest score of a detection; 0 for what suits the detector.', low=0.0, high=1.0
    )
    detector_nms_iou_threshold: float = setting(
        0.7, 'Of boxes that overlap by more, one is left.', low=0.0, high=1.0
    )
    max_detections: int = setting(
        -1,
        'At most so many people; -1 for all, with detector topic for the 100 with the highest '
        'scores.',
        low=-1,
        high=1000,
    )
    suppress_implausible_poses: bool = setting(
        True, "Drop poses that no person can take, and the same person's second pose."
    )

    detect_interval: int = setting(
        0,
        'In how many frames new people are looked for everywhere, known ones by their own boxes; '
        '1 looks everywhere in each frame, 0 takes what suits the model.',
        low=0,
        high=1000,
    )
    max_lost: float = setting(
        1.0, 'How long people who are not seen are remembered, in seconds.', low=0.0, high=60.0
    )
    min_hits: int = setting(
        3, 'In how many frames somebody must have been seen to be published.', low=1, high=100
    )
    smoothing: float = setting(
        0.5,
        "How calm joints are; 0 leaves the network's poses as they are.",
        low=0.0,
        high=1.0,
    )
    predict_latency: bool = setting(
        False,
        'Publish people where they will be by now, with the present time for a stamp; needs a '
        'target_frame that does not move.',
    )

    cameras: tuple[str, ...] = setting(
        ('',),
        'Several cameras for one model, by their namespaces: topics are CAMERA/image, '
        "CAMERA/camera_info, CAMERA/pose/skeletons and so on; [''] for a single one without.",
        fixed=True,
    )
    image_transport: str = setting(
        'raw',
        'raw for sensor_msgs/Image on image, compressed for CompressedImage on image/compressed.',
        fixed=True,
        choices=('raw', 'compressed'),
    )
    max_image_pixels: int = setting(
        MAX_PIXELS,
        'Images with more pixels are dropped before they are decoded.',
        low=1,
        high=200_000_000,
    )
    rectified: str = setting(
        'auto',
        'Whether images are rectified, so that P holds; auto goes by P and a topic image_rect.',
        choices=('auto', 'true', 'false'),
    )
    default_fov_degrees: float = setting(
        0.0,
        'The field of view across the longer side of a camera without calibration; 0 refuses it.',
        low=0.0,
        high=179.0,
    )

    world_frame: str = setting(
        '', "A frame with z up (map, odom) that says which way is up; '' for the camera's own up."
    )
    target_frame: str = setting('', "The frame of all that is published; '' for the camera's own.")
    tf_timeout: float = setting(
        0.1, 'How long to wait for a transform, in seconds.', low=0.0, high=10.0
    )
    tf_fallback: str = setting(
        'camera',
        "Without a transform: camera takes the camera's up and frame, drop drops the frame.",
        choices=('camera', 'drop'),
    )

    tf: str = setting(
        'person',
        'Which frames to publish: none, person for one a person, joints for one a joint, too.',
        choices=('none', 'person', 'joints'),
    )
    tf_prefix: str = setting(
        '', "Comes before the names of people's frames; '' takes the node's namespace, if any."
    )


def declare(node: Node) -> Settings:
    """
    Declare all parameters.

    Raises
    ------
    ValueError
        If a given value is not allowed.
    """
    values = {}
    for field in dataclasses.fields(Settings):
        try:
            values[field.name] = _validate(field, _declare(node, field))
        except Exception as error:
            raise ValueError(f'wrong parameter: {printable(error, MAX_REASON_CHARS)}') from error
    found = Settings(**values)
    _check_topics(node, found.cameras)
    return found


def _declare(node: Node, field: dataclasses.Field[Any]) -> Any:
    """Declare a parameter, and return its value."""
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    try:
        return node.declare_parameter(field.name, default, _descriptor(field)).value
    except InvalidParameterTypeException as error:
        given = _given_value(node, field.name)
        value = _to_declared_type(field, given)
        if value is given:
            raise ValueError(
                f'{field.name} is {_quoted(given)}; it must be {TYPE_NAMES[type(default)]}, for '
                f'example {default!r}'
            ) from error
        parameter = node.declare_parameter(
            field.name, value, _descriptor(field), ignore_override=True
        )
        return parameter.value


def _given_value(node: Node, name: str) -> Any:
    """Return the value that a parameter was given at the start, of whatever type."""
    any_type = ParameterDescriptor(dynamic_typing=True)
    value = node.declare_parameter(name, None, any_type).value
    node.undeclare_parameter(name)
    return value


def convert_to_declared_types(parameters: Sequence[Parameter]) -> list[Parameter]:
    """
    Return parameters with values of the types that they are declared with.

    Integers become floating-point numbers (``ros2 param set`` makes an integer of 2), and booleans
    the words true and false, where such a parameter is declared.  Others stay as they are.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    return [
        Parameter(p.name, value=_to_declared_type(fields[p.name], p.value))
        if p.name in fields and p.type_ in (Parameter.Type.INTEGER, Parameter.Type.BOOL)
        else p
        for p in parameters
    ]


def _to_declared_type(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return a value as the declared type if nothing is lost by that, or else the value itself."""
    if isinstance(field.default, float) and type(value) is int:
        return float(value)
    # YAML takes the words true and false for booleans.
    if isinstance(value, bool) and str(value).lower() in field.metadata['choices']:
        return str(value).lower()
    return value


def with_changes(settings: Settings, parameters: list[Parameter]) -> Settings:
    """
    Return the settings with some parameters changed; those that are not the node's are ignored.

    Raises
    ------
    ValueError
        If a value is not allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    # rclpy takes the empty name for a declared one.
    if not all(p.name for p in parameters):
        raise ValueError('a parameter without a name cannot be set')
    ours = {p.name: p.value for p in parameters if p.name in fields}
    ours = {name: _validate(fields[name], value) for name, value in ours.items()}
    return dataclasses.replace(settings, **ours)


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    about = field.metadata
    descriptor = ParameterDescriptor(description=about['description'], read_only=about['fixed'])
    if about['choices']:
        descriptor.additional_constraints = f'one of {", ".join(about["choices"])}'
    if about['low'] is not None:
        bounds = {'from_value': about['low'], 'to_value': about['high']}
        if isinstance(field.default, int):
            descriptor.integer_range = [IntegerRange(step=1, **bounds)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(step=0.0, **bounds)]
    return descriptor


def _validate(field: dataclasses.Field[Any], value: Any) -> Any:
    value = _to_declared_type(field, value)
    choices = field.metadata['choices']
    if choices and value not in choices:
        raise ValueError(f'{field.name} is {_quoted(value)}; it must be one of {choices}')
    if isinstance(field.default, tuple):
        value = _validate_camera_names(field.name, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{field.name} is {value}; it must be a finite number')
    return value


def _validate_camera_names(parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) != len(names) or not names:
        raise ValueError(f'{parameter} is {_quoted(list(names))}; it must name each camera once')
    for name in names:
        if list(names) != [''] and not re.fullmatch(NAMESPACE, name):
            raise ValueError(
                f'{parameter} has {_quoted(name)}; a namespace consists of letters, digits, _ and '
                'single /, does not end with /, and none of its parts begins with a digit'
            )
    return tuple(names)


def _check_topics(node: Node, cameras: Sequence[str]) -> None:
    """
    Raise an error unless cameras have topics of their own.

    Raises
    ------
    ValueError
        If topics of two cameras have the same name, or a name is too long.
    """
    topics = [
        f'{name}/{LONGEST_CAMERA_TOPIC}'.removeprefix('' if name else '/') for name in cameras
    ]
    names = [node.resolve_topic_name(topic, only_expand=True) for topic in topics]
    if len(set(names)) != len(names):
        raise ValueError(
            f'wrong parameter: cameras is {_quoted(list(cameras))}, which names a camera twice in '
            f'the namespace {node.get_namespace()}'
        )
    for name in names:
        try:
            validate_full_topic_name(name)
        except InvalidTopicNameException as error:
            reason = printable(' '.join(str(error).split()), MAX_REASON_CHARS)
            raise ValueError(f'wrong parameter: cameras: {reason}') from error


def _quoted(value: Any) -> str:
    return printable(repr(value), MAX_REASON_CHARS)
