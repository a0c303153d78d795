"""The view, the demo's camera and the demo's viewer go on after a request that is malformed."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys

import pytest
import rclpy
from browser import free_ports
from conftest import DATA
from progress import communicate_with_stall_timeout
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.node import Node
from robots import running, wait_for

WRONG = [
    Parameter(name='use_sim_time', value=ParameterValue(type=99)),
    Parameter(name='', value=ParameterValue(type=255)),
]


@contextlib.contextmanager
def process_and_client(module, *arguments):
    """Run a node in a process of its own; give the process, and a node to call it from."""
    rclpy.init()
    client = Node('client')
    process = subprocess.Popen(
        [sys.executable, '-m', f'metrabs_ros.node.{module}', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with running(client):
            yield process, client
    finally:
        process.kill()
        process.communicate()
        client.destroy_node()
        rclpy.shutdown()


def answer_of(process, client, kind, service, **request):
    """Return the answer to a request to a process that must not end."""
    caller = client.create_client(kind, service)
    wait_for(lambda: process.poll() is not None or caller.service_is_ready())
    future = caller.call_async(kind.Request(**request))
    wait_for(lambda: process.poll() is not None or future.done())
    assert process.poll() is None, process.stdout.read()
    return future.result()


def check_that_it_goes_on(process, client, name):
    for parameter in WRONG:
        wrong = {'parameters': [parameter]}
        answer = answer_of(process, client, SetParameters, f'{name}/set_parameters', **wrong)
        assert [result.successful for result in answer.results] == [False]
        assert answer.results[0].reason
        service = f'{name}/set_parameters_atomically'
        answer = answer_of(process, client, SetParametersAtomically, service, **wrong)
        assert not answer.result.successful
    names = ['use_sim_time']
    answer = answer_of(process, client, GetParameters, f'{name}/get_parameters', names=names)
    assert len(answer.values) == 1
    process.terminate()
    output, _ = communicate_with_stall_timeout(process)
    assert f'{name}/set_parameters failed, 1 failures so far' in output
    assert 'Traceback' not in output


def test_the_view_goes_on():
    pytest.importorskip('rerun')
    page_port, data_port = free_ports(2)
    arguments = ('--web-port', page_port, '--data-port', data_port)
    with process_and_client('view_node', *arguments) as (process, client):
        check_that_it_goes_on(process, client, 'view')


def test_the_camera_of_the_demo_goes_on():
    picture = pathlib.Path(DATA) / 'street.png'
    with process_and_client('demo_camera', '--input', picture) as (process, client):
        check_that_it_goes_on(process, client, 'camera')


def test_the_viewer_of_the_demo_goes_on(tmp_path):
    with process_and_client('demo_viewer', '--output', tmp_path) as (process, client):
        check_that_it_goes_on(process, client, 'viewer')
