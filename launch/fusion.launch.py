"""Start the fusion node for the pose nodes of several cameras."""

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
    return LaunchDescription([*declared(ARGUMENTS, PARAMETERS), OpaqueFunction(function=start)])


def start(context):
    """Return the node to start for the given arguments."""
    given = given_values(context, (*ARGUMENTS, *PARAMETERS))
    parameters = given_parameters(given, PARAMETERS)
    names = camera_names(given['cameras'])
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
            respawn=is_true(given, 'respawn'),
            respawn_delay=RESPAWN_DELAY_S,
        )
    ]
