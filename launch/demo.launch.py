"""Start a camera that plays a video, the pose node and RViz."""

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription
from metrabs_ros.node.launch_arguments import declared

ARGUMENTS = {
    'input': (None, 'Video, folder of images, image or video device such as /dev/video0.'),
    'fov': ('55.0', 'Field of view across the longer image side, in degrees.'),
    'rate': ('10.0', 'Images per second; 0: as fast as the pose node processes them.'),
    'model': ('blazepose', 'Pose network; see pose.launch.py.'),
    'rviz': ('true', 'Whether to start RViz.'),
    'view': ('false', 'Whether to start the browser view.'),
    'view_host': (
        '127.0.0.1',
        'Address of the browser view; 0.0.0.0 allows access from other machines.',
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Return the launch description of the demo."""
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
    return LaunchDescription([*declared(ARGUMENTS), camera, pose])
