"""Limits on the size of recordings, and on the data that is decompressed from them."""

from __future__ import annotations

MIB = 2**20

MAX_MESSAGE_BYTES = 1024 * MIB
MAX_CHUNK_BYTES = 512 * MIB
"""Maximum size of a chunk after decompression."""
MAX_COMPRESSION_RATIO = 1000
"""Maximum ratio of decompressed to compressed bytes, above the unrestricted sizes below."""
UNRESTRICTED_CHUNK_BYTES = 64 * MIB
"""Chunks up to this size may have any compression ratio, as those of uniform images."""
UNRESTRICTED_FILE_BYTES = 1024 * MIB
"""Decompressed size up to which a file may have any compression ratio."""
UNRESTRICTED_RECORDS = 100_000
"""Number of records that a file of any size may have."""
MIN_BYTES_PER_RECORD = 2
"""Minimum average size of a compressed record, beyond `UNRESTRICTED_RECORDS`."""
MAX_OPEN_BYTES = 768 * MIB
"""Maximum total size of the open chunks, whose messages are merged by time."""
MAX_TOPICS = 2000
MAX_NAME_CHARS = 1000
"""Maximum length of the name of a topic, a type or a frame."""
MAX_DEFINITION_CHARS, MAX_DEFINITION_LINES, MAX_LINE_CHARS = 256 * 1024, 2000, 10_000
"""Limits of one message definition; empty lines and comments are not counted."""
MAX_BAG_DEFINITION_CHARS, MAX_BAG_DEFINITION_LINES = 4 * MIB, 12_000
"""Limits of all message definitions of a bag; parsing takes about a millisecond per line."""


class DamagedFile(ValueError):  # noqa: N818
    """A file violates its format or exceeds a limit; the message states the reason."""


class ReadBudget:
    """
    Limits the number of records and decompressed bytes of one pass over a file.

    Parameters
    ----------
    file_bytes
        Size of the file.
    """

    def __init__(self, file_bytes: int) -> None:
        self._records = UNRESTRICTED_RECORDS + file_bytes // MIN_BYTES_PER_RECORD
        self._bytes = UNRESTRICTED_FILE_BYTES + MAX_COMPRESSION_RATIO * file_bytes

    def take_records(self, count: int = 1) -> None:
        """Count records; raise a `DamagedFile` if there are too many for the size of the file."""
        self._records -= count
        if self._records < 0:
            raise DamagedFile('the file has more records than a file of its size can have')

    def take_bytes(self, count: int) -> None:
        """Count decompressed bytes; raise a `DamagedFile` if they exceed the limit of the file."""
        self._bytes -= count
        if self._bytes < 0:
            raise DamagedFile(
                f'the file decompresses to more than {MAX_COMPRESSION_RATIO} times its size; it '
                'may be a decompression bomb'
            )


class DefinitionBudget:
    """Limits the total length of the message definitions that are parsed for one bag."""

    def __init__(self) -> None:
        self._chars, self._lines = MAX_BAG_DEFINITION_CHARS, MAX_BAG_DEFINITION_LINES
        self._accepted: dict[str, bool] = {}

    def accepts(self, definition: str) -> bool:
        """Return whether a definition is within the limits; equal definitions count once."""
        if definition not in self._accepted:
            self._accepted[definition] = self._count(definition)
        return self._accepted[definition]

    def _count(self, definition: str) -> bool:
        if len(definition) > MAX_DEFINITION_CHARS:
            return False
        lines = [line for line in definition.splitlines() if line.strip()]
        count = sum(not line.lstrip().startswith('#') for line in lines)
        # The parser also spends time on each element of default values and annotations.
        count += definition.count('"') // 2 + definition.count(',') // 4
        longest = max(map(len, lines), default=0)
        if count > MAX_DEFINITION_LINES or longest > MAX_LINE_CHARS:
            return False
        self._chars -= len(definition)
        self._lines -= count
        return self._chars >= 0 and self._lines >= 0


def check_chunk_size(compressed_bytes: int, uncompressed_bytes: int) -> None:
    """Raise a `DamagedFile` if the declared decompressed size of a chunk is implausible."""
    limit = min(
        MAX_CHUNK_BYTES,
        max(UNRESTRICTED_CHUNK_BYTES, MAX_COMPRESSION_RATIO * max(compressed_bytes, 0)),
    )
    if not 0 <= uncompressed_bytes <= limit:
        raise DamagedFile(
            f'a chunk of {compressed_bytes} bytes declares {uncompressed_bytes} bytes after '
            f'decompression; at most {limit} are read'
        )
