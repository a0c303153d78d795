"""Messages with transforms for tests of recordings."""

from __future__ import annotations

from recorded_bags import START_NS

from metrabs_ros.recordings.typestore import TRANSFORMS, header_at, message_factory

IDENTITY = (0.0, 0.0, 0.0, 1.0)
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
"""Rotation of the optical frame of a camera that looks along x of its parent."""


def transform_message(parent, child, stamp_ns, translation_m=(0, 0, 0), quaternion=IDENTITY):
    """Return a TransformStamped."""
    message = message_factory('geometry_msgs/msg/TransformStamped')(
        header=header_at(stamp_ns, parent), child_frame_id=child
    )
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = map(float, translation_m)
    rotation.x, rotation.y, rotation.z, rotation.w = map(float, quaternion)
    return message


def tree(*transforms):
    """Return a TFMessage."""
    return message_factory(TRANSFORMS)(transforms=list(transforms))


def recorded_tree(topic, time_ns, *transforms):
    """Return a message of a bag at a time after the start: topic, type, time, TFMessage."""
    return topic, TRANSFORMS, START_NS + time_ns, tree(*transforms)
