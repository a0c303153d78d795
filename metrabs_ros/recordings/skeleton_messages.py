"""Reading of SkeletonArray messages from untrusted recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metrabs_ros.conversions.skeleton_validation import valid_people
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import People
from metrabs_ros.recordings.bag_message import BagMessage
from metrabs_ros.recordings.typestore import SKELETONS, typestore


class UnusableSkeletons(ValueError):  # noqa: N818
    """A message with skeletons is not valid; the text states the reason."""


def recorded_people(
    message: BagMessage, count_invalid: Callable[[str, int, str], None]
) -> tuple[Any, People]:
    """
    Return a recorded SkeletonArray and its valid people.

    Parameters
    ----------
    message
        The message.
    count_invalid
        Called with a plural noun, the number and the reason for people that are not valid.

    Raises
    ------
    UnusableSkeletons
        If the message as a whole is not valid.
    """
    try:
        skeletons: Any = typestore().deserialize_cdr(message.data, SKELETONS)
    except Exception as error:  # Invalid data can raise any exception in the library.
        raise UnusableSkeletons(f'the data is not a SkeletonArray ({printable(error)})') from error
    try:
        people, invalid = valid_people(skeletons)
    except ValueError as error:
        raise UnusableSkeletons(str(error)) from error
    for reason, count in invalid.items():
        count_invalid('skeletons', count, reason)
    return skeletons, people
