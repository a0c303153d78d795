"""
HTTP server of the viewer's page and of the data of a scene.

The server of Rerun listens on all interfaces, ignores the Host header, and permits pages of
localhost and rerun.io to read the data.  This server listens on the given host, checks each
request (see `access`), and serves the data only at a secret path.
"""

from __future__ import annotations

import errno
import http.server
import secrets
import select
import socket
import socketserver
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from metrabs_ros.foreign_text import printable
from metrabs_ros.view.access import AccessRules, Refused
from metrabs_ros.view.backlog import Backlog, Reader
from metrabs_ros.view.viewer_files import PAGE

MAX_CONNECTIONS = 64
"""Maximum number of simultaneous connections per port."""
MAX_STREAMS = 16
"""Maximum number of browsers that receive data simultaneously."""
REQUEST_TIMEOUT_S = 10.0
"""Time limit to receive a request with its body, and to send an error response."""
MIN_BYTES_PER_S = 100e3
"""Minimum transfer rate of a viewer file; slower connections are closed."""
SEND_TIMEOUT_S = 60.0
"""Time without progress after which a connection is closed."""
BLOCK_WAIT_S = 1.0
"""Period in which a stream without new data checks whether its connection was closed."""
SEND_CHUNK_BYTES = 1 << 18
MAX_BODY_BYTES = 1 << 16
MAX_PORT = 65535
SCENE_FILE = 'scene.rrd'
TOKEN_BYTES = 16
CONTENT_TYPES = {
    'html': 'text/html; charset=utf-8',
    'js': 'text/javascript',
    'wasm': 'application/wasm',
    'ico': 'image/x-icon',
    'png': 'image/png',
}
HEADERS = {
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'Vary': 'Origin',
    'Connection': 'close',
}
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; connect-src 'self' data: blob: {data}; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""Prevents the viewer from loading resources from other machines."""


class ViewServer:
    """
    Server of a scene for browsers, in separate threads.

    Parameters
    ----------
    host
        Address or name to listen on.
    page_port, data_port
        Ports of the page and of the data; 0 for any free port.
    load_files
        Returns the files of the viewer by their names.  It is called after the ports are bound.
    preamble
        Returns the encoded data that each browser needs first.
    backlog
        The encoded data that follows.

    Raises
    ------
    OSError
        If the server cannot listen on the host or the ports; the message states the reason.
    """

    def __init__(
        self,
        host: str,
        page_port: int,
        data_port: int,
        load_files: Callable[[], Mapping[str, bytes]],
        preamble: Callable[[], bytes],
        backlog: Backlog,
    ) -> None:
        if page_port == data_port != 0:
            raise OSError(f'--web-port and --data-port are both {page_port}; they must differ')
        self.rules = AccessRules.listening_on(host)
        self.preamble = preamble
        self.backlog = backlog
        self.streams = threading.BoundedSemaphore(MAX_STREAMS)
        self._host = host
        self._path = f'/{secrets.token_urlsafe(TOKEN_BYTES)}/{SCENE_FILE}'
        self._page = _listen(host, page_port, _PageHandler, self)
        try:
            self._data = _listen(host, data_port, _DataHandler, self)
        except OSError:
            self._page.server_close()
            raise
        try:
            self.files = load_files()
        except OSError:
            self._page.server_close()
            self._data.server_close()
            raise
        for server in (self._page, self._data):
            threading.Thread(target=server.serve_forever, daemon=True).start()

    @property
    def page_port(self) -> int:
        """The port of the page."""
        port: int = self._page.server_address[1]
        return port

    @property
    def data_port(self) -> int:
        """The port of the data."""
        port: int = self._data.server_address[1]
        return port

    @property
    def address(self) -> str:
        """URL of the page, which includes the secret path of the data."""
        host = self._host
        if host in ('', '0.0.0.0', '::'):
            host = local_address()
        host = f'[{host}]' if ':' in host else host
        source = urllib.parse.quote(f'http://{host}:{self.data_port}{self._path}', safe='')
        # In the light theme, labels in the colours of people are hard to read.
        return f'http://{host}:{self.page_port}/?url={source}&renderer=webgl&theme=dark'

    def is_data_path(self, path: str) -> bool:
        """Return whether a path is that of the data; the comparison takes constant time."""
        return secrets.compare_digest(path.encode(), self._path.encode())

    def close(self) -> None:
        """Stop listening."""
        for server in (self._page, self._data):
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handler of one request, after which the connection is closed."""

    server: _Listener
    protocol_version = 'HTTP/1.1'
    server_version = 'metrabs_ros'
    sys_version = ''
    timeout = REQUEST_TIMEOUT_S

    @property
    def view(self) -> ViewServer:
        """The server of both ports."""
        return self.server.view

    def do_GET(self) -> None:
        """Check a request, and respond to it or send an error."""
        # The deadline of the request is kept: it also limits the body and the error response.
        self.close_connection = True
        try:
            host = self._validate_headers()
        except Refused as error:
            self._discard_body()
            self.refuse(HTTPStatus.FORBIDDEN, str(error))
            return
        if self.command not in ('GET', 'HEAD'):
            self._discard_body()
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, 'only GET and HEAD are supported')
            return
        self.connection.settimeout(SEND_TIMEOUT_S)
        self.respond(host)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def respond(self, host: str) -> None:
        """Respond to a request for a permitted host."""
        raise NotImplementedError

    def send_headers(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Send the status line and the headers of a response."""
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """Send an error response with the reason as text."""
        body = f'{reason}\n'.encode()
        headers = {'Content-Type': 'text/plain', 'Content-Length': str(len(body))}
        self.send_headers(status, {**headers, 'Cache-Control': 'no-store'})
        self.send_body(body)

    def send_body(self, body: bytes) -> None:
        """Send the body in chunks, so that `SEND_TIMEOUT_S` applies to each of them."""
        if self.command == 'HEAD':
            return
        view = memoryview(body)
        for start in range(0, len(view), SEND_CHUNK_BYTES):
            self.wfile.write(view[start : start + SEND_CHUNK_BYTES])

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Log nothing, so that requests cannot fill the log."""

    def _discard_body(self) -> None:
        """Read a short body; closing a connection with unread data can discard the response."""
        length = self.headers.get('Content-Length', '')
        if length.isascii() and length.isdigit():
            self.rfile.read(min(int(length[:9]), MAX_BODY_BYTES))

    def _validate_headers(self) -> str:
        for name in ('Host', 'Origin'):
            if len(self.headers.get_all(name, [])) > 1:
                raise Refused(f'the request has more than one {name} header')
        if not self.path.startswith('/'):
            raise Refused('the request is addressed to another server')
        host = self.view.rules.host_of(self.headers.get('Host'))
        self.view.rules.check_origin(self.headers.get('Origin'), host, self.view.page_port)
        return host


class _PageHandler(_Handler):
    """Handler of requests for the viewer's files."""

    def respond(self, host: str) -> None:
        """Send a file."""
        path, _, _ = self.path.partition('?')
        name = path[1:] or PAGE
        content = self.view.files.get(name)
        if content is None:
            self.refuse(HTTPStatus.NOT_FOUND, 'the file does not exist')
            return
        # A content security policy cannot contain an IPv6 address.
        data = f'http://{"*" if host.startswith("[") else host}:{self.view.data_port}'
        timeout_s = REQUEST_TIMEOUT_S + len(content) / MIN_BYTES_PER_S
        self.server.set_deadline(self.connection, timeout_s)
        headers = {
            'Content-Type': CONTENT_TYPES.get(name.rpartition('.')[2], 'application/octet-stream'),
            'Content-Length': str(len(content)),
            'Content-Security-Policy': CONTENT_SECURITY_POLICY.format(data=data),
            'Cache-Control': 'no-cache',
        }
        self.send_headers(HTTPStatus.OK, headers)
        self.send_body(content)


class _DataHandler(_Handler):
    """Handler of requests for the data of the scene."""

    def respond(self, host: str) -> None:
        """Send all buffered data, then new data, until the browser disconnects."""
        if self.headers.get('Sec-Fetch-Site', 'none') == 'cross-site':
            self.refuse(HTTPStatus.FORBIDDEN, 'the request comes from a page of another site')
        elif not self.view.is_data_path(self.path):
            self.refuse(HTTPStatus.NOT_FOUND, 'there is no data at this path')
        elif not self.view.streams.acquire(blocking=False):
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, 'too many browsers display the view')
        else:
            try:
                self._send_scene(host)
            finally:
                self.view.streams.release()

    def _send_scene(self, host: str) -> None:
        # The response has no time limit; only a connection without progress is closed.
        self.server.clear_deadline(self.connection)
        headers = {'Content-Type': 'application/octet-stream', 'Cache-Control': 'no-store'}
        if self.headers.get('Origin') is not None:
            headers['Access-Control-Allow-Origin'] = f'http://{host}:{self.view.page_port}'
        self.send_headers(HTTPStatus.OK, headers)
        if self.command == 'HEAD':
            return
        reader = Reader(self.view.backlog)
        self.send_body(self.view.preamble())
        while True:
            try:
                block = reader.read(BLOCK_WAIT_S)
            except EOFError:
                return
            if block is not None:
                self.send_body(block)
            elif _is_closed(self.connection):
                return


class _Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """
    Listener on a port, with one thread per connection and a limited number of connections.

    Parameters
    ----------
    family
        Address family.
    address
        Address to listen on.
    handler
        Class of the request handlers.
    view
        The server of both ports.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self, family: int, address: Any, handler: type[_Handler], view: ViewServer
    ) -> None:
        self.address_family = family
        self.view = view
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._deadlines_s: dict[Any, float] = {}
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Bind to IPv4, too, if the address is that of all IPv6 interfaces; look up no names."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = 'localhost', self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread, unless there are too many."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self.set_deadline(request, REQUEST_TIMEOUT_S)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._end(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._end(request)

    def set_deadline(self, request: Any, timeout_s: float) -> None:
        """
        Set the time after which a connection is closed, whether or not it makes progress.

        A socket timeout is not sufficient: it limits single operations, so that a connection that
        transfers one byte at a time never reaches it.

        Parameters
        ----------
        request
            The connection.
        timeout_s
            Time from now in seconds.
        """
        self._deadlines_s[request] = time.monotonic() + timeout_s

    def clear_deadline(self, request: Any) -> None:
        """Remove the deadline of a connection."""
        self._deadlines_s.pop(request, None)

    def service_actions(self) -> None:
        """Shut down connections after their deadlines."""
        now_s = time.monotonic()
        for request, deadline_s in list(self._deadlines_s.items()):
            if now_s > deadline_s:
                self.clear_deadline(request)
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an exception of a handler, unless the browser has disconnected."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f'view: a request failed: {printable(repr(error), 200)}', file=sys.stderr)

    def _end(self, request: Any) -> None:
        self.clear_deadline(request)
        self.shutdown_request(request)
        self._connections.release()


def _listen(host: str, port: int, handler: type[_Handler], view: ViewServer) -> _Listener:
    """Return a listener on a port; raise an `OSError` that explains the failure."""
    if not 0 <= port <= MAX_PORT:
        raise OSError(f'port {port} is not from 0 to {MAX_PORT}')
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(
            f'host {printable(host)!r} is not an address or name of this machine'
        ) from error
    family, _, _, _, address = addresses[0]
    try:
        return _Listener(family, address, handler, view)
    except OSError as error:
        raise OSError(_listen_error(host, port, error)) from error


def _listen_error(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f'port {port} is in use, possibly by another view; '
            'select other ports with --web-port and --data-port'
        )
    if error.errno == errno.EACCES:
        return f'port {port} needs privileges; select other ports with --web-port and --data-port'
    if error.errno == errno.EADDRNOTAVAIL:
        return f'host {printable(host)!r} is not an address of this machine'
    return f'cannot listen on {printable(host)!r}, port {port}: {error.strerror}'


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the peer has closed a connection that sends no more data."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        return bool(poll.poll(0)) and not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def exposure_warning(host: str) -> str:
    """Return a warning if the view is accessible from other machines; '' if it is not."""
    if not AccessRules.listening_on(host).is_open:
        return ''
    return (
        f'WARNING: the view listens on {printable(host)}. Any user with its address and network '
        'access to this machine can see the cameras, and the connection is not encrypted'
    )


def local_address() -> str:
    """Return the address of this machine in its network; the loopback address without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket selects a route, but sends nothing.
            probe.connect(('192.0.2.1', 9))
            return str(probe.getsockname()[0])
        except OSError:
            return '127.0.0.1'
