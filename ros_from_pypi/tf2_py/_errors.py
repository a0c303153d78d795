"""Why a transform cannot be had."""


class TransformException(Exception):  # noqa: N818
    """The base of all of them."""


class ConnectivityException(TransformException):
    """The two frames are in different trees."""


class LookupException(TransformException):
    """There is no such frame."""


class ExtrapolationException(TransformException):
    """The time asked for lies outside of what is known."""


class BackwardExtrapolationException(ExtrapolationException):
    """The time asked for is before what is known."""


class ForwardExtrapolationException(ExtrapolationException):
    """The time asked for is after what is known."""


class NoDataForExtrapolationException(ExtrapolationException):
    """There are too few transforms to interpolate."""


class InvalidArgumentException(TransformException):
    """A frame's name or another argument cannot be one."""


class TimeoutException(TransformException):
    """It took too long."""
