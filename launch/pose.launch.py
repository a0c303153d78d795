"""Starts the pose node on a camera, and RViz if wanted."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare('metrabs_ros')

ARGUMENTS = {
    'camera': (
        '',
        'The namespace of a camera, for example /camera/color; gives image_raw and camera_info.',
    ),
    'cameras': (
        '',
        'Several cameras for one model, by their namespaces: front,rear/left gives '
        'front/image_raw, front/camera_info and so on.',
    ),
    'image': ('', 'The topic of the images; by default image, or that of the camera.'),
    'camera_info': (
        '',
        "The topic of their calibration; by default camera_info, or the camera's.",
    ),
    'detections': ('detections', 'With detector topic: the topic of the boxes.'),
    'namespace': ('', 'The namespace of the node.'),
    'params_file': (PathJoinSubstitution([SHARE, 'config', 'pose.yaml']), 'The parameters.'),
    'rviz': ('false', 'Whether to start RViz.'),
    'view': ('false', 'Whether to show it in a browser, too; the log says under which address.'),
    'view_host': (
        '127.0.0.1',
        'The address on which the view listens; 0.0.0.0 lets other machines see the cameras.',
    ),
    'log_level': ('info', 'debug, info, warn, error or fatal.'),
}
PARAMETERS = {
    'image_transport': (str, 'raw, or compressed for images on <image>/compressed.'),
    'model': (str, 'The pose network: blazepose, metrabs_s, metrabs_l or a folder.'),
    'engine': (str, 'What runs it: auto, torch, tensorrt or openvino.'),
    'detector': (str, 'What finds people: auto, blazepose, onnx:FILE, ultralytics:NAME or topic.'),
    'skeleton': (str, 'The convention of the joints.'),
    'num_aug': (int, 'How many crops of each person MeTRAbs looks at.'),
    'target_frame': (str, 'The frame of all that is published.'),
    'world_frame': (str, 'A frame with z up that says which way is up.'),
    'autostart': (bool, 'Configure and activate at the start.'),
    'use_sim_time': (bool, 'Take the time from /clock.'),
}
"""Arguments that set parameters; those that are not given leave what the file says."""


def generate_launch_description() -> LaunchDescription:
    """Describe what to start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    declared += [
        DeclareLaunchArgument(
            name, default_value='', description=f'{description} By default as in params_file.'
        )
        for name, (_, description) in PARAMETERS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context):
    """Return the nodes for the arguments that were given."""
    given = {
        name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, *PARAMETERS)
    }
    camera = given['camera'].rstrip('/')
    image = given['image'] or (f'{camera}/image_raw' if camera else 'image')
    camera_info = given['camera_info'] or (f'{camera}/camera_info' if camera else 'camera_info')
    parameters = {
        name: as_type(given[name]) if as_type is not bool else given[name].lower() == 'true'
        for name, (as_type, _) in PARAMETERS.items()
        if given[name]
    }
    names = [name.strip('/ ') for name in given['cameras'].split(',') if name.strip('/ ')]
    if names:
        parameters['cameras'] = names
    heard = [
        ('image', image),
        ('image/compressed', f'{image}/compressed'),
        ('camera_info', camera_info),
        *(pair for name in names for pair in of_camera(name)),
    ]
    nodes = [
        Node(
            package='metrabs_ros',
            executable='pose_node',
            name='pose',
            namespace=given['namespace'],
            parameters=[given['params_file'], parameters],
            remappings=[*heard, ('detections', given['detections'])],
            arguments=['--ros-args', '--log-level', given['log_level']],
            output='screen',
        )
    ]
    if given['rviz'].lower() == 'true':
        frame = given['target_frame']
        nodes.append(
            Node(
                package='rviz2',
                executable='rviz2',
                name='rviz',
                namespace=given['namespace'],
                arguments=[
                    *('-d', PathJoinSubstitution([SHARE, 'config', 'pose.rviz']).perform(context)),
                    *(['-f', frame] if frame else []),
                ],
                parameters=[{'use_sim_time': parameters.get('use_sim_time', False)}],
                remappings=[('image', image), ('camera_info', camera_info)],
                output='screen',
            )
        )
    if given['view'].lower() == 'true':
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
                ],
                parameters=[{'use_sim_time': parameters.get('use_sim_time', False)}],
                remappings=heard,
                output='screen',
            )
        )
    return nodes


def of_camera(name):
    """Return where the driver in a camera's namespace publishes what the node reads."""
    return [
        (f'{name}/image', f'{name}/image_raw'),
        (f'{name}/image/compressed', f'{name}/image_raw/compressed'),
    ]
