"""A web server on this machine that stalls, breaks off and lies as it is told."""

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
    How the server treats a file.

    Parameters
    ----------
    content
        The file.
    break_off_after
        For each answer in turn, after how many bytes it breaks off; later ones are whole.
    stall
        Stall instead of breaking off.
    ignore_range
        Always send all.
    lie_about_start
        Say that an answer starts where it does not.
    length
        What it says of the file's length.
    etag
        The version that it says it has.
    status
        What it answers instead of the file.
    """

    content: bytes
    break_off_after: list[int] = dataclasses.field(default_factory=list)
    stall: bool = False
    ignore_range: bool = False
    lie_about_start: bool = False
    length: int | None = None
    etag: str | None = '"1"'
    status: int = 200
    asked: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Serve a file in this way; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            behaviour.asked.append(self.headers.get('Range', ''))
            content, start = behaviour.content, 0
            if behaviour.status != 200:
                self.send_error(behaviour.status)
                return
            wanted = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
            same = self.headers.get('If-Range') in (None, behaviour.etag)
            if wanted and same and not behaviour.ignore_range:
                start = int(wanted[1])
                if start >= len(content):
                    self.send_response(416)
                    self.send_header('Content-Range', f'bytes */{len(content)}')
                    self.end_headers()
                    return
                said = start + 7 if behaviour.lie_about_start else start
                self.send_response(206)
                self.send_header(
                    'Content-Range', f'bytes {said}-{len(content) - 1}/{len(content)}'
                )
            else:
                self.send_response(200)
            if behaviour.etag:
                self.send_header('ETag', behaviour.etag)
            length = behaviour.length or len(content)
            self.send_header('Content-Length', str(length - start))
            self.end_headers()
            rest = content[start:]
            if behaviour.break_off_after:
                self.wfile.write(rest[: behaviour.break_off_after.pop(0)])
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
