"""The launch files start the nodes that their arguments select.  Skipped without launch."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

launch = pytest.importorskip('launch', reason='launch is not on PyPI; a ROS install has it')
pytest.importorskip('launch_ros', reason='launch_ros is not on PyPI; a ROS install has it')
from launch_ros.utilities import evaluate_parameters  # noqa: E402

FOLDER = pathlib.Path(__file__).parents[1] / 'launch'


def module_of(name):
    """Import a launch file."""
    spec = importlib.util.spec_from_file_location(name.replace('.', '_'), FOLDER / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started_nodes(**arguments):
    """Return the nodes that pose.launch.py starts with the given arguments."""
    module = module_of('pose.launch.py')
    context = launch.LaunchContext()
    context.launch_configurations.update(
        {name: default for name, (default, _) in module.ARGUMENTS.items() if name != 'params_file'}
    )
    context.launch_configurations.update(dict.fromkeys(module.PARAMETERS, ''))
    context.launch_configurations['params_file'] = str(FOLDER.parent / 'config' / 'pose.yaml')
    context.launch_configurations.update(arguments)
    return module.start(context)


def remappings_of(node):
    """Return the remappings of a node as pairs."""
    return {
        tuple(''.join(part.text for part in side) for side in pair)
        for pair in node._Node__remappings
    }


@pytest.mark.parametrize('name', ['pose.launch.py', 'fusion.launch.py', 'demo.launch.py'])
def test_every_argument_is_described(name):
    description = module_of(name).generate_launch_description()
    arguments = description.get_launch_arguments()
    assert arguments
    assert all(argument.description.endswith('.') for argument in arguments)


def test_rviz_is_started_on_request():
    assert [node.node_executable for node in started_nodes()] == ['pose_node']
    with_rviz = started_nodes(rviz='true', target_frame='map')
    assert [node.node_executable for node in with_rviz] == ['pose_node', 'rviz2']


def test_the_pose_node_is_restarted_unless_this_is_turned_off():
    for arguments, respawns in (({}, True), ({'respawn': 'false'}, False)):
        (node,) = started_nodes(**arguments)
        assert node._ExecuteLocal__respawn is respawns


def test_the_view_is_started_on_request_with_the_topics_of_the_node():
    pose, view = started_nodes(view='true', camera='/front', image_transport='compressed')
    assert view.node_executable == 'view_node'
    for kind in ('image', 'image/compressed', 'camera_info'):
        assert dict(remappings_of(view))[kind] == dict(remappings_of(pose))[kind]


def arguments_of(node):
    """Return the command-line arguments of a node."""
    return [''.join(getattr(part, 'text', '') for part in word) for word in node.cmd]


def test_the_view_listens_on_the_loopback_interface_by_default():
    for arguments, host in (({}, '127.0.0.1'), ({'view_host': '0.0.0.0'}, '0.0.0.0')):
        _, view = started_nodes(view='true', **arguments)
        command = arguments_of(view)
        assert command[command.index('--host') + 1] == host
    demo = module_of('demo.launch.py')
    assert demo.ARGUMENTS['view_host'][0] == '127.0.0.1'


def test_launch_arguments_for_parameters_exist_in_the_node():
    from metrabs_ros.node.settings import Settings

    names = set(module_of('pose.launch.py').PARAMETERS) - {'use_sim_time'}
    assert names <= set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('rviz', 'yes', 'true or false'),
        ('respawn', '', 'true or false'),
        ('use_sim_time', 'on', 'true or false'),
        ('num_aug', '2.5', 'an integer'),
        ('ground_height', '10 cm', 'a number'),
    ],
)
def test_values_of_the_wrong_type_are_rejected(name, value, reason):
    with pytest.raises(ValueError, match=f"{name} is '{value}'; it must be {reason}"):
        started_nodes(**{name: value})


def test_true_has_the_spellings_of_launch():
    for value, count in (('1', 2), ('True', 2), ('0', 1), ('FALSE', 1)):
        assert len(started_nodes(rviz=value)) == count


def test_each_of_several_cameras_has_its_own_namespace():
    (node,) = started_nodes(cameras='front, /rear/left')
    remappings = remappings_of(node)
    assert ('rear/left/image', 'rear/left/image_raw') in remappings
    assert ('front/image/compressed', 'front/image_raw/compressed') in remappings


def test_the_depth_topic_is_remapped_with_its_camera_info():
    (node,) = started_nodes(camera='/front')
    assert not any('depth' in source for source, _ in remappings_of(node))
    (node,) = started_nodes(camera='/front', depth='/front/aligned/image_raw')
    remappings = remappings_of(node)
    assert ('depth', '/front/aligned/image_raw') in remappings
    assert ('depth/compressedDepth', '/front/aligned/image_raw/compressedDepth') in remappings
    assert ('depth/camera_info', '/front/aligned/camera_info') in remappings
    (node,) = started_nodes(cameras='front,rear', depth='depth_registered/image')
    remappings = remappings_of(node)
    assert ('rear/depth', 'rear/depth_registered/image') in remappings
    assert ('front/depth/camera_info', 'front/depth_registered/camera_info') in remappings


def test_the_fusion_node_is_started_on_request():
    pose, fusion = started_nodes(cameras='front,rear', fuse='true', fixed_frame='odom')
    assert fusion.node_executable == 'fusion_node'
    values = parameters_of(fusion)
    assert values['cameras'] == ('front', 'rear')
    assert values['fixed_frame'] == 'odom'
    # The frames of the fused people have the same names.
    assert parameters_of(pose)['tf'] == 'none'
    with pytest.raises(ValueError, match='two or more cameras'):
        started_nodes(camera='front', fuse='true')


def test_the_fusion_node_can_be_started_alone():
    module = module_of('fusion.launch.py')
    context = launch.LaunchContext()
    context.launch_configurations.update(
        {name: default for name, (default, _) in module.ARGUMENTS.items() if name != 'params_file'}
    )
    context.launch_configurations.update(dict.fromkeys(module.PARAMETERS, ''))
    context.launch_configurations['params_file'] = str(FOLDER.parent / 'config' / 'fusion.yaml')
    context.launch_configurations.update(cameras='front, rear/left', rays='true')
    (node,) = module.start(context)
    assert parameters_of(node)['cameras'] == ('front', 'rear/left')
    assert parameters_of(node)['rays'] is True


def parameters_of(node):
    """Return the parameters that a launch file sets itself, in addition to those of a file."""
    groups = evaluate_parameters(launch.LaunchContext(), node._Node__parameters)
    return {
        name: value for group in groups if isinstance(group, dict) for name, value in group.items()
    }


def test_with_fuse_the_fusion_node_publishes_bodies():
    (pose,) = started_nodes(hri='true', hri_tf='true')
    assert parameters_of(pose)['hri'] is True
    pose, fusion = started_nodes(cameras='front,rear', fuse='true', hri='true', hri_tf='true')
    assert parameters_of(pose)['hri'] is False
    assert parameters_of(fusion)['hri'] is True
    assert parameters_of(fusion)['hri_tf'] is True
