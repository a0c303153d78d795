"""Input that cannot be processed."""

from metrabs_ros.foreign_text import printable

MAX_EXPLANATION_CHARS = 600


class UnusableInput(ValueError):  # noqa: N818
    """
    A frame cannot be processed.

    Parameters
    ----------
    cause
        A few words from a fixed vocabulary, without text from messages: frames are counted by it.
    explanation
        What is wrong, the value, and what to do.  It is made printable and truncated.
    """

    def __init__(self, cause: str, explanation: str) -> None:
        super().__init__(printable(explanation, MAX_EXPLANATION_CHARS))
        self.cause = cause
