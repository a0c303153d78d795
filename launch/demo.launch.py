"""Plays a video as a camera, and starts the pose node and RViz."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

ARGUMENTS = {
    'input': (None, 'A video, a folder of pictures, a picture or /dev/video0.'),
    'fov': ('55.0', 'The field of view across the longer side, in degrees.'),
    'rate': ('10.0', 'Images a second; 0 for as fast as they are worked on.'),
    'model': ('blazepose', 'The pose network.'),
    'rviz': ('true', 'Whether to start RViz.'),
    'view': ('false', 'Whether to show it in a browser, too.'),
    'view_host': (
        '127.0.0.1',
        'The address on which the view listens; 0.0.0.0 lets other machines see the images.',
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Describe what to start."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    camera = Node(
        package='metrabs_ros',
        executable='demo_camera',
        arguments=[
            *('--input', LaunchConfiguration('input')),
            *('--fov', LaunchConfiguration('fov')),
            *('--rate', LaunchConfiguration('rate')),
        ],
        remappings=[('skeletons', 'pose/skeletons')],
        output='screen',
    )
    pose = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare('metrabs_ros'), 'launch', 'pose.launch.py'])
        ),
        launch_arguments={
            'model': LaunchConfiguration('model'),
            'rviz': LaunchConfiguration('rviz'),
            'view': LaunchConfiguration('view'),
            'view_host': LaunchConfiguration('view_host'),
        }.items(),
    )
    return LaunchDescription([*declared, camera, pose])
