"""The view, the demo camera and the demo viewer continue after invalid service requests."""

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
from robots import spinning, wait_for

WRONG = [
    Parameter(name='use_sim_time', value=ParameterValue(type=99)),
    Parameter(name='', value=ParameterValue(type=255)),
]


@contextlib.contextmanager
def process_and_client(module, *arguments):
    """Run a node in a separate process; yield the process and a client node."""
    rclpy.init()
    client = Node('client')
    process = subprocess.Popen(
        [sys.executable, '-m', f'metrabs_ros.node.{module}', *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with spinning(client):
            yield process, client
    finally:
        process.kill()
        process.communicate()
        client.destroy_node()
        rclpy.shutdown()


def call_service(process, client, kind, service, **request):
    """Call a service of a process, which must not end; return the response."""
    service_client = client.create_client(kind, service)
    wait_for(lambda: process.poll() is not None or service_client.service_is_ready())
    future = service_client.call_async(kind.Request(**request))
    wait_for(lambda: process.poll() is not None or future.done())
    assert process.poll() is None, process.stdout.read()
    return future.result()


def check_invalid_requests_are_survived(process, client, name):
    for parameter in WRONG:
        wrong = {'parameters': [parameter]}
        response = call_service(process, client, SetParameters, f'{name}/set_parameters', **wrong)
        assert [result.successful for result in response.results] == [False]
        assert response.results[0].reason
        service = f'{name}/set_parameters_atomically'
        response = call_service(process, client, SetParametersAtomically, service, **wrong)
        assert not response.result.successful
    names = ['use_sim_time']
    response = call_service(process, client, GetParameters, f'{name}/get_parameters', names=names)
    assert len(response.values) == 1
    process.terminate()
    output, _ = communicate_with_stall_timeout(process)
    assert f'{name}/set_parameters failed, 1 failures so far' in output
    assert 'Traceback' not in output


@pytest.mark.slow
def test_the_view_survives_invalid_requests():
    pytest.importorskip('rerun')
    page_port, data_port = free_ports(2)
    arguments = ('--web-port', page_port, '--data-port', data_port)
    with process_and_client('view_node', *arguments) as (process, client):
        check_invalid_requests_are_survived(process, client, 'view')


@pytest.mark.slow
def test_the_demo_camera_survives_invalid_requests():
    picture = pathlib.Path(DATA) / 'street.png'
    with process_and_client('demo_camera', '--input', picture) as (process, client):
        check_invalid_requests_are_survived(process, client, 'camera')


def test_the_demo_viewer_survives_invalid_requests(tmp_path):
    with process_and_client('demo_viewer', '--output', tmp_path) as (process, client):
        check_invalid_requests_are_survived(process, client, 'viewer')
