"""
Serves the viewer's page and the data of a scene over HTTP.

Rerun's own server listens on all interfaces, answers whatever the Host header says, and lets
each page of localhost and rerun.io read the data.  This one listens where it is told to, checks
who asks (see `access`), and gives the data only to those who know its address.
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
"""At the same time, to a port."""
MAX_STREAMS = 16
"""Browsers that are shown data at the same time."""
REQUEST_TIMEOUT_S = 10.0
"""For all of a request to arrive, its body included, and for a refusal to be sent."""
MIN_BYTES_PER_S = 100e3
"""Bytes per second of a file of the viewer; a browser that takes them slower is cut off."""
SEND_TIMEOUT_S = 60.0
"""A connection that takes no data for so long is closed."""
BLOCK_WAIT_S = 1.0
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
"""Keeps the viewer from loading anything from other machines, whatever it is shown."""


class ViewServer:
    """
    Serves a scene to browsers, in threads of its own.

    Parameters
    ----------
    host
        The address or name to listen on.
    page_port, data_port
        The ports; 0 for any free one.
    load_files
        Returns the viewer's files by their names; is called once the ports are taken.
    preamble
        Returns the encoded data that each browser needs first.
    backlog
        The encoded data that follows.

    Raises
    ------
    OSError
        If the server cannot listen there; the message says why.
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
            raise OSError(f'port {page_port} cannot be both --web-port and --data-port')
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
        """The address of the page, with the secret path of the data in it."""
        host = self._host
        if host in ('', '0.0.0.0', '::'):
            host = local_address()
        host = f'[{host}]' if ':' in host else host
        source = urllib.parse.quote(f'http://{host}:{self.data_port}{self._path}', safe='')
        return f'http://{host}:{self.page_port}/?url={source}&renderer=webgl'

    def is_data_path(self, path: str) -> bool:
        """Tell whether a request is for the data, in a time that does not depend on the path."""
        return secrets.compare_digest(path.encode(), self._path.encode())

    def close(self) -> None:
        """Stop listening."""
        for server in (self._page, self._data):
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request; the connection is closed after it."""

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
        """Answer a request, or say why not."""
        # The deadline of the request stays: it also limits the body and the refusal.
        self.close_connection = True
        try:
            host = self._validate_headers()
        except Refused as error:
            self._discard_body()
            self.refuse(HTTPStatus.FORBIDDEN, str(error))
            return
        if self.command not in ('GET', 'HEAD'):
            self._discard_body()
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, 'there is only something to get here')
            return
        self.connection.settimeout(SEND_TIMEOUT_S)
        self.respond(host)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def respond(self, host: str) -> None:
        """Answer a request that was made under a permitted host name."""
        raise NotImplementedError

    def send_headers(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        """Send the header of an answer."""
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """Send a sentence instead of what was asked for."""
        body = f'{reason}\n'.encode()
        headers = {'Content-Type': 'text/plain', 'Content-Length': str(len(body))}
        self.send_headers(status, {**headers, 'Cache-Control': 'no-store'})
        self.send_body(body)

    def send_body(self, body: bytes) -> None:
        """Send in pieces, each of which may take as long as a connection may stall."""
        if self.command == 'HEAD':
            return
        view = memoryview(body)
        for start in range(0, len(view), SEND_CHUNK_BYTES):
            self.wfile.write(view[start : start + SEND_CHUNK_BYTES])

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Log nothing: whoever can connect could fill the log."""

    def _discard_body(self) -> None:
        """Read a short body, without which closing the connection could discard the answer."""
        length = self.headers.get('Content-Length', '')
        if length.isascii() and length.isdigit():
            self.rfile.read(min(int(length[:9]), MAX_BODY_BYTES))

    def _validate_headers(self) -> str:
        for name in ('Host', 'Origin'):
            if len(self.headers.get_all(name, [])) > 1:
                raise Refused(f'the request has several {name} headers')
        if not self.path.startswith('/'):
            raise Refused('the request is for another server')
        host = self.view.rules.host_of(self.headers.get('Host'))
        self.view.rules.check_origin(self.headers.get('Origin'), host, self.view.page_port)
        return host


class _PageHandler(_Handler):
    """Serves the viewer's files."""

    def respond(self, host: str) -> None:
        """Send a file."""
        path, _, _ = self.path.partition('?')
        name = path[1:] or PAGE
        content = self.view.files.get(name)
        if content is None:
            self.refuse(HTTPStatus.NOT_FOUND, 'there is no such file')
            return
        # A policy cannot name an IPv6 address.
        data = f'http://{"*" if host.startswith("[") else host}:{self.view.data_port}'
        patience_s = REQUEST_TIMEOUT_S + len(content) / MIN_BYTES_PER_S
        self.server.set_deadline(self.connection, patience_s)
        headers = {
            'Content-Type': CONTENT_TYPES.get(name.rpartition('.')[2], 'application/octet-stream'),
            'Content-Length': str(len(content)),
            'Content-Security-Policy': CONTENT_SECURITY_POLICY.format(data=data),
            'Cache-Control': 'no-cache',
        }
        self.send_headers(HTTPStatus.OK, headers)
        self.send_body(content)


class _DataHandler(_Handler):
    """Serves what is shown, as it comes."""

    def respond(self, host: str) -> None:
        """Send all data that is kept, then what is added, until the browser leaves."""
        if self.headers.get('Sec-Fetch-Site', 'none') == 'cross-site':
            self.refuse(HTTPStatus.FORBIDDEN, 'the request comes from a page of another site')
        elif not self.view.is_data_path(self.path):
            self.refuse(HTTPStatus.NOT_FOUND, 'there is no data at this address')
        elif not self.view.streams.acquire(blocking=False):
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, 'too many browsers are shown the view')
        else:
            try:
                self._send_scene(host)
            finally:
                self.view.streams.release()

    def _send_scene(self, host: str) -> None:
        # It goes on for as long as the browser shows it; only a stall ends it.
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
    Listens on a port, with a thread for each of a limited number of connections.

    Parameters
    ----------
    family
        Of the address.
    address
        Where to listen.
    handler
        Answers requests.
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
        """Bind, an IPv6 address for all interfaces to IPv4, too; look up no names."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = 'localhost', self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread, unless there are too many."""
        if not self._connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        self.set_deadline(request, REQUEST_TIMEOUT_S)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._end(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._end(request)

    def set_deadline(self, request: Any, patience_s: float) -> None:
        """
        Set when a connection is cut off, whatever it sends or takes until then.

        A timeout of the socket limits each operation alone: a connection that moves one byte at
        a time never reaches it.

        Parameters
        ----------
        request
            The connection.
        patience_s
            Time from now on, in seconds.
        """
        self._deadlines_s[request] = time.monotonic() + patience_s

    def clear_deadline(self, request: Any) -> None:
        """Let a connection take as long as it wants."""
        self._deadlines_s.pop(request, None)

    def service_actions(self) -> None:
        """Cut off connections that are past their deadlines."""
        now_s = time.monotonic()
        for request, deadline_s in list(self._deadlines_s.items()):
            if now_s > deadline_s:
                self.clear_deadline(request)
                try:
                    request.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless it is only that the browser left."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            print(f'view: a request failed: {printable(repr(error), 200)}', file=sys.stderr)

    def _end(self, request: Any) -> None:
        self.clear_deadline(request)
        self.shutdown_request(request)
        self._connections.release()


def _listen(host: str, port: int, handler: type[_Handler], view: ViewServer) -> _Listener:
    """Return what listens on a port, or raise an error with a sentence."""
    if not 0 <= port <= MAX_PORT:
        raise OSError(f'port {port} is not in 0 to {MAX_PORT}')
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise OSError(f'host {printable(host)!r} is no address or name of this machine') from error
    family, _, _, _, address = found[0]
    try:
        return _Listener(family, address, handler, view)
    except OSError as error:
        raise OSError(_listen_error(host, port, error)) from error


def _listen_error(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f'port {port} is taken, perhaps by another view; '
            '--web-port and --data-port take others'
        )
    if error.errno == errno.EACCES:
        return f'port {port} needs privileges; --web-port and --data-port take others'
    if error.errno == errno.EADDRNOTAVAIL:
        return f'host {printable(host)!r} is no address of this machine'
    return f'cannot listen on {printable(host)!r}, port {port}: {error.strerror}'


def _is_closed(connection: socket.socket) -> bool:
    """Tell whether the other side has closed a connection from which nothing more is read."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        return bool(poll.poll(0)) and not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


def exposure_warning(host: str) -> str:
    """Return a sentence about who can see the view, empty if only this machine can."""
    if not AccessRules.listening_on(host).is_open:
        return ''
    return (
        f'WARNING: the view listens on {printable(host)}. Everyone who knows its address and '
        'reaches this machine can see the cameras, and the connection is not encrypted'
    )


def local_address() -> str:
    """Return the address of this machine in its network, or the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: this only asks for the route.
            probe.connect(('192.0.2.1', 9))
            return str(probe.getsockname()[0])
        except OSError:
            return '127.0.0.1'
