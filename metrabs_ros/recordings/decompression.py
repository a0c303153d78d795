"""Decompression that never returns, or allocates for, more than the caller expects."""

from __future__ import annotations

import bz2
import contextlib
import importlib
import math
from collections.abc import Callable, Iterator
from typing import IO, Any

from metrabs_ros.recordings.limits import DamagedFile, check_chunk_size
from metrabs_ros.recordings.progress import Advance

COPY_BLOCK_BYTES = 2**20
DEFAULT_WINDOW_LOG, MAX_WINDOW_LOG = 27, 30


def decompress(data: bytes | memoryview, compression: str, size: int) -> bytes | memoryview:
    """
    Return a decompressed chunk.

    Parameters
    ----------
    data
        The compressed bytes.
    compression
        '', 'none', 'zstd', 'lz4' or 'bz2'.
    size
        The size in bytes that the file claims.

    Raises
    ------
    DamagedFile
        If the size is implausible or wrong, or the data or the compression is invalid.
    """
    if compression in ('', 'none'):
        if len(data) != size:
            raise DamagedFile(f'a chunk has {len(data)} bytes, but claims {size}')
        return data
    check_chunk_size(len(data), size)
    return _decompress(data, compression, size, exactly=True)


def decompress_message(data: bytes | memoryview, limit: int) -> bytes:
    """Return a zstd-compressed message of at most so many bytes; raises a DamagedFile."""
    return _decompress(data, 'zstd', limit, exactly=False)


def decompress_file(source: IO[bytes], target: IO[bytes], limit: int, advance: Advance) -> None:
    """
    Decompress a zstd file into another one.

    Raises
    ------
    DamagedFile
        If there are more bytes than the limit, or the data is invalid.
    """
    size = 0
    with _translate_errors('zstd'):
        reader = _zstd().open(source, 'rb')
    while True:
        with _translate_errors('zstd'):
            part = reader.read(COPY_BLOCK_BYTES)
        if not part:
            return
        size += len(part)
        if size > limit:
            raise DamagedFile(f'it unpacks to more than {limit} bytes')
        target.write(part)
        advance(len(part))


def _decompress(data: bytes | memoryview, compression: str, size: int, exactly: bool) -> bytes:
    if compression not in _DECODERS:
        raise DamagedFile(f'the compression {compression[:20]!r} is not known')
    parts: list[bytes] = []
    have = 0
    rest: bytes | memoryview = data
    with _translate_errors(compression):
        # Frames may follow each other.
        while len(rest):
            decoder = _DECODERS[compression](size)
            part = decoder.decompress(rest, size + 1 - have)
            have += len(part)
            if have > size:
                raise DamagedFile(f'a chunk unpacks to more than {size} bytes')
            if not decoder.eof:
                raise DamagedFile('the compressed data ends in the middle')
            parts.append(part)
            rest = decoder.unused_data or b''
    if exactly and have != size:
        raise DamagedFile(f'a chunk unpacks to {have} bytes, but claims {size}')
    return parts[0] if len(parts) == 1 else b''.join(parts)


@contextlib.contextmanager
def _translate_errors(compression: str) -> Iterator[None]:
    """Raise what a library raises for invalid data as a DamagedFile."""
    try:
        yield
    except DamagedFile:
        raise
    except MemoryError as error:
        raise DamagedFile('there is not enough memory to decompress it') from error
    except Exception as error:  # Each library has errors of its own.
        raise DamagedFile(f'the {compression} data is invalid: {error}') from error


def _zstd_decoder(size: int) -> Any:
    zstd = _zstd()
    # A frame's header asks for a window, which is allocated at once.
    log = math.ceil(math.log2(max(size, 1)))
    log = min(max(log, DEFAULT_WINDOW_LOG), MAX_WINDOW_LOG)
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: log})


def _zstd() -> Any:
    for name in ('compression.zstd', 'backports.zstd'):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise DamagedFile('it is compressed with zstd; pip install backports.zstd')


def _lz4_decoder(size: int) -> Any:
    return importlib.import_module('lz4.frame').LZ4FrameDecompressor()


_DECODERS: dict[str, Callable[[int], Any]] = {
    'zstd': _zstd_decoder,
    'lz4': _lz4_decoder,
    'bz2': lambda size: bz2.BZ2Decompressor(),
}
