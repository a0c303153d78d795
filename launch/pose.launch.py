"""Starts the pose node on a camera."""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    'image': ('image', 'The topic of the images.'),
    'camera_info': ('camera_info', 'The topic of their calibration, with the same stamps.'),
    'namespace': ('', 'The namespace of the node.'),
    'params_file': (
        PathJoinSubstitution([FindPackageShare('metrabs_ros'), 'config', 'pose.yaml']),
        'The parameters.',
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Describe what to start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    node = Node(
        package='metrabs_ros',
        executable='pose_node',
        name='pose',
        namespace=LaunchConfiguration('namespace'),
        parameters=[LaunchConfiguration('params_file')],
        remappings=[
            ('image', LaunchConfiguration('image')),
            ('camera_info', LaunchConfiguration('camera_info')),
        ],
        output='screen',
    )
    return LaunchDescription([*declared, node])
