"""Limits for recordings, which may come from anywhere: how much is read and unpacked of them."""

from __future__ import annotations

MIB = 2**20

MAX_MESSAGE_BYTES = 1024 * MIB
MAX_CHUNK_BYTES = 512 * MIB
"""Of one compressed chunk after decompression."""
MAX_COMPRESSION_RATIO = 1000
"""Decompressed bytes per compressed byte, beyond what is allowed for files of any size."""
UNRESTRICTED_CHUNK_BYTES = 64 * MIB
"""A chunk of one uniform image compresses far better than MAX_RATIO."""
UNRESTRICTED_FILE_BYTES = 1024 * MIB
UNRESTRICTED_RECORDS = 100_000
MIN_BYTES_PER_RECORD = 2
"""Even well compressed records are larger on average in a large file."""
MAX_OPEN_BYTES = 768 * MIB
"""Of chunks with overlapping times that are held in memory to sort their messages."""
MAX_TOPICS = 2000
MAX_NAME_CHARS = 1000
"""Of the names of topics and types."""
MAX_DEFINITION_CHARS, MAX_DEFINITION_LINES, MAX_LINE_CHARS = 256 * 1024, 2000, 10_000
"""Of one message definition; lines that are empty or comments do not count."""
MAX_BAG_DEFINITION_CHARS, MAX_BAG_DEFINITION_LINES = 4 * MIB, 12_000
"""Of all message definitions of a bag together: parsing takes about a millisecond a line."""


class DamagedFile(ValueError):  # noqa: N818
    """The content of a file contradicts its format, or exceeds a limit; the message says how."""


class ReadBudget:
    """
    Limits how many records and decompressed bytes are read in one pass over a file.

    Parameters
    ----------
    file_bytes
        The size of the file.
    """

    def __init__(self, file_bytes: int) -> None:
        self._records = UNRESTRICTED_RECORDS + file_bytes // MIN_BYTES_PER_RECORD
        self._bytes = UNRESTRICTED_FILE_BYTES + MAX_COMPRESSION_RATIO * file_bytes

    def take_records(self, count: int = 1) -> None:
        """Count records, and raise a DamagedFile if there are too many for a file of its size."""
        self._records -= count
        if self._records < 0:
            raise DamagedFile('it holds more records than a file of its size can')

    def take_bytes(self, count: int) -> None:
        """Count decompressed bytes, and raise a DamagedFile if the file unpacks to too many."""
        self._bytes -= count
        if self._bytes < 0:
            raise DamagedFile(
                f'it unpacks to more than {MAX_COMPRESSION_RATIO} times its size; this looks like a '
                'decompression bomb'
            )


class DefinitionBudget:
    """Limits how much text of message definitions is parsed of one bag."""

    def __init__(self) -> None:
        self._chars, self._lines = MAX_BAG_DEFINITION_CHARS, MAX_BAG_DEFINITION_LINES
        self._accepted: dict[str, bool] = {}

    def accepts(self, definition: str) -> bool:
        """Tell whether a definition is to be parsed; the same one counts once."""
        if definition not in self._accepted:
            self._accepted[definition] = self._take(definition)
        return self._accepted[definition]

    def _take(self, definition: str) -> bool:
        if len(definition) > MAX_DEFINITION_CHARS:
            return False
        lines = [line for line in definition.splitlines() if line.strip()]
        count = sum(not line.lstrip().startswith('#') for line in lines)
        # Default values and annotations take time for each of their parts.
        count += definition.count('"') // 2 + definition.count(',') // 4
        longest = max(map(len, lines), default=0)
        if count > MAX_DEFINITION_LINES or longest > MAX_LINE_CHARS:
            return False
        self._chars -= len(definition)
        self._lines -= count
        return self._chars >= 0 and self._lines >= 0


def check_chunk_size(compressed_bytes: int, uncompressed_bytes: int) -> None:
    """Raise a DamagedFile if a compressed chunk claims to unpack to an implausible size."""
    limit = min(
        MAX_CHUNK_BYTES,
        max(UNRESTRICTED_CHUNK_BYTES, MAX_COMPRESSION_RATIO * max(compressed_bytes, 0)),
    )
    if not 0 <= uncompressed_bytes <= limit:
        raise DamagedFile(
            f'a chunk of {compressed_bytes} bytes claims to unpack to {uncompressed_bytes} bytes; '
            f'at most {limit} are read'
        )
