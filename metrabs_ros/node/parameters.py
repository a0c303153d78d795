"""Parameters of the pose node: name, default, description and range."""

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
from metrabs_ros.options import MAX_STATURE_MM, MIN_STATURE_MM

MAX_REASON_CHARS = 300
"""Maximum length of a value or of a reason in an error message, in characters."""
TYPE_NAMES = {
    bool: 'true or false',
    int: 'an integer',
    float: 'a number',
    str: 'a string',
    list: 'a list of strings',
}
NAMESPACE = r'/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*'
LONGEST_CAMERA_TOPIC = 'depth/compressedDepth'
"""Longest topic name within the namespace of a camera."""


def setting(
    default: Any,
    description: str,
    *,
    fixed: bool = False,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    low_unless_zero: float | None = None,
) -> Any:
    """
    Define a parameter.

    Parameters
    ----------
    default
        Default value; its type is the type of the parameter.
    description
        Description of the parameter.
    fixed
        Whether the parameter is read-only after the start.
    low, high
        Minimum and maximum of a number.
    choices
        Allowed values of a string.
    low_unless_zero
        Minimum of a number for which 0 means that it is unknown.
    """
    about = {
        'description': description,
        'fixed': fixed,
        'low': low,
        'high': high,
        'choices': choices,
        'low_unless_zero': low_unless_zero,
    }
    return dataclasses.field(default=default, metadata=about)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Values of all parameters of the node."""

    autostart: bool = setting(
        True, 'Configure and activate the node automatically at startup.', fixed=True
    )

    model: str = setting(
        'blazepose',
        'Pose network: blazepose, blazepose_lite, blazepose_heavy, metrabs_s, metrabs_l or a '
        'checkpoint folder.',
        fixed=True,
    )
    engine: str = setting(
        'auto', 'Inference engine: auto, torch, tensorrt or openvino.', fixed=True
    )
    precision: str = setting(
        'auto', 'Numerical precision of the network: auto, fp32, fp16 or bf16.', fixed=True
    )
    device: str = setting(
        'auto', 'Device that runs the network: auto, cpu, cuda or cuda:N.', fixed=True
    )
    threads: int = setting(
        0,
        'Number of CPU threads of each network; 0: one per core. In streams, BlazePose and '
        'MoveNet run in parallel.',
        fixed=True,
        low=0,
        high=256,
    )
    detector: str = setting(
        'auto',
        'Person detector: auto, movenet, onnx:FILE, ultralytics:NAME, or topic for '
        'vision_msgs/Detection2DArray on detections.',
        fixed=True,
    )
    detection_class: str = setting(
        '', "With detector topic: use only detections with this class_id; '': all detections."
    )
    skeleton: str = setting(
        '', "Skeleton convention of the published joints; '': all joints of the model."
    )
    num_aug: int = setting(
        1, 'Number of augmented crops per person that MeTRAbs averages.', low=1, high=50
    )
    antialias_factor: int = setting(
        1, 'Supersampling factor of the crops, for anti-aliasing.', low=1, high=8
    )
    internal_batch_size: int = setting(
        64, 'Maximum number of crops in one batch of the network.', low=1, high=1024
    )
    detector_threshold: float = setting(
        0.0, 'Minimum score of detections; 0: default of the detector.', low=0.0, high=1.0
    )
    detector_nms_iou_threshold: float = setting(
        0.7, 'IoU threshold of non-maximum suppression.', low=0.0, high=1.0
    )
    max_detections: int = setting(
        -1,
        'Maximum number of people per image (highest scores); -1: no limit, or 100 with detector '
        'topic.',
        low=-1,
        high=1000,
    )
    suppress_implausible_poses: bool = setting(
        True, 'Drop anatomically implausible poses and duplicate poses of one person.'
    )

    detect_interval: int = setting(
        0,
        'Run full-image detection every N frames. 0: model default (BlazePose: new people within '
        '0.3 s).',
        low=0,
        high=1000,
    )
    max_lost: float = setting(
        1.0,
        'Time after the last detection at which a track is deleted, in seconds.',
        low=0.0,
        high=60.0,
    )
    min_hits: int = setting(
        3, 'Number of detections after which a track is confirmed and published.', low=1, high=100
    )
    smoothing: float = setting(
        0.5,
        'Strength of the temporal filter of the joints; 0: no filter.',
        low=0.0,
        high=1.0,
    )
    predict_latency: bool = setting(
        False,
        'Extrapolate people to the current time and use it as the stamp; requires a static '
        'target_frame.',
    )

    cameras: tuple[str, ...] = setting(
        ('',),
        'Namespaces of several cameras that share one model (topics: CAMERA/image etc.); '
        "['']: one camera without namespace.",
        fixed=True,
    )
    image_transport: str = setting(
        'raw',
        'raw: sensor_msgs/Image on image; compressed: sensor_msgs/CompressedImage on '
        'image/compressed.',
        fixed=True,
        choices=('raw', 'compressed'),
    )
    depth_transport: str = setting(
        '',
        "Transport of registered depth images on the topic depth; '': none.",
        fixed=True,
        choices=('', 'raw', 'compressedDepth'),
    )
    max_image_pixels: int = setting(
        MAX_PIXELS,
        'Maximum number of pixels; larger images are dropped before they are decoded.',
        low=1,
        high=200_000_000,
    )
    rectified: str = setting(
        'auto',
        'Whether images are rectified (P of camera_info applies). auto: true for topics named '
        'image_rect.',
        choices=('auto', 'true', 'false'),
    )
    default_fov_degrees: float = setting(
        0.0,
        'Field of view across the longer image side of uncalibrated cameras, in degrees; '
        '0: drop the images.',
        low=0.0,
        high=179.0,
    )

    world_frame: str = setting(
        '',
        'Frame with the z axis pointing up, such as map or odom. If it is empty, the camera is '
        'assumed to be level.',
    )
    target_frame: str = setting('', "Frame of the published messages; '': camera frame.")
    tf_timeout: float = setting(0.1, 'Timeout for transforms, in seconds.', low=0.0, high=10.0)
    tf_fallback: str = setting(
        'camera',
        "Behaviour without a transform. camera: use the camera's up direction and frame; "
        'drop: drop the image.',
        choices=('camera', 'drop'),
    )

    ground_frame: str = setting(
        '',
        "Frame with the z axis pointing up, for the floor as a scale of people; '': not used.",
    )
    ground_height: float = setting(
        0.0, 'Height of the floor in ground_frame, in metres.', low=-10_000.0, high=10_000.0
    )
    stature: float = setting(
        0.0,
        f'Stature of all people, at least {MIN_STATURE_MM / 1000:g}, in metres; 0: unknown.',
        low=0.0,
        high=MAX_STATURE_MM / 1000,
        low_unless_zero=MIN_STATURE_MM / 1000,
    )

    tf: str = setting(
        'person',
        'Published TF frames. person: one frame per person; joints: additionally one frame per '
        'joint.',
        choices=('none', 'person', 'joints'),
    )
    tf_prefix: str = setting(
        '', "Prefix of the published TF frames; '': namespace of the node, if any."
    )


def declare(node: Node) -> Settings:
    """
    Declare all parameters and return their values.

    Raises
    ------
    ValueError
        If a given value is invalid.
    """
    values = {}
    for field in dataclasses.fields(Settings):
        try:
            values[field.name] = _validate(field, _declare(node, field))
        except Exception as error:
            raise ValueError(f'invalid parameter: {printable(error, MAX_REASON_CHARS)}') from error
    settings = Settings(**values)
    _check_topics(node, settings.cameras)
    return settings


def _declare(node: Node, field: dataclasses.Field[Any]) -> Any:
    """Declare a parameter and return its value."""
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
    """Return the value of any type that was given for a parameter at startup."""
    any_type = ParameterDescriptor(dynamic_typing=True)
    value = node.declare_parameter(name, None, any_type).value
    node.undeclare_parameter(name)
    return value


def convert_to_declared_types(parameters: Sequence[Parameter]) -> list[Parameter]:
    """
    Convert parameter values to the declared types where this is possible without loss.

    Integers are converted to floating-point numbers (``ros2 param set`` parses 2 as an integer),
    and booleans to the strings true and false.  Other values are returned unchanged.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    return [
        Parameter(p.name, value=_to_declared_type(fields[p.name], p.value))
        if p.name in fields and p.type_ in (Parameter.Type.INTEGER, Parameter.Type.BOOL)
        else p
        for p in parameters
    ]


def _to_declared_type(field: dataclasses.Field[Any], value: Any) -> Any:
    """Convert a value to the declared type if this is possible without loss."""
    if isinstance(field.default, float) and type(value) is int:
        return float(value)
    # YAML parses the words true and false as booleans.
    if isinstance(value, bool) and str(value).lower() in field.metadata['choices']:
        return str(value).lower()
    return value


def with_changes(settings: Settings, parameters: list[Parameter]) -> Settings:
    """
    Return the settings with some parameters changed; unknown parameters are ignored.

    Raises
    ------
    ValueError
        If a value is invalid.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    # rclpy treats the empty name as a declared parameter.
    if not all(p.name for p in parameters):
        raise ValueError('a parameter has an empty name; give each parameter a name')
    ours = {p.name: p.value for p in parameters if p.name in fields}
    ours = {name: _validate(fields[name], value) for name, value in ours.items()}
    return dataclasses.replace(settings, **ours)


def _descriptor(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    about = field.metadata
    descriptor = ParameterDescriptor(description=about['description'], read_only=about['fixed'])
    if about['choices']:
        choices = ', '.join(choice or "''" for choice in about['choices'])
        descriptor.additional_constraints = f'one of {choices}'
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
    low = field.metadata['low_unless_zero']
    if low is not None and value != 0 and value < low:
        raise ValueError(f'{field.name} is {value:g}; it must be 0 or at least {low:g}')
    return value


def _validate_camera_names(parameter: str, names: Sequence[str]) -> tuple[str, ...]:
    if len(set(names)) != len(names) or not names:
        raise ValueError(
            f'{parameter} is {_quoted(list(names))}; it must name each camera exactly once'
        )
    for name in names:
        if list(names) != [''] and not re.fullmatch(NAMESPACE, name):
            raise ValueError(
                f'{parameter} has {_quoted(name)}; a namespace consists of letters, digits, _ and '
                'single /, does not end with /, and no part starts with a digit'
            )
    return tuple(names)


def _check_topics(node: Node, cameras: Sequence[str]) -> None:
    """
    Check that the topic names of all cameras are valid and different.

    Raises
    ------
    ValueError
        If topics of two cameras have the same name, or if a name is too long.
    """
    topics = [
        f'{name}/{LONGEST_CAMERA_TOPIC}'.removeprefix('' if name else '/') for name in cameras
    ]
    names = [node.resolve_topic_name(topic, only_expand=True) for topic in topics]
    if len(set(names)) != len(names):
        raise ValueError(
            f'invalid parameter: cameras is {_quoted(list(cameras))}, which names a camera twice '
            f'in the namespace {node.get_namespace()}'
        )
    for name in names:
        try:
            validate_full_topic_name(name)
        except InvalidTopicNameException as error:
            reason = printable(' '.join(str(error).split()), MAX_REASON_CHARS)
            raise ValueError(f'invalid parameter: cameras: {reason}') from error


def _quoted(value: Any) -> str:
    return printable(repr(value), MAX_REASON_CHARS)
