"""Decompression with limits on the size of the output and on the allocated memory."""

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
    Decompress a chunk.

    Parameters
    ----------
    data
        The compressed bytes.
    compression
        '', 'none', 'zstd', 'lz4' or 'bz2'.
    size
        Decompressed size in bytes that the file declares.

    Returns
    -------
    The decompressed bytes.

    Raises
    ------
    DamagedFile
        If the declared size is implausible or wrong, the data is invalid, or the compression is
        not supported.
    """
    if compression in ('', 'none'):
        if len(data) != size:
            raise DamagedFile(f'a chunk has {len(data)} bytes, but declares {size}')
        return data
    check_chunk_size(len(data), size)
    return _decompress(data, compression, size, exactly=True)


def decompress_message(data: bytes | memoryview, limit: int) -> bytes:
    """Decompress a zstd-compressed message; raise a `DamagedFile` above a limit in bytes."""
    return _decompress(data, 'zstd', limit, exactly=False)


def decompress_file(source: IO[bytes], target: IO[bytes], limit: int, advance: Advance) -> None:
    """
    Decompress a zstd file into another file.

    Parameters
    ----------
    source, target
        The open files.
    limit
        Maximum decompressed size in bytes.
    advance
        Called with the number of bytes after each block.

    Raises
    ------
    DamagedFile
        If the limit is exceeded, or the data is invalid.
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
            raise DamagedFile(f'the file decompresses to more than {limit} bytes')
        target.write(part)
        advance(len(part))


def _decompress(data: bytes | memoryview, compression: str, size: int, exactly: bool) -> bytes:
    if compression not in _DECODERS:
        raise DamagedFile(f'the compression {compression[:20]!r} is not supported')
    parts: list[bytes] = []
    total = 0
    rest: bytes | memoryview = data
    with _translate_errors(compression):
        # The data may consist of several frames.
        while len(rest):
            decoder = _DECODERS[compression](size)
            part = decoder.decompress(rest, size + 1 - total)
            total += len(part)
            if total > size:
                raise DamagedFile(f'a chunk decompresses to more than {size} bytes')
            if not decoder.eof:
                raise DamagedFile('the compressed data is truncated')
            parts.append(part)
            rest = decoder.unused_data or b''
    if exactly and total != size:
        raise DamagedFile(f'a chunk decompresses to {total} bytes, but declares {size}')
    return parts[0] if len(parts) == 1 else b''.join(parts)


@contextlib.contextmanager
def _translate_errors(compression: str) -> Iterator[None]:
    """Convert exceptions of compression libraries to `DamagedFile`."""
    try:
        yield
    except DamagedFile:
        raise
    except MemoryError as error:
        raise DamagedFile('not enough memory for decompression') from error
    except Exception as error:  # Each library has its own exceptions.
        raise DamagedFile(f'the {compression} data is invalid: {error}') from error


def _zstd_decoder(size: int) -> Any:
    zstd = _zstd()
    # The decoder allocates the window that a frame's header declares.
    log = math.ceil(math.log2(max(size, 1)))
    log = min(max(log, DEFAULT_WINDOW_LOG), MAX_WINDOW_LOG)
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: log})


def _zstd() -> Any:
    for name in ('compression.zstd', 'backports.zstd'):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise DamagedFile('zstd compression needs backports.zstd: pip install backports.zstd')


def _lz4_decoder(size: int) -> Any:
    return importlib.import_module('lz4.frame').LZ4FrameDecompressor()


_DECODERS: dict[str, Callable[[int], Any]] = {
    'zstd': _zstd_decoder,
    'lz4': _lz4_decoder,
    'bz2': lambda size: bz2.BZ2Decompressor(),
}
