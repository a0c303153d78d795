"""Foreign text in Markdown."""

from __future__ import annotations

from metrabs_ros.foreign_text import printable

_PLAIN = frozenset(' .,;:/%+-=?()\'"')
"""Characters that have no meaning in the middle of a line."""


def escape_markdown(text: object, max_chars: int = 80) -> str:
    """
    Return text that Markdown shows as it is, in one line.

    Links, images, HTML, emphasis and the borders of tables lose their meaning: their characters
    are written as numeric entities.

    Parameters
    ----------
    text
        Any text, for example from a message.
    max_chars
        The length from which on it is truncated.
    """
    return ''.join(
        char if char.isalnum() or char in _PLAIN else f'&#{ord(char)};'
        for char in printable(text, max_chars)
    )
