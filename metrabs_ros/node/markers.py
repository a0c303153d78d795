"""From people to RViz markers."""

from __future__ import annotations

from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from metrabs_ros.drawing import color_of
from metrabs_ros.msg import Skeleton, SkeletonArray

JOINT_DIAMETER_M = 0.06
BONE_WIDTH_M = 0.03
TEXT_HEIGHT_M = 0.2
TEXT_ABOVE_M = 0.35


class MarkerWriter:
    """Makes the markers of each frame, and takes away those of people who left."""

    def __init__(self) -> None:
        self._shown: set[int] = set()

    def __call__(self, people: SkeletonArray) -> MarkerArray:
        """Return the markers for a frame."""
        markers = MarkerArray()
        present = {skeleton.id for skeleton in people.skeletons}
        for person_id in sorted(self._shown - present):
            markers.markers += _removals(person_id, people.header)
        self._shown = present
        for skeleton in people.skeletons:
            markers.markers += [
                _joints(skeleton, people.header),
                _bones(skeleton, people),
                _text(skeleton, people.header),
            ]
        return markers


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


def _text(skeleton: Skeleton, header: Header) -> Marker:
    marker = _marker(skeleton, header, 'text', Marker.TEXT_VIEW_FACING)
    marker.scale.z = TEXT_HEIGHT_M
    top = min(skeleton.positions, key=lambda position: position.y)
    position = marker.pose.position
    # Up in the camera's optical frame is -y.
    position.x, position.y, position.z = top.x, top.y - TEXT_ABOVE_M, top.z
    distance_m = (top.x**2 + top.y**2 + top.z**2) ** 0.5
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
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=1.0)
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
