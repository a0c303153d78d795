"""Interface of transform buffers, and registration of the data types to transform."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from std_msgs.msg import Header


class TypeException(Exception):  # noqa: N818
    """A type is not registered."""

    def __init__(self, errstr: str) -> None:
        super().__init__(errstr)
        self.errstr = errstr


class NotImplementedException(Exception):  # noqa: N818
    """The buffer does not implement a method."""

    def __init__(self) -> None:
        self.errstr = 'CanTransform or LookupTransform not implemented'
        super().__init__(self.errstr)


class BufferInterface:
    """Base class of transform buffers."""

    def __init__(self) -> None:
        self.registration = TransformRegistration()

    def transform(
        self,
        object_stamped: Any,
        target_frame: str,
        timeout: Duration = Duration(),
        new_type: Any = None,
    ) -> Any:
        """Transform a stamped object to another frame, and optionally convert its type."""
        do_transform = self.registration.get(type(object_stamped))
        header = object_stamped.header
        transform = self.lookup_transform(target_frame, header.frame_id, header.stamp, timeout)
        result = do_transform(object_stamped, transform)
        return result if new_type is None else convert(result, new_type)

    def transform_full(
        self,
        object_stamped: Any,
        target_frame: str,
        target_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),
        new_type: Any = None,
    ) -> Any:
        """Transform a stamped object to another frame and time via a fixed frame."""
        do_transform = self.registration.get(type(object_stamped))
        header = object_stamped.header
        transform = self.lookup_transform_full(
            target_frame, target_time, header.frame_id, header.stamp, fixed_frame, timeout
        )
        result = do_transform(object_stamped, transform)
        return result if new_type is None else convert(result, new_type)

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),
    ) -> TransformStamped:
        """Return the transform from the source frame to the target frame."""
        raise NotImplementedException

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),
    ) -> TransformStamped:
        """Return the transform between frames at two times via a fixed frame."""
        raise NotImplementedException

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),
    ) -> bool:
        """Return whether the transform from the source to the target frame is available."""
        raise NotImplementedException

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),
    ) -> bool:
        """Return whether the transform between frames at two times is available."""
        raise NotImplementedException


def Stamped(obj: Any, stamp: Any, frame_id: str) -> Any:  # noqa: N802
    """Set the header of an object."""
    obj.header = Header(frame_id=frame_id, stamp=stamp)
    return obj


class TransformRegistration:
    """Registry of transform functions by type, shared by all instances."""

    _transforms: ClassVar[dict[Any, Callable[[Any, TransformStamped], Any]]] = {}

    def print_me(self) -> None:
        """Print the registry."""
        print(self._transforms)

    def add(self, key: Any, callback: Callable[[Any, TransformStamped], Any]) -> None:
        """Register the transform function of a type."""
        self._transforms[key] = callback

    def get(self, key: Any) -> Callable[[Any, TransformStamped], Any]:
        """Return the transform function of a type."""
        return _lookup(self._transforms, key)


class ConvertRegistration:
    """Registry of conversion functions by type, shared by all instances."""

    _to_msg: ClassVar[dict[Any, Callable[[Any], Any]]] = {}
    _from_msg: ClassVar[dict[Any, Callable[[Any], Any]]] = {}
    _convert: ClassVar[dict[Any, Callable[[Any], Any]]] = {}

    def add_from_msg(self, key: Any, callback: Callable[[Any], Any]) -> None:
        """Register the conversion of a message to a type."""
        self._from_msg[key] = callback

    def add_to_msg(self, key: Any, callback: Callable[[Any], Any]) -> None:
        """Register the conversion of a type to a message."""
        self._to_msg[key] = callback

    def add_convert(self, key: tuple[Any, Any], callback: Callable[[Any], Any]) -> None:
        """Register the conversion of one type to another."""
        self._convert[key] = callback

    def get_from_msg(self, key: Any) -> Callable[[Any], Any]:
        """Return the conversion of a message to a type."""
        return _lookup(self._from_msg, key)

    def get_to_msg(self, key: Any) -> Callable[[Any], Any]:
        """Return the conversion of a type to a message."""
        return _lookup(self._to_msg, key)

    def get_convert(self, key: tuple[Any, Any]) -> Callable[[Any], Any]:
        """Return the conversion of one type to another."""
        return _lookup(self._convert, key)


def convert(a: Any, b_type: Any) -> Any:
    """Convert an object to another type, directly if possible, else via messages."""
    registration = ConvertRegistration()
    try:
        conversion = registration.get_convert((type(a), b_type))
    except TypeException:
        if type(a) is b_type:
            return copy.deepcopy(a)
        message = registration.get_to_msg(type(a))(a)
        return registration.get_from_msg(b_type)(message)
    return conversion(a)


def _lookup(functions: dict[Any, Callable[..., Any]], key: Any) -> Callable[..., Any]:
    if key not in functions:
        raise TypeException(f'Type {key} is not loaded or supported')
    return functions[key]
