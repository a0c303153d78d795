"""Exception for input that cannot be processed."""

from metrabs_ros.foreign_text import printable

MAX_EXPLANATION_CHARS = 600


class UnusableInput(ValueError):  # noqa: N818
    """
    A frame cannot be processed.

    Parameters
    ----------
    cause
        Short category from a fixed set, without text from messages; dropped frames are counted by
        it.
    explanation
        The error, the value, and what to do.  It is made printable and truncated.
    """

    def __init__(self, cause: str, explanation: str) -> None:
        super().__init__(printable(explanation, MAX_EXPLANATION_CHARS))
        self.cause = cause
