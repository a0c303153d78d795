"""From people to RViz markers."""

from __future__ import annotations

from collections.abc import Sequence

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.drawing import color_of
from metrabs_ros.msg import Skeleton, SkeletonArray

JOINT_DIAMETER_M = 0.06
BONE_WIDTH_M = 0.03
TEXT_HEIGHT_M = 0.2
TEXT_ABOVE_M = 0.35
CARRIED_OPACITY = 0.4
"""Of people who are not seen but carried over from earlier frames."""


class MarkerWriter:
    """Makes the markers of each frame, and takes away those of people who left."""

    def __init__(self) -> None:
        self._shown: set[int] = set()

    def __call__(
        self, people: SkeletonArray, distances_m: Sequence[float], up: FloatArray
    ) -> MarkerArray:
        """
        Return the markers for a frame.

        Parameters
        ----------
        people
            N people.
        distances_m
            [N], from the camera.
        up
            [3], the up direction in their frame.
        """
        markers = MarkerArray()
        present = {skeleton.id for skeleton in people.skeletons}
        for person_id in sorted(self._shown - present):
            markers.markers += _removals(person_id, people.header)
        self._shown = present
        for skeleton, distance_m in zip(people.skeletons, distances_m):
            markers.markers += [
                _joints(skeleton, people.header),
                _bones(skeleton, people),
                _text(skeleton, people.header, distance_m, up),
            ]
        return markers

    def clear(self) -> MarkerArray:
        """Return what takes all markers away, wherever and whenever they were shown."""
        self._shown = set()
        marker = Marker(action=Marker.DELETEALL)
        marker.header.stamp = Time()
        return MarkerArray(markers=[marker])


def _joints(skeleton: Skeleton, header: Header) -> Marker:
    marker = _marker(skeleton, header, 'joints', Marker.SPHERE_LIST)
    marker.scale.x = marker.scale.y = marker.scale.z = JOINT_DIAMETER_M
    marker.points = skeleton.positions
    return marker


def _bones(skeleton: Skeleton, people: SkeletonArray) -> Marker:
    marker = _marker(skeleton, people.header, 'bones', Marker.LINE_LIST)
    marker.scale.x = BONE_WIDTH_M
    marker.points = [skeleton.positions[joint] for joint in people.joint_edges]
    return marker


def _text(skeleton: Skeleton, header: Header, distance_m: float, up: FloatArray) -> Marker:
    marker = _marker(skeleton, header, 'text', Marker.TEXT_VIEW_FACING)
    marker.scale.z = TEXT_HEIGHT_M
    up_x, up_y, up_z = up.tolist()

    def height_m(place: Point) -> float:
        height: float = up_x * place.x + up_y * place.y + up_z * place.z
        return height

    top = max(skeleton.positions, key=height_m)
    position = marker.pose.position
    position.x = top.x + TEXT_ABOVE_M * up_x
    position.y = top.y + TEXT_ABOVE_M * up_y
    position.z = top.z + TEXT_ABOVE_M * up_z
    marker.text = f'{skeleton.id}: {distance_m:.1f} m'
    return marker


def _marker(skeleton: Skeleton, header: Header, namespace: str, kind: int) -> Marker:
    red, green, blue = color_of(skeleton.id)
    marker = Marker()
    marker.header = header
    marker.ns = namespace
    marker.id = skeleton.id
    marker.type = kind
    marker.action = Marker.ADD
    marker.pose.orientation.w = 1.0
    opacity = 1.0 if skeleton.seen else CARRIED_OPACITY
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=opacity)
    return marker


def _removals(person_id: int, header: Header) -> list[Marker]:
    removals = []
    for namespace in ('joints', 'bones', 'text'):
        marker = Marker()
        marker.header = header
        marker.ns = namespace
        marker.id = person_id
        marker.action = Marker.DELETE
        removals.append(marker)
    return removals
