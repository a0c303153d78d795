"""Parameters of the pose node: name, default, description and range."""

from __future__ import annotations

import dataclasses

from metrabs_ros.conversions.images import MAX_PIXELS
from metrabs_ros.node.parameters import setting
from metrabs_ros.options import MAX_STATURE_MM, MIN_STATURE_MM

LONGEST_CAMERA_TOPIC = 'depth/compressedDepth'
"""Longest topic name within the namespace of a camera."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Values of all parameters of the node."""

    autostart: bool = setting(
        True, 'Configure and activate the node automatically at startup.', fixed=True
    )

    model: str = setting(
        'blazepose',
        'Pose network: blazepose, blazepose_lite, blazepose_heavy, metrabs_s, metrabs_l, nlf_s, '
        'nlf_l or a checkpoint.',
        fixed=True,
    )
    engine: str = setting(
        'auto', 'Inference engine: auto, torch, tensorrt, tensorrt_rtx or openvino.', fixed=True
    )
    engine_file: str = setting(
        '',
        'Plan of a network that trtexec built from the file of metrabs_ros export; '
        "'': build the engine.",
        fixed=True,
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
    skeleton_file: str = setting(
        '',
        "File of skeleton definitions, whose names skeleton accepts; '': those of the model only.",
        fixed=True,
    )
    num_aug: int = setting(
        1, 'Number of augmented crops per person that MeTRAbs and NLF combine.', low=1, high=50
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
        '',
        "Prefix of the published TF frames, before the names of several cameras; '': namespace of "
        'the node, if any.',
    )
    hri: bool = setting(
        False,
        'Publish people as ROS4HRI bodies below /humans/bodies (REP 155); requires hri_msgs and '
        'urdf_parser_py.',
        fixed=True,
    )
    hri_tf: bool = setting(
        False, 'With hri: publish the TF frames of all links of the bodies, not only body_<id>.'
    )
