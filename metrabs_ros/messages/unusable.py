"""Input that cannot be worked on."""


class UnusableInput(ValueError):  # noqa: N818
    """
    A frame cannot be worked on.

    Parameters
    ----------
    cause
        A few words; frames are counted by it.
    explanation
        What was wrong, the value, and what to do.
    """

    def __init__(self, cause: str, explanation: str) -> None:
        super().__init__(explanation)
        self.cause = cause
