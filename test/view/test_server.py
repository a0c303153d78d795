"""The view can be read by its own page alone, and by default on this machine alone."""

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
from metrabs_ros.view.viewer_files import viewer_files

GRPC = '/rerun.sdk_comms.v1alpha1.MessageProxyService/ReadMessages'
RRD_START = b'RRF2'
PATIENCE_S = 120.0
CUT_OFF_S = 15.0
GREY = np.full((48, 64, 3), 128, np.uint8)


class Served:
    """A scene that is served, and where."""

    def __init__(self, host='127.0.0.1', **options):
        self.scene = Scene([''], is_live=True)
        self.address = self.scene.serve(*free_ports(2), host=host, **options)
        page = urllib.parse.urlsplit(self.address)
        data = urllib.parse.urlsplit(urllib.parse.parse_qs(page.query)['url'][0])
        self.host, self.page_port, self.data_port = page.hostname, page.port, data.port
        self.path = data.path
        self.page_origin = f'http://{page.netloc}'
        self.scene.show_image(1.0, '', GREY)

    def ask(self, port, path, method='GET', body=None, host=None, **headers):
        """Send a request; return the status, the headers and the beginning of the answer."""
        connection = http.client.HTTPConnection(self.host, port, timeout=PATIENCE_S)
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


def test_the_page_and_its_data_are_served(served):
    status, headers, start = served.ask(served.page_port, '/?url=x')
    assert (status, start) == (200, b'<!do')
    assert "frame-ancestors 'none'" in headers['content-security-policy']
    status, headers, start = served.ask(served.page_port, '/re_viewer_bg.wasm')
    assert (status, start) == (200, b'\0asm')
    assert headers['content-type'] == 'application/wasm'
    status, headers, start = served.ask(served.data_port, served.path, Origin=served.page_origin)
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
def test_pages_of_other_origins_are_refused(served, origin, method):
    for port in (served.page_port, served.data_port):
        for path in (served.path, GRPC, '/'):
            status, headers, start = served.ask(port, path, method, Origin=origin)
            assert status == 403
            assert 'access-control-allow-origin' not in headers
            assert start != RRD_START


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:{port}', '', '192.168.1.1:{port}'])
@pytest.mark.parametrize('origin', [None, 'http://{host}'])
def test_other_host_names_are_refused(served, host, origin):
    for port in (served.page_port, served.data_port):
        name = host.format(port=port)
        headers = {} if origin is None else {'Origin': origin.format(host=name)}
        status, answered, start = served.ask(port, served.path, host=name, **headers)
        assert status == 403
        assert 'access-control-allow-origin' not in answered
        assert start != RRD_START


def test_grpc_web_is_not_spoken(served):
    body = b'\0\0\0\0\0'
    headers = {'Content_Type': 'application/grpc-web+proto', 'X_Grpc_Web': '1'}
    for origin in ('http://evil.example', served.page_origin):
        for port in (served.page_port, served.data_port):
            status, answered, _ = served.ask(port, GRPC, 'POST', body, Origin=origin, **headers)
            assert status in (403, 405)
            assert 'access-control-allow-origin' not in answered


def test_requests_across_sites_are_refused(served):
    status, _, _ = served.ask(served.data_port, served.path, Sec_Fetch_Site='cross-site')
    assert status == 403


@pytest.mark.parametrize('path', ['/', '/scene.rrd', '/x/scene.rrd', '/../etc/passwd', '/%2e%2e'])
def test_data_is_only_given_at_its_secret_address(served, path):
    assert served.ask(served.data_port, path)[0] == 404
    assert served.ask(served.page_port, f'/.{path}')[0] == 404
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
def test_odd_requests_are_refused_and_do_no_harm(served, request_text, capfd):
    with socket.create_connection((served.host, served.data_port), PATIENCE_S) as connection:
        answer = b''
        try:
            connection.sendall(request_text)
            while block := connection.recv(65536):
                answer += block
        except ConnectionError:  # cut off in the middle of too long a request
            pass
    assert b' 200 ' not in answer[:20]
    assert RRD_START not in answer
    assert served.ask(served.data_port, served.path)[0] == 200
    assert 'Traceback' not in capfd.readouterr().err


def test_a_browser_keeps_other_pages_from_the_data(served):
    """Ask as a page of another port does, and as one whose name resolves to this machine."""
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


def test_an_open_view_is_read_under_the_name_that_it_was_opened_under():
    served = Served('0.0.0.0')
    found = {
        address for address, port in listening_addresses([os.getpid()]) if port == served.data_port
    }
    assert [str(address) for address in found] == ['0.0.0.0']
    for host in ('127.0.0.1', 'localhost', '192.168.7.7', socket.gethostname()):
        page = f'http://{host}:{served.page_port}'
        given = {'host': f'{host}:{served.data_port}'}
        status, headers, start = served.ask(served.data_port, served.path, Origin=page, **given)
        assert (status, start) == (200, RRD_START)
        assert headers['access-control-allow-origin'] == page.lower()
        other = f'http://evil.example:{served.page_port}'
        assert served.ask(served.data_port, served.path, Origin=other, **given)[0] == 403
    assert served.ask(served.data_port, served.path, host='evil.example')[0] == 403
    assert 'WARNING: the view listens on 0.0.0.0' in exposure_warning('0.0.0.0')
    for host in ('127.0.0.1', '::1', 'localhost', '127.0.0.2'):
        assert exposure_warning(host) == ''


def test_it_is_served_on_the_loopback_interface_of_ipv6():
    try:
        socket.create_server(('::1', 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip('there is no IPv6 here')
    served = Served('::1')
    assert served.address.startswith('http://[::1]:')
    assert served.ask(served.page_port, '/')[0] == 200
    status, headers, _ = served.ask(served.data_port, served.path, Origin=served.page_origin)
    assert status == 200
    assert headers['access-control-allow-origin'] == served.page_origin


@pytest.mark.parametrize(
    ('host', 'says'),
    [
        ('no such host', 'no address or name of this machine'),
        ('192.0.2.1', 'no address of this machine'),
        ('x' * 10_000, 'no address or name of this machine'),
        ('\x1b[31m', 'no address or name of this machine'),
    ],
)
def test_a_host_that_is_not_here_says_so(host, says):
    with pytest.raises(OSError, match=says) as caught:
        Scene(['']).serve(*free_ports(2), host=host)
    assert len(str(caught.value)) < 250
    assert '\x1b' not in str(caught.value)


def test_a_taken_port_says_so_and_leaves_the_other_free():
    web, data = free_ports(2)
    with socket.create_server(('127.0.0.1', data)):
        with pytest.raises(OSError, match=f'port {data} is taken'):
            Scene(['']).serve(web, data)
        socket.create_server(('127.0.0.1', web)).close()
    with pytest.raises(OSError, match='both'):
        Scene(['']).serve(web, web)
    with pytest.raises(OSError, match='not in 0 to 65535'):
        Scene(['']).serve(web, 70000)


def open_connections(port):
    """Return how many connections to a port of this process there are."""
    with open('/proc/net/tcp') as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return sum(row[1].endswith(f':{port:04X}') and row[3] == '01' for row in rows)


def wait_until(condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_connections_are_limited_and_end(monkeypatch):
    monkeypatch.setattr(server, 'MOST_CONNECTIONS', 4)
    monkeypatch.setattr(server, 'REQUEST_PATIENCE_S', 0.5)
    served = Served()
    # They send nothing, or a request without an end, byte by byte.
    silent = [socket.create_connection((served.host, served.data_port)) for _ in range(20)]
    wait_until(lambda: open_connections(served.data_port) <= 4)
    wait_until(lambda: open_connections(served.data_port) == 0)
    assert served.ask(served.data_port, served.path)[0] == 200
    slow = socket.create_connection((served.host, served.data_port))
    assert is_cut_off_while_dripping(slow)
    for connection in (*silent, slow):
        connection.close()


def is_cut_off_while_dripping(connection):
    """Send byte by byte; tell whether the connection ends within seconds."""
    deadline_s = time.monotonic() + CUT_OFF_S
    try:
        while time.monotonic() < deadline_s:
            connection.sendall(b'G')
            time.sleep(0.05)
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    'head', ['POST / HTTP/1.1\r\nHost: localhost', 'GET / HTTP/1.1\r\nHost: x']
)
def test_a_slow_body_does_not_keep_a_connection(monkeypatch, head):
    monkeypatch.setattr(server, 'REQUEST_PATIENCE_S', 0.5)
    served = Served()
    for port in (served.page_port, served.data_port):
        with socket.create_connection((served.host, port)) as connection:
            connection.sendall(f'{head}\r\nContent-Length: 60000\r\n\r\n'.encode())
            assert is_cut_off_while_dripping(connection)


def test_a_browser_that_takes_the_viewer_slowly_is_cut_off(monkeypatch):
    monkeypatch.setattr(server, 'REQUEST_PATIENCE_S', 0.5)
    monkeypatch.setattr(server, 'SLOWEST_BYTES_S', 1e9)
    served = Served()
    name = 're_viewer_bg.wasm'
    with socket.create_connection((served.host, served.page_port)) as connection:
        connection.sendall(f'GET /{name} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
        deadline_s, taken_bytes = time.monotonic() + CUT_OFF_S, 0
        # Fast enough that no single piece of the file stalls.
        while block := receive(connection, 1 << 16):
            assert time.monotonic() < deadline_s
            taken_bytes += len(block)
            time.sleep(0.05)
    assert taken_bytes < len(viewer_files()[name])
    monkeypatch.undo()
    assert served.ask(served.page_port, f'/{name}')[0] == 200


def receive(connection, size):
    """Return received bytes; none if the connection was ended, in whatever way."""
    try:
        return connection.recv(size)
    except ConnectionError:
        return b''


def test_a_browser_that_does_not_read_costs_no_memory_and_is_cut_off(monkeypatch):
    monkeypatch.setattr(server, 'STALL_S', 1.0)
    served = Served(memory_limit='1MiB')
    connection = socket.create_connection((served.host, served.data_port))
    connection.sendall(f'GET {served.path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode())
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    wait_until(lambda: open_connections(served.data_port) == 1)

    def is_cut_off():
        served.scene.show_image(1.0, '', noise)
        return open_connections(served.data_port) == 0

    wait_until(is_cut_off)
    assert served.scene._backlog.size_bytes < 2 << 20
    connection.close()


def test_only_so_many_browsers_are_shown_data(monkeypatch):
    monkeypatch.setattr(server, 'MOST_STREAMS', 2)
    served = Served()
    request = f'GET {served.path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode()
    readers = [socket.create_connection((served.host, served.data_port)) for _ in range(2)]
    for reader in readers:
        reader.sendall(request)
        assert b' 200 ' in reader.recv(100)
    assert served.ask(served.data_port, served.path)[0] == 503
    for reader in readers:
        reader.close()
    wait_until(lambda: served.ask(served.data_port, served.path)[0] == 200)


def test_an_error_in_a_request_is_one_line(served, capfd, monkeypatch):
    monkeypatch.setattr(served.scene._backlog, '_take', None)
    served.ask(served.data_port, served.path)
    wait_until(lambda: 'view: a request failed: TypeError' in capfd.readouterr().err)


def test_browsers_and_changes_of_the_frame_leave_no_threads_behind():
    served = Served()

    def come_and_go(count):
        for i in range(count):
            served.scene.turn_up(bool(i % 2))
            assert served.ask(served.data_port, served.path)[2] == RRD_START
        wait_until(lambda: open_connections(served.data_port) == 0)
        return len(os.listdir('/proc/self/task'))

    before = come_and_go(4)
    # As many as some browsers have at a time, not a few for each one that was there.
    assert come_and_go(40) < before + 20
