"""The launch files start what their arguments say; where launch can be imported."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

launch = pytest.importorskip('launch', reason='launch is not on PyPI; a ROS install has it')
pytest.importorskip('launch_ros', reason='launch_ros is not on PyPI; a ROS install has it')

FOLDER = pathlib.Path(__file__).parents[1] / 'launch'


def module_of(name):
    """Import a launch file."""
    spec = importlib.util.spec_from_file_location(name.replace('.', '_'), FOLDER / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def started(**arguments):
    """Return the nodes that pose.launch.py starts with some arguments."""
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
    """Return a node's remappings, from and to."""
    return {
        tuple(''.join(part.text for part in side) for side in pair)
        for pair in node._Node__remappings
    }


@pytest.mark.parametrize('name', ['pose.launch.py', 'demo.launch.py'])
def test_every_argument_is_described(name):
    description = module_of(name).generate_launch_description()
    arguments = description.get_launch_arguments()
    assert arguments
    assert all(argument.description.endswith('.') for argument in arguments)


def test_the_node_is_started_and_rviz_only_if_wanted():
    assert [node.node_executable for node in started()] == ['pose_node']
    with_rviz = started(rviz='true', target_frame='map')
    assert [node.node_executable for node in with_rviz] == ['pose_node', 'rviz2']


def test_the_view_is_started_if_wanted_and_hears_what_the_node_hears():
    pose, view = started(view='true', camera='/front', image_transport='compressed')
    assert view.node_executable == 'view_node'
    for kind in ('image', 'image/compressed', 'camera_info'):
        assert dict(remappings_of(view))[kind] == dict(remappings_of(pose))[kind]


def arguments_of(node):
    """Return the words of a node's command."""
    return [''.join(getattr(part, 'text', '') for part in word) for word in node.cmd]


def test_the_view_listens_on_the_loopback_interface_unless_told_otherwise():
    for arguments, host in (({}, '127.0.0.1'), ({'view_host': '0.0.0.0'}, '0.0.0.0')):
        _, view = started(view='true', **arguments)
        words = arguments_of(view)
        assert words[words.index('--host') + 1] == host
    demo = module_of('demo.launch.py')
    assert demo.ARGUMENTS['view_host'][0] == '127.0.0.1'


def test_parameters_that_launch_offers_are_the_nodes():
    from metrabs_ros.node.settings import Settings

    offered = set(module_of('pose.launch.py').PARAMETERS) - {'use_sim_time'}
    assert offered <= set(Settings.__dataclass_fields__)


def test_several_cameras_have_a_namespace_each():
    (node,) = started(cameras='front, /rear/left')
    remappings = remappings_of(node)
    assert ('rear/left/image', 'rear/left/image_raw') in remappings
    assert ('front/image/compressed', 'front/image_raw/compressed') in remappings
