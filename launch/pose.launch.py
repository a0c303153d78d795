"""Start the pose node for one or several cameras, and optionally RViz and the browser view."""

from launch.actions import OpaqueFunction
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription
from metrabs_ros.node.launch_arguments import (
    camera_names,
    declared,
    given_parameters,
    given_values,
    is_true,
)

SHARE = FindPackageShare('metrabs_ros')
RESPAWN_DELAY_S = 5.0

ARGUMENTS = {
    'camera': (
        '',
        'Namespace of a camera, for example /camera/color; its topics are image_raw and '
        'camera_info.',
    ),
    'cameras': (
        '',
        'Comma-separated namespaces of several cameras that share one model; front,rear/left '
        'subscribes to front/image_raw, front/camera_info, rear/left/image_raw etc.',
    ),
    'image': ('', 'Image topic; by default image, or image_raw in the namespace camera.'),
    'camera_info': (
        '',
        'Calibration topic; by default camera_info, or camera_info in the namespace camera.',
    ),
    'depth': (
        '',
        'Depth image topic, registered to the camera; its camera_info is in the same namespace. '
        'With cameras, relative to each of them. It sets depth_transport to raw by default.',
    ),
    'detections': ('detections', 'Topic of the person boxes, used with detector:=topic.'),
    'fuse': (
        'false',
        'Whether to start the fusion node for cameras, which publishes each person once, in '
        'fixed_frame. The pose node then does not publish TF frames of people.',
    ),
    'fixed_frame': ('map', 'Frame of the fused people, with the z axis pointing up.'),
    'namespace': ('', 'Namespace of the nodes.'),
    'params_file': (PathJoinSubstitution([SHARE, 'config', 'pose.yaml']), 'Parameter file.'),
    'rviz': ('false', 'Whether to start RViz.'),
    'view': ('false', 'Whether to start the browser view, which logs its address.'),
    'view_host': (
        '127.0.0.1',
        'Address of the browser view; 0.0.0.0 allows access from other machines.',
    ),
    'respawn': (
        'true',
        'Whether to restart the pose node if it ends, for example after a deadlock of the '
        'middleware.',
    ),
    'log_level': ('info', 'Log level: debug, info, warn, error or fatal.'),
}
PARAMETERS = {
    'image_transport': (str, 'raw, or compressed for images on <image>/compressed.'),
    'depth_transport': (str, 'raw, or compressedDepth for images on <depth>/compressedDepth.'),
    'model': (
        str,
        'Pose network: blazepose, blazepose_lite, blazepose_heavy, metrabs_s, metrabs_l, nlf_s, '
        'nlf_l or a checkpoint.',
    ),
    'engine': (str, 'Inference engine: auto, torch, tensorrt, tensorrt_rtx or openvino.'),
    'detector': (str, 'Person detector: auto, movenet, onnx:FILE, ultralytics:NAME or topic.'),
    'skeleton': (str, 'Skeleton convention of the published joints.'),
    'num_aug': (int, 'Number of augmented crops per person that MeTRAbs and NLF combine.'),
    'target_frame': (str, 'Frame of the published messages.'),
    'world_frame': (str, 'Frame with the z axis pointing up.'),
    'ground_frame': (str, 'Frame with the z axis pointing up, for the height of the floor.'),
    'ground_height': (float, 'Height of the floor in ground_frame, in metres.'),
    'stature': (float, 'Stature of all people, in metres.'),
    'hri': (
        bool,
        'Publish people as ROS4HRI bodies below /humans/bodies; with fuse, the fusion node does.',
    ),
    'hri_tf': (bool, 'With hri: publish the TF frames of all links of the bodies.'),
    'autostart': (bool, 'Configure and activate the node automatically at startup.'),
    'use_sim_time': (bool, 'Use the time of /clock.'),
}
"""Arguments that override parameters of params_file."""


def generate_launch_description() -> LaunchDescription:
    """Return the launch description of the pose node."""
    return LaunchDescription([*declared(ARGUMENTS, PARAMETERS), OpaqueFunction(function=start)])


def start(context):
    """Return the nodes to start for the given arguments."""
    given = given_values(context, (*ARGUMENTS, *PARAMETERS))
    camera = given['camera'].rstrip('/')
    image = given['image'] or (f'{camera}/image_raw' if camera else 'image')
    camera_info = given['camera_info'] or (f'{camera}/camera_info' if camera else 'camera_info')
    parameters = given_parameters(given, PARAMETERS)
    if given['depth']:
        parameters.setdefault('depth_transport', 'raw')
    names = camera_names(given['cameras'])
    if names:
        parameters['cameras'] = names
    fuse = is_true(given, 'fuse')
    if fuse:
        if len(names) < 2:
            raise ValueError(
                f"fuse is true, but cameras is '{given['cameras']}'; it must name two or more "
                'cameras, for example cameras:=front,rear'
            )
        parameters['tf'] = 'none'
        # The fusion node publishes the bodies instead, so that each person has one.
        bodies = {name: parameters.pop(name) for name in ('hri', 'hri_tf') if name in parameters}
        parameters['hri'] = False
    remappings = [
        ('image', image),
        ('image/compressed', f'{image}/compressed'),
        ('camera_info', camera_info),
        *(pair for name in names for pair in camera_remappings(name)),
        *(
            pair
            for prefix in ([f'{name}/' for name in names] or [''])
            for pair in depth_remappings(prefix, given['depth'])
        ),
    ]
    nodes = [
        Node(
            package='metrabs_ros',
            executable='pose_node',
            name='pose',
            namespace=given['namespace'],
            parameters=[given['params_file'], parameters],
            remappings=[*remappings, ('detections', given['detections'])],
            arguments=['--ros-args', '--log-level', given['log_level']],
            output='screen',
            respawn=is_true(given, 'respawn'),
            respawn_delay=RESPAWN_DELAY_S,
        )
    ]
    if fuse:
        nodes.append(
            Node(
                package='metrabs_ros',
                executable='fusion_node',
                name='fusion',
                namespace=given['namespace'],
                parameters=[
                    PathJoinSubstitution([SHARE, 'config', 'fusion.yaml']).perform(context),
                    {
                        'cameras': names,
                        'fixed_frame': given['fixed_frame'],
                        'use_sim_time': parameters.get('use_sim_time', False),
                        **bodies,
                    },
                ],
                arguments=['--ros-args', '--log-level', given['log_level']],
                output='screen',
                respawn=is_true(given, 'respawn'),
                respawn_delay=RESPAWN_DELAY_S,
            )
        )
    if is_true(given, 'rviz'):
        frame = given['fixed_frame'] if fuse else given['target_frame']
        config = 'fusion.rviz' if fuse else 'pose.rviz'
        nodes.append(
            Node(
                package='rviz2',
                executable='rviz2',
                name='rviz',
                namespace=given['namespace'],
                arguments=[
                    *('-d', PathJoinSubstitution([SHARE, 'config', config]).perform(context)),
                    *(['-f', frame] if frame else []),
                ],
                parameters=[{'use_sim_time': parameters.get('use_sim_time', False)}],
                remappings=[('image', image), ('camera_info', camera_info)],
                output='screen',
            )
        )
    if is_true(given, 'view'):
        compressed = parameters.get('image_transport') == 'compressed'
        nodes.append(
            Node(
                package='metrabs_ros',
                executable='view_node',
                name='view',
                namespace=given['namespace'],
                arguments=[
                    *('--host', given['view_host']),
                    *(['--compressed'] if compressed else []),
                    *(['--cameras', *names] if names else []),
                    *(['--fused'] if fuse else []),
                ],
                parameters=[{'use_sim_time': parameters.get('use_sim_time', False)}],
                remappings=remappings,
                output='screen',
            )
        )
    return nodes


def camera_remappings(name):
    """Return the remappings from the topics of the node to those of a camera driver."""
    return [
        (f'{name}/image', f'{name}/image_raw'),
        (f'{name}/image/compressed', f'{name}/image_raw/compressed'),
    ]


def depth_remappings(prefix, topic):
    """Return the remappings of the depth topics of a camera; none without a topic."""
    if not topic:
        return []
    target = topic if topic.startswith('/') else f'{prefix}{topic}'
    namespace = target.rpartition('/')[0]
    return [
        (f'{prefix}depth', target),
        (f'{prefix}depth/compressedDepth', f'{target}/compressedDepth'),
        (f'{prefix}depth/camera_info', f'{namespace}/camera_info' if namespace else 'camera_info'),
    ]
