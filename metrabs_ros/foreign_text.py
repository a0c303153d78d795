"""Make text from messages, files and parameters safe for logs and terminals."""

from __future__ import annotations

import io
import sys

ELLIPSIS = '...'


def printable(text: object, max_chars: int = 80) -> str:
    r"""
    Return text on one line, without control characters and of bounded length.

    Newlines, control characters, bidirectional overrides, lone surrogates and other nonprintable
    characters are replaced by escape sequences (``\n``, ``\x1b``, ``\u202e``).

    Parameters
    ----------
    text
        Text of unknown origin, or an object to convert with `str`.
    max_chars
        Maximum length of the result; longer text ends in ``...``.

    Returns
    -------
    str
        At most `max_chars` printable characters.
    """
    # One character more than the limit bounds the work and still shows that the text is longer.
    start = str(text)[: max_chars + 1]
    escaped = ''.join(
        character
        if character.isprintable()
        else character.encode('unicode_escape', 'backslashreplace').decode('ascii')
        for character in start
    )
    if len(escaped) <= max_chars:
        return escaped
    return escaped[: max_chars - len(ELLIPSIS)] + ELLIPSIS


def escape_output() -> None:
    """
    Write characters that the encoding of the standard streams lacks as escape sequences.

    Otherwise, a file name with other letters raises a `UnicodeEncodeError` where it is printed,
    for example in a Latin-1 locale.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
