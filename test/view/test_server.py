"""The view is accessible from its own page only, and by default from this machine only."""

from __future__ import annotations

import http.client
import http.server
import os
import socket
import threading
import time
import urllib.parse

import numpy as np
import pytest
from browser import free_ports, open_page
from sockets import listening_addresses

from metrabs_ros.view import server
from metrabs_ros.view.scene import Scene
from metrabs_ros.view.server import exposure_warning
from metrabs_ros.view.viewer_files import load_viewer_files

GRPC = '/rerun.sdk_comms.v1alpha1.MessageProxyService/ReadMessages'
RRD_START = b'RRF2'
TIMEOUT_S = 120.0
CLOSE_TIMEOUT_S = 15.0
GREY = np.full((48, 64, 3), 128, np.uint8)


class Served:
    """A served scene and its addresses."""

    def __init__(self, host='127.0.0.1', **options):
        self.scene = Scene([''], is_live=True)
        self.address = self.scene.serve(*free_ports(2), host=host, **options)
        page = urllib.parse.urlsplit(self.address)
        data = urllib.parse.urlsplit(urllib.parse.parse_qs(page.query)['url'][0])
        self.host, self.page_port, self.data_port = page.hostname, page.port, data.port
        self.path = data.path
        self.page_origin = f'http://{page.netloc}'
        self.scene.show_image(1.0, '', GREY)

    def request(self, port, path, method='GET', body=None, host=None, **headers):
        """Send a request; return the status, the headers and the first bytes of the body."""
        connection = http.client.HTTPConnection(self.host, port, timeout=TIMEOUT_S)
        name = f'[{self.host}]' if ':' in self.host else self.host
        connection.putrequest(method, path, skip_host=True)
        connection.putheader('Host', f'{name}:{port}' if host is None else host)
        for header, value in headers.items():
            connection.putheader(header.replace('_', '-'), value)
        if body is not None:
            connection.putheader('Content-Length', str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        start = answer.read(4)
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, start


@pytest.fixture(scope='module')
def served():
    return Served()


def test_the_page_and_the_data_are_served(served):
    status, headers, start = served.request(served.page_port, '/?url=x')
    assert (status, start) == (200, b'<!do')
    assert "frame-ancestors 'none'" in headers['content-security-policy']
    status, headers, start = served.request(served.page_port, '/re_viewer_bg.wasm')
    assert (status, start) == (200, b'\0asm')
    assert headers['content-type'] == 'application/wasm'
    status, headers, start = served.request(
        served.data_port, served.path, Origin=served.page_origin
    )
    assert (status, start) == (200, RRD_START)
    assert headers['access-control-allow-origin'] == served.page_origin


def test_nothing_listens_on_another_interface(served):
    found = listening_addresses([os.getpid()])
    ports = {port for address, port in found}
    assert {served.page_port, served.data_port} <= ports
    assert all(address.is_loopback for address, port in found), found


FOREIGN_ORIGINS = [
    *('http://evil.example', 'null', 'http://localhost:8000', 'http://127.0.0.1:1'),
    *('https://app.rerun.io', 'http://localhost'),
]


@pytest.mark.parametrize('origin', FOREIGN_ORIGINS)
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'OPTIONS', 'POST'])
def test_requests_of_other_origins_are_rejected(served, origin, method):
    for port in (served.page_port, served.data_port):
        for path in (served.path, GRPC, '/'):
            status, headers, start = served.request(port, path, method, Origin=origin)
            assert status == 403
            assert 'access-control-allow-origin' not in headers
            assert start != RRD_START


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:{port}', '', '192.168.1.1:{port}'])
@pytest.mark.parametrize('origin', [None, 'http://{host}'])
def test_other_host_names_are_rejected(served, host, origin):
    for port in (served.page_port, served.data_port):
        name = host.format(port=port)
        headers = {} if origin is None else {'Origin': origin.format(host=name)}
        status, answered, start = served.request(port, served.path, host=name, **headers)
        assert status == 403
        assert 'access-control-allow-origin' not in answered
        assert start != RRD_START


def test_grpc_web_requests_are_rejected(served):
    body = b'\0\0\0\0\0'
    headers = {'Content_Type': 'application/grpc-web+proto', 'X_Grpc_Web': '1'}
    for origin in ('http://evil.example', served.page_origin):
        for port in (served.page_port, served.data_port):
            status, answered, _ = served.request(
                port, GRPC, 'POST', body, Origin=origin, **headers
            )
            assert status in (403, 405)
            assert 'access-control-allow-origin' not in answered


def test_cross_site_requests_are_rejected(served):
    status, _, _ = served.request(served.data_port, served.path, Sec_Fetch_Site='cross-site')
    assert status == 403


@pytest.mark.parametrize('path', ['/', '/scene.rrd', '/x/scene.rrd', '/../etc/passwd', '/%2e%2e'])
def test_data_is_served_at_the_secret_path_only(served, path):
    assert served.request(served.data_port, path)[0] == 404
    assert served.request(served.page_port, f'/.{path}')[0] == 404
    assert len(served.path) > 20
    assert Served().path != served.path


@pytest.mark.parametrize(
    'request_text',
    [
        b'GET http://127.0.0.1/ HTTP/1.1\r\nHost: localhost\r\n\r\n',
        b'GET / HTTP/1.1\r\n\r\n',
        b'GET / HTTP/1.0\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nOrigin: null\r\n\r\n',
        b'GET /\r\n\r\n',
        b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n',
        b'GET / HTTP/9.9\r\n\r\n',
        b'A' * 100_000 + b'\r\n\r\n',
        b'GET / HTTP/1.1\r\n' + b'X: y\r\n' * 1000 + b'\r\n',
        b'POST / HTTP/1.1\r\nHost: evil\r\nContent-Length: -1\r\n\r\n',
        b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    ],
)
def test_malformed_requests_are_rejected(served, request_text, capfd):
    with socket.create_connection((served.host, served.data_port), TIMEOUT_S) as connection:
        answer = b''
        try:
            connection.sendall(request_text)
            while block := connection.recv(65536):
                answer += block
        except ConnectionError:  # The server closed the connection.
            pass
    assert b' 200 ' not in answer[:20]
    assert RRD_START not in answer
    assert served.request(served.data_port, served.path)[0] == 200
    assert 'Traceback' not in capfd.readouterr().err


@pytest.mark.slow
def test_a_browser_denies_other_pages_access_to_the_data(served):
    """Request the data from a page on another port, and from a page with DNS rebinding."""
    (port,) = free_ports(1)

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Length', '0')
            self.end_headers()

        def log_message(self, *arguments):
            pass

    other = http.server.ThreadingHTTPServer(('127.0.0.1', port), Empty)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    fetch = """async (url) => {
        try { const r = await fetch(url); return r.status + ' ' + r.type; }
        catch (error) { return 'failed'; }
    }"""
    resolved = '--host-resolver-rules=MAP evil.example 127.0.0.1'
    try:
        with open_page(f'http://127.0.0.1:{port}/', arguments=[resolved]) as page:
            data = f'http://127.0.0.1:{served.data_port}{served.path}'
            assert page.evaluate(fetch, data) == 'failed'
            page.goto(f'http://evil.example:{port}/')
            assert page.evaluate(fetch, data) == 'failed'
            # DNS rebinding: for the browser this is the same origin.
            answer = page.goto(f'http://evil.example:{served.data_port}/')
            assert answer.status == 403
            assert page.evaluate(fetch, served.path) == '403 basic'
    finally:
        other.shutdown()
        other.server_close()


def test_an_open_view_permits_its_own_host_names_and_origins():
    served = Served('0.0.0.0')
    found = {
        address for address, port in listening_addresses([os.getpid()]) if port == served.data_port
    }
    assert [str(address) for address in found] == ['0.0.0.0']
    for host in ('127.0.0.1', 'localhost', '192.168.7.7', socket.gethostname()):
        page = f'http://{host}:{served.page_port}'
        given = {'host': f'{host}:{served.data_port}'}
        status, headers, start = served.request(
            served.data_port, served.path, Origin=page, **given
        )
        assert (status, start) == (200, RRD_START)
        assert headers['access-control-allow-origin'] == page.lower()
        other = f'http://evil.example:{served.page_port}'
        assert served.request(served.data_port, served.path, Origin=other, **given)[0] == 403
    assert served.request(served.data_port, served.path, host='evil.example')[0] == 403
    assert 'WARNING: the view listens on 0.0.0.0' in exposure_warning('0.0.0.0')
    for host in ('127.0.0.1', '::1', 'localhost', '127.0.0.2'):
        assert exposure_warning(host) == ''


def test_the_view_is_served_on_the_ipv6_loopback_interface():
    try:
        socket.create_server(('::1', 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip('there is no IPv6 here')
    served = Served('::1')
    assert served.address.startswith('http://[::1]:')
    assert served.request(served.page_port, '/')[0] == 200
    status, headers, _ = served.request(served.data_port, served.path, Origin=served.page_origin)
    assert status == 200
    assert headers['access-control-allow-origin'] == served.page_origin


@pytest.mark.parametrize(
    ('host', 'says'),
    [
        ('no such host', 'not an address or name of this machine'),
        ('192.0.2.1', 'not an address of this machine'),
        ('x' * 10_000, 'not an address or name of this machine'),
        ('\x1b[31m', 'not an address or name of this machine'),
    ],
)
def test_hosts_of_other_machines_are_rejected(host, says):
    with pytest.raises(OSError, match=says) as caught:
        Scene(['']).serve(*free_ports(2), host=host)
    assert len(str(caught.value)) < 250
    assert '\x1b' not in str(caught.value)


def test_a_port_in_use_is_reported_and_the_other_port_is_released():
    web, data = free_ports(2)
    with socket.create_server(('127.0.0.1', data)):
        with pytest.raises(OSError, match=f'port {data} is in use'):
            Scene(['']).serve(web, data)
        socket.create_server(('127.0.0.1', web)).close()
    with pytest.raises(OSError, match='both'):
        Scene(['']).serve(web, web)
    with pytest.raises(OSError, match='not from 0 to 65535'):
        Scene(['']).serve(web, 70000)


def open_connections(port):
    """Return the number of connections to a port of this machine."""
    with open('/proc/net/tcp') as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[1].endswith(f':{port:04X}') and row[3] == '01' for row in rows)


def wait_until(condition):
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_connections_are_limited_in_number_and_time(monkeypatch):
    monkeypatch.setattr(server, 'MAX_CONNECTIONS', 4)
    monkeypatch.setattr(server, 'REQUEST_TIMEOUT_S', 0.5)
    served = Served()
    # The clients send nothing, or an endless request byte by byte.
    silent = [socket.create_connection((served.host, served.data_port)) for _ in range(20)]
    wait_until(lambda: open_connections(served.data_port) <= 4)
    wait_until(lambda: open_connections(served.data_port) == 0)
    assert served.request(served.data_port, served.path)[0] == 200
    slow = socket.create_connection((served.host, served.data_port))
    assert is_closed_while_sending_slowly(slow)
    for connection in (*silent, slow):
        connection.close()


def is_closed_while_sending_slowly(connection):
    """Send byte by byte; return whether the server closes the connection within seconds."""
    deadline_s = time.monotonic() + CLOSE_TIMEOUT_S
    try:
        while time.monotonic() < deadline_s:
            connection.sendall(b'G')
            time.sleep(0.05)
    except OSError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    'head', ['POST / HTTP/1.1\r\nHost: localhost', 'GET / HTTP/1.1\r\nHost: x']
)
def test_a_connection_with_a_slow_body_is_closed(monkeypatch, head):
    monkeypatch.setattr(server, 'REQUEST_TIMEOUT_S', 0.5)
    served = Served()
    for port in (served.page_port, served.data_port):
        with socket.create_connection((served.host, port)) as connection:
            connection.sendall(f'{head}\r\nContent-Length: 60000\r\n\r\n'.encode())
            assert is_closed_while_sending_slowly(connection)


@pytest.mark.slow
def test_a_slow_download_of_the_viewer_is_closed(monkeypatch):
    monkeypatch.setattr(server, 'REQUEST_TIMEOUT_S', 0.5)
    monkeypatch.setattr(server, 'MIN_BYTES_PER_S', 1e9)
    served = Served()
    name = 're_viewer_bg.wasm'
    with socket.create_connection((served.host, served.page_port)) as connection:
        connection.sendall(f'GET /{name} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
        deadline_s, taken_bytes = time.monotonic() + CLOSE_TIMEOUT_S, 0
        # The client is fast enough that no single chunk times out.
        while block := receive(connection, 1 << 16):
            assert time.monotonic() < deadline_s
            taken_bytes += len(block)
            time.sleep(0.05)
    assert taken_bytes < len(load_viewer_files()[name])
    monkeypatch.undo()
    assert served.request(served.page_port, f'/{name}')[0] == 200


def receive(connection, size):
    """Return received bytes; empty if the connection was closed or reset."""
    try:
        return connection.recv(size)
    except ConnectionError:
        return b''


def test_a_stalled_stream_is_closed_without_additional_memory(monkeypatch):
    monkeypatch.setattr(server, 'SEND_TIMEOUT_S', 1.0)
    served = Served(memory_limit='1MiB')
    connection = socket.create_connection((served.host, served.data_port))
    connection.sendall(f'GET {served.path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    wait_until(lambda: open_connections(served.data_port) == 1)

    def is_closed():
        served.scene.show_image(1.0, '', noise)
        return open_connections(served.data_port) == 0

    wait_until(is_closed)
    assert served.scene._backlog.size_bytes < 2 << 20
    connection.close()


def test_the_number_of_streams_is_limited(monkeypatch):
    monkeypatch.setattr(server, 'MAX_STREAMS', 2)
    served = Served()
    request = f'GET {served.path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode()
    readers = [socket.create_connection((served.host, served.data_port)) for _ in range(2)]
    for reader in readers:
        reader.sendall(request)
        assert b' 200 ' in reader.recv(100)
    assert served.request(served.data_port, served.path)[0] == 503
    for reader in readers:
        reader.close()
    wait_until(lambda: served.request(served.data_port, served.path)[0] == 200)


def test_an_error_in_a_request_is_one_line(served, capfd, monkeypatch):
    monkeypatch.setattr(served.scene._backlog, '_read', None)
    served.request(served.data_port, served.path)
    wait_until(lambda: 'view: a request failed: TypeError' in capfd.readouterr().err)


def test_browsers_and_frame_changes_leak_no_threads():
    served = Served()

    def come_and_go(count):
        for i in range(count):
            served.scene.set_z_up(bool(i % 2))
            assert served.request(served.data_port, served.path)[2] == RRD_START
        wait_until(lambda: open_connections(served.data_port) == 0)
        return len(os.listdir('/proc/self/task'))

    before = come_and_go(4)
    # The number of threads depends on simultaneous browsers, not on all earlier ones.
    assert come_and_go(40) < before + 20
