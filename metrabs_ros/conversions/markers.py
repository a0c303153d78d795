"""Convert people to a visualization_msgs/MarkerArray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metrabs_ros.arrays import FloatArray
from metrabs_ros.conversions.message_types import MessageTypes
from metrabs_ros.drawing import color_of

SPHERE_LIST, LINE_LIST, TEXT_VIEW_FACING = 7, 5, 9
ADD, DELETE, DELETEALL = 0, 2, 3
"""Marker types and actions of visualization_msgs/Marker."""

JOINT_DIAMETER_M = 0.06
BONE_WIDTH_M = 0.03
TEXT_HEIGHT_M = 0.2
TEXT_ABOVE_M = 0.35
EXTRAPOLATED_OPACITY = 0.4
"""Opacity of people without a detection in the frame; their poses are extrapolated."""


class MarkerWriter:
    """
    Creates the markers of each frame and deletes the markers of deleted tracks.

    Parameters
    ----------
    types
        Constructors of the message types.
    """

    def __init__(self, types: MessageTypes) -> None:
        self._types = types
        self._shown: set[int] = set()

    def __call__(self, people: Any, labels: Sequence[str], up: FloatArray) -> Any:
        """
        Create the MarkerArray of a frame.

        Parameters
        ----------
        people
            A SkeletonArray of N people.
        labels
            [N], texts above the people.
        up
            [3], up direction in the frame of the people.
        """
        markers: list[Any] = []
        present = {skeleton.id for skeleton in people.skeletons}
        for person_id in sorted(self._shown - present):
            markers += [
                self._types.Marker(header=people.header, ns=namespace, id=person_id, action=DELETE)
                for namespace in ('joints', 'bones', 'text')
            ]
        self._shown = present
        for skeleton, label in zip(people.skeletons, labels):
            markers += [
                self._joints(skeleton, people.header),
                self._bones(skeleton, people),
                self._text(skeleton, people.header, label, up),
            ]
        return self._types.MarkerArray(markers=markers)

    def clear(self) -> Any:
        """Create a MarkerArray that deletes all markers of the topic."""
        self._shown = set()
        return self._types.MarkerArray(markers=[self._types.Marker(action=DELETEALL)])

    def _joints(self, skeleton: Any, header: Any) -> Any:
        marker = self._marker(skeleton, header, 'joints', SPHERE_LIST, skeleton.positions)
        marker.scale.x = marker.scale.y = marker.scale.z = JOINT_DIAMETER_M
        return marker

    def _bones(self, skeleton: Any, people: Any) -> Any:
        points = [skeleton.positions[joint] for joint in people.joint_edges]
        marker = self._marker(skeleton, people.header, 'bones', LINE_LIST, points)
        marker.scale.x = BONE_WIDTH_M
        return marker

    def _text(self, skeleton: Any, header: Any, label: str, up: FloatArray) -> Any:
        marker = self._marker(skeleton, header, 'text', TEXT_VIEW_FACING, [])
        marker.scale.z = TEXT_HEIGHT_M
        up_x, up_y, up_z = up.tolist()

        def height_m(point: Any) -> float:
            height: float = up_x * point.x + up_y * point.y + up_z * point.z
            return height

        top = max(skeleton.positions, key=height_m)
        position = marker.pose.position
        position.x = top.x + TEXT_ABOVE_M * up_x
        position.y = top.y + TEXT_ABOVE_M * up_y
        position.z = top.z + TEXT_ABOVE_M * up_z
        marker.text = label
        return marker

    def _marker(
        self, skeleton: Any, header: Any, namespace: str, kind: int, points: list[Any]
    ) -> Any:
        red, green, blue = color_of(skeleton.id)
        opacity = 1.0 if skeleton.seen else EXTRAPOLATED_OPACITY
        marker = self._types.Marker(
            header=header,
            ns=namespace,
            id=skeleton.id,
            type=kind,
            action=ADD,
            points=points,
            color=self._types.ColorRGBA(r=red, g=green, b=blue, a=opacity),
        )
        marker.pose.orientation.w = 1.0
        return marker
