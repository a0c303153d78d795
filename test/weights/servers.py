"""A local web server with configurable faults: stalls, disconnects, wrong headers."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import re
import threading
import time
from collections.abc import Iterator


@dataclasses.dataclass
class Behaviour:
    """
    Behaviour of the server.

    Parameters
    ----------
    content
        The file.
    disconnect_after
        For each response, the number of bytes before the disconnect.  Later ones are complete.
    stall
        Whether to stall instead of disconnecting.
    ignore_range
        Whether to ignore range requests and send the whole file.
    wrong_start
        Whether the header Content-Range contains a wrong start.
    length
        Length of the file in the header; None for the real length.
    etag
        Version of the file in the header; None for no such header.
    status
        HTTP status; the file is sent only with 200.
    requested_ranges
        Filled by the server: the header Range of each request.
    """

    content: bytes
    disconnect_after: list[int] = dataclasses.field(default_factory=list)
    stall: bool = False
    ignore_range: bool = False
    wrong_start: bool = False
    length: int | None = None
    etag: str | None = '"1"'
    status: int = 200
    requested_ranges: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Serve a file; yield its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour.requested_ranges.append(self.headers.get('Range', ''))
            content, start = behaviour.content, 0
            if behaviour.status != 200:
                self.send_error(behaviour.status)
                return
            byte_range = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
            is_same_version = self.headers.get('If-Range') in (None, behaviour.etag)
            if byte_range and is_same_version and not behaviour.ignore_range:
                start = int(byte_range[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header('Content-Range', f'bytes */{len(content)}')
                    self.end_headers()
                    return
                first_byte = start + 7 if behaviour.wrong_start else start
                self.send_response(206)
                self.send_header(
                    'Content-Range', f'bytes {first_byte}-{len(content) - 1}/{len(content)}'
                )
            else:
                self.send_response(200)
            if behaviour.etag:
                self.send_header('ETag', behaviour.etag)
            length = behaviour.length or len(content)
            self.send_header('Content-Length', str(length - start))
            self.end_headers()
            rest = content[start:]
            if behaviour.disconnect_after:
                self.wfile.write(rest[: behaviour.disconnect_after.pop(0)])
                self.wfile.flush()
                if behaviour.stall:
                    time.sleep(2)
            else:
                self.wfile.write(rest)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/file.tar.gz'
    finally:
        server.shutdown()
        server.server_close()
