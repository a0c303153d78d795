"""Lifecycle node with parameters that are the fields of a dataclass."""

from __future__ import annotations

from typing import Any, Generic

from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter

from metrabs_ros.foreign_text import printable
from metrabs_ros.node import parameters
from metrabs_ros.node.callback_failures import MAX_REASON_CHARS
from metrabs_ros.node.managed_node import ManagedNode
from metrabs_ros.node.parameters import Values


class ConfiguredNode(ManagedNode, Generic[Values]):
    """
    Lifecycle node that validates its parameters and accepts integers for floating-point ones.

    Parameters
    ----------
    name
        Node name.
    settings_type
        Dataclass whose fields are defined by `parameters.setting`.

    Raises
    ------
    ValueError
        If a parameter has an invalid value.
    """

    def __init__(self, name: str, settings_type: type[Values], **options: Any) -> None:
        super().__init__(name, **options)
        self._settings_type = settings_type
        self.settings = parameters.declare(self, settings_type)
        self.add_on_set_parameters_callback(self._check)
        # Humble has no such callback; there, settings are applied when they are accepted.
        self._has_post_set_callback = hasattr(self, 'add_post_set_parameters_callback')
        if self._has_post_set_callback:
            self.add_post_set_parameters_callback(self._apply)

    def check_settings(self, changed: Values) -> None:
        """
        Check settings before they are applied; nodes override it.

        Raises
        ------
        ValueError
            If a value is not possible at present.
        """

    def apply_settings(self) -> None:
        """Apply new `settings`; nodes override it."""

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters atomically; integers are accepted for floating-point parameters."""
        return super().set_parameters_atomically(
            parameters.convert_to_declared_types(self._settings_type, parameter_list)
        )

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set parameters one by one; integers are accepted for floating-point parameters."""
        return super().set_parameters(
            parameters.convert_to_declared_types(self._settings_type, parameter_list)
        )

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self.check_settings(parameters.with_changes(self.settings, changes))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=printable(error, MAX_REASON_CHARS))
        if not self._has_post_set_callback:
            self._apply(changes)
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        changed = parameters.with_changes(self.settings, changes)
        # Subscribing declares QoS parameters, which calls this method recursively.
        if changed != self.settings:
            self.settings = changed
            self.apply_settings()
