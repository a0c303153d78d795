"""Requests of other web pages are distinguished from those of the view's own page."""

from __future__ import annotations

import socket

import pytest

from metrabs_ros.view.access import AccessRules, Refused

LOOPBACK = AccessRules.listening_on('127.0.0.1')
OPEN = AccessRules.listening_on('0.0.0.0')
FOREIGN = [
    *('evil.example', 'evil.example:9090', 'localhost.evil.example', '127.0.0.1.evil.example'),
    *('localhost@evil.example', 'localhost:9090@evil.example', 'evil.example#localhost', ''),
    *(
        'localhost, evil.example',
        'localhost:9090:9090',
        'localhost:',
        'localhost:port',
        ' localhost',
    ),
    *(
        '[::1',
        '[evil.example]',
        '::1',
        '127.1',
        '2130706433',
        '0x7f.1',
        'localhost\x00',
        'l\u00f6calhost',
    ),
    None,
]


@pytest.mark.parametrize('header', FOREIGN)
@pytest.mark.parametrize('rules', [LOOPBACK, OPEN], ids=['loopback', 'open'])
def test_other_host_names_are_rejected(rules, header):
    with pytest.raises(Refused):
        rules.host_of(header)


@pytest.mark.parametrize(
    ('header', 'host'),
    [
        ('127.0.0.1:9876', '127.0.0.1'),
        ('127.0.0.1', '127.0.0.1'),
        ('LocalHost:1', 'localhost'),
        ('[::1]:9876', '[::1]'),
        ('127.0.0.53:80', '127.0.0.53'),
    ],
)
def test_names_and_addresses_of_the_loopback_interface_are_permitted(header, host):
    assert LOOPBACK.host_of(header) == host


@pytest.mark.parametrize('header', ['192.168.1.5:9090', '[fe80::1]:9090', '0.0.0.0:9090'])
def test_other_addresses_are_permitted_for_an_open_view_only(header):
    with pytest.raises(Refused):
        LOOPBACK.host_of(header)
    assert OPEN.host_of(header)


def test_an_open_view_permits_the_machine_names_and_the_given_name():
    machine = socket.gethostname()
    assert OPEN.host_of(f'{machine}:9090') == machine.lower()
    assert OPEN.host_of(f'{machine}.local:9090') == f'{machine.lower()}.local'
    named = AccessRules.listening_on('robot.example')
    assert named.host_of('robot.example:9090') == 'robot.example'
    with pytest.raises(Refused):
        OPEN.host_of('robot.example:9090')


@pytest.mark.parametrize(
    'origin',
    [
        *('http://evil.example', 'http://evil.example:9090', 'null', '', '*', 'http://localhost'),
        *('http://localhost:9091', 'https://localhost:9090', 'http://127.0.0.1:9090'),
        *('http://localhost:9090/', 'http://localhost:9090.evil.example', 'http://rerun.io'),
        *(
            'https://app.rerun.io',
            'http://[::1]:9090',
            'file://',
            'http://localhost:9090 http://x',
        ),
    ],
)
def test_other_origins_are_rejected(origin):
    with pytest.raises(Refused):
        LOOPBACK.check_origin(origin, 'localhost', 9090)


def test_the_error_for_a_forwarded_page_names_the_port():
    with pytest.raises(Refused, match='the page must keep its port number 9090'):
        LOOPBACK.check_origin('http://localhost:19090', 'localhost', 9090)


def test_the_origin_of_the_page_is_permitted():
    for host in ('localhost', '127.0.0.1', '[::1]'):
        LOOPBACK.check_origin(f'http://{host}:9090', host, 9090)
    LOOPBACK.check_origin(None, 'localhost', 9090)
    LOOPBACK.check_origin('http://localhost', 'localhost', 80)
