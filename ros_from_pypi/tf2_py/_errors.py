"""Exceptions of tf2."""


class TransformException(Exception):  # noqa: N818
    """Base class of all exceptions of tf2."""


class ConnectivityException(TransformException):
    """The frames are not connected."""


class LookupException(TransformException):
    """A frame does not exist."""


class ExtrapolationException(TransformException):
    """The requested time is outside of the range of the available transforms."""


class BackwardExtrapolationException(ExtrapolationException):
    """The requested time is before the earliest transform."""


class ForwardExtrapolationException(ExtrapolationException):
    """The requested time is after the latest transform."""


class NoDataForExtrapolationException(ExtrapolationException):
    """There are too few transforms for interpolation."""


class InvalidArgumentException(TransformException):
    """A frame name or another argument is invalid."""


class TimeoutException(TransformException):
    """The timeout has expired."""
