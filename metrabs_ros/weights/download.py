"""Resumable download of large files over unreliable connections."""

from __future__ import annotations

import http.client
import json
import logging
import os
import pathlib
import re
import ssl
import time
import urllib.error
import urllib.request
from typing import IO, Any

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import (
    open_own,
    open_regular,
    read_limited,
    write_atomically,
)

_LOG = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
MAX_FRUITLESS_ATTEMPTS = 5
"""Maximum number of consecutive attempts without new data."""
STALL_TIMEOUT_S = 30.0
"""A connection without data for this long is closed."""
RANGE_NOT_SATISFIABLE = 416
MAX_DOWNLOAD_BYTES = 8 << 30
MAX_METADATA_BYTES = 4096
MAX_MESSAGE_CHARS = 200
CONNECTION_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


class DownloadError(RuntimeError):
    """A file cannot be downloaded; the message contains the reason."""


class Download:
    """
    A download that resumes an interrupted download, also one of another process.

    Parameters
    ----------
    url
        An http or https address.
    target
        The target file.  Incomplete data is stored next to it, with the suffix ``.part``.
    stall_timeout_s
        Time without data after which a connection is closed.
    retry_delay_s
        Delay before the next attempt.  It doubles with every attempt without new data.

    Attributes
    ----------
    is_resumed
        Whether data of an earlier connection or process was used.
    """

    def __init__(
        self,
        url: str,
        target: pathlib.Path,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        retry_delay_s: float = 1.0,
    ) -> None:
        self._url = url
        self._target = target
        self._part = target.with_name(target.name + '.part')
        self._metadata_file = target.with_name(target.name + '.part.json')
        self._stall_timeout_s = stall_timeout_s
        self._retry_delay_s = retry_delay_s
        self.is_resumed = False

    def run(self) -> None:
        """
        Download the file.

        Raises
        ------
        DownloadError
            If the server rejects the request, `MAX_FRUITLESS_ATTEMPTS` consecutive attempts
            return no new data, or the file is larger than `MAX_DOWNLOAD_BYTES`.
        OSError
            If the file cannot be written.
        """
        if not self._url.startswith(('http://', 'https://')):
            raise DownloadError(f"'{printable(self._url)}' is not an http or https address")
        if os.path.lexists(self._target):
            open_regular(self._target, follow_links=False).close()
            self.is_resumed = True
            return
        self._target.parent.mkdir(parents=True, exist_ok=True)
        fruitless = 0
        while True:
            before = self._part_bytes()
            try:
                if self._attempt():
                    break
                reason = f'the connection ended after {self._part_bytes()} bytes'
            except urllib.error.HTTPError as error:
                reason = f'the server returned {error.code} {printable(error.reason)}'
                if error.code < 500 and error.code != RANGE_NOT_SATISFIABLE:
                    raise self._error(reason) from error
            except CONNECTION_ERRORS as error:
                reason = printable(str(error) or type(error).__name__, MAX_MESSAGE_CHARS)
            except ValueError as error:
                # urllib raises this if the address cannot be parsed.
                raise self._error(printable(error, MAX_MESSAGE_CHARS)) from error
            fruitless = 0 if self._part_bytes() > before else fruitless + 1
            if fruitless == MAX_FRUITLESS_ATTEMPTS:
                raise self._error(f'{reason} ({fruitless} attempts returned no new data)')
            _LOG.info('%s; retrying ...', reason)
            time.sleep(self._retry_delay_s * 2**fruitless)
        os.replace(self._part, self._target)
        self._metadata_file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file and the data of an incomplete download."""
        for file in (self._target, self._part, self._metadata_file):
            file.unlink(missing_ok=True)

    def _error(self, reason: str) -> DownloadError:
        url = printable(self._url, MAX_MESSAGE_CHARS)
        return DownloadError(f'{url} is not available: {reason}')

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > MAX_DOWNLOAD_BYTES:
            self._part.unlink(missing_ok=True)
            raise self._error(
                f'it has {printable(size_bytes)} bytes, more than {MAX_DOWNLOAD_BYTES}'
            )

    def _attempt(self) -> bool:
        """Download with one connection; return whether the file is complete."""
        received_bytes = self._part_bytes()
        request = urllib.request.Request(self._url, headers={'User-Agent': 'metrabs_ros'})
        if received_bytes:
            request.add_header('Range', f'bytes={received_bytes}-')
            # If the file has changed, the server then sends the whole file.
            if validator := self._validator():
                request.add_header('If-Range', validator)
        try:
            response = urllib.request.urlopen(request, timeout=self._stall_timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == RANGE_NOT_SATISFIABLE:
                return self._is_part_complete(error.headers.get('Content-Range', ''))
            raise
        with response:
            start, total = _content_range(response)
            self._check_size(total or 0)
            if start != received_bytes:
                received_bytes = 0
            self.is_resumed |= received_bytes > 0
            validator = response.headers.get('ETag') or response.headers.get('Last-Modified')
            write_atomically(self._metadata_file, json.dumps({'validator': validator}).encode())
            with open_own(self._part, 'ab' if received_bytes else 'wb') as part:
                self._copy(response, part, received_bytes, total)
        return total is None or self._part_bytes() == total

    def _copy(
        self, response: Any, part: IO[bytes], received_bytes: int, total: int | None
    ) -> None:
        # tqdm is imported here because it is needed only for downloads.
        from tqdm import tqdm

        # disable=None shows no progress bar if stderr is not a terminal.
        bar = tqdm(
            desc=self._target.name,
            total=total,
            initial=received_bytes,
            unit='B',
            unit_scale=True,
            disable=None,
        )
        with bar:
            while chunk := response.read1(CHUNK_BYTES):
                received_bytes += len(chunk)
                self._check_size(received_bytes)
                part.write(chunk)
                bar.update(len(chunk))

    def _is_part_complete(self, content_range: str) -> bool:
        """Return whether the part is the complete file; remove a part that is too long."""
        total = re.fullmatch(r'bytes \*/(\d{1,18})', content_range)
        if total and int(total[1]) == self._part_bytes():
            return True
        self._part.unlink(missing_ok=True)
        return False

    def _part_bytes(self) -> int:
        try:
            with open_regular(self._part, follow_links=False) as part:
                return os.fstat(part.fileno()).st_size
        except FileNotFoundError:
            return 0

    def _validator(self) -> str | None:
        try:
            metadata = read_limited(self._metadata_file, MAX_METADATA_BYTES, follow_links=False)
            validator = json.loads(metadata)['validator']
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None
        # Weak validators do not guarantee identical bytes (RFC 9110, section 8.8.1).
        is_strong = isinstance(validator, str) and not validator.startswith('W/')
        return validator if is_strong and validator.isprintable() else None


def _content_range(response: Any) -> tuple[int, int | None]:
    """Return the offset of the first byte of a response, and the file size if it is known."""
    part = re.fullmatch(
        r'bytes (\d{1,18})-\d{1,18}/(\d{1,18})', response.headers.get('Content-Range', '')
    )
    if response.status == http.client.PARTIAL_CONTENT and part:
        return int(part[1]), int(part[2])
    length = re.fullmatch(r'\d{1,18}', response.headers.get('Content-Length', ''))
    return 0, None if length is None else int(length[0])
