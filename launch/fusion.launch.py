"""Start the fusion node for the pose nodes of several cameras."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

SHARE = FindPackageShare('metrabs_ros')
RESPAWN_DELAY_S = 5.0

ARGUMENTS = {
    'cameras': (
        '',
        'Comma-separated namespaces of the cameras; front,rear/left subscribes to '
        'front/pose/skeletons, front/camera_info, rear/left/pose/skeletons etc.',
    ),
    'namespace': ('', 'Namespace of the node.'),
    'params_file': (PathJoinSubstitution([SHARE, 'config', 'fusion.yaml']), 'Parameter file.'),
    'respawn': ('true', 'Whether to restart the node if it ends.'),
    'log_level': ('info', 'Log level: debug, info, warn, error or fatal.'),
}
PARAMETERS = {
    'fixed_frame': (str, 'Frame of the published people, with the z axis pointing up.'),
    'rays': (bool, 'Whether the markers include lines from the cameras to the people they see.'),
    'hri': (bool, 'Publish people as ROS4HRI bodies below /humans/bodies.'),
    'hri_tf': (bool, 'With hri: publish the TF frames of all links of the bodies.'),
    'use_sim_time': (bool, 'Use the time of /clock.'),
}
"""Arguments that override parameters of params_file."""


def generate_launch_description() -> LaunchDescription:
    """Return the launch description of the fusion node."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    declared += [
        DeclareLaunchArgument(
            name, default_value='', description=f'{description} Default: value in params_file.'
        )
        for name, (_, description) in PARAMETERS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def start(context):
    """Return the node to start for the given arguments."""
    given = {
        name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, *PARAMETERS)
    }
    parameters = {
        name: as_type(given[name]) if as_type is not bool else given[name].lower() == 'true'
        for name, (as_type, _) in PARAMETERS.items()
        if given[name]
    }
    names = [name.strip('/ ') for name in given['cameras'].split(',') if name.strip('/ ')]
    if names:
        parameters['cameras'] = names
    return [
        Node(
            package='metrabs_ros',
            executable='fusion_node',
            name='fusion',
            namespace=given['namespace'],
            parameters=[given['params_file'], parameters],
            arguments=['--ros-args', '--log-level', given['log_level']],
            output='screen',
            respawn=given['respawn'].lower() == 'true',
            respawn_delay=RESPAWN_DELAY_S,
        )
    ]
