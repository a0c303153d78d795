"""Escaping of untrusted text in Markdown."""

from __future__ import annotations

from metrabs_ros.foreign_text import printable

_PLAIN = frozenset(' .,;:/%+-=?()\'"')
"""Characters without meaning in the middle of a line of Markdown."""


def escape_markdown(text: object, max_chars: int = 80) -> str:
    """
    Escape text so that Markdown displays it literally, on one line.

    The characters of links, images, HTML, emphasis and tables are written as numeric entities.

    Parameters
    ----------
    text
        Untrusted text, for example from a message.
    max_chars
        Maximum length before escaping; longer text is truncated.
    """
    return ''.join(
        char if char.isalnum() or char in _PLAIN else f'&#{ord(char)};'
        for char in printable(text, max_chars)
    )
