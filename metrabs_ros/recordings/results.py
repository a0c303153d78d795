"""Writing of the result bag: copied messages and people."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.camera_markers import frustum_marker
from metrabs_ros.conversions.markers import MarkerWriter
from metrabs_ros.conversions.people import to_message
from metrabs_ros.conversions.transforms import to_transforms
from metrabs_ros.drawing import short_labels
from metrabs_ros.people import People
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.metadata import CUSTOM_KEY
from metrabs_ros.recordings.recorded_fusion import (
    MARKERS_TOPIC,
    SKELETONS_TOPIC,
    WORLD_UP,
    FusedFrame,
)
from metrabs_ros.recordings.recording import RecordedCamera, RecordedFrame
from metrabs_ros.recordings.typestore import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    MARKERS,
    SKELETONS,
    TRANSFORMS,
    header_at,
    message_factory,
    message_types,
    typestore,
    typestore_of,
)

READ_TYPES = (IMAGE, COMPRESSED_IMAGE, CAMERA_INFO, TRANSFORMS)


class ResultBag:
    """
    An mcap bag with the people and the copied messages of a recording.

    Parameters
    ----------
    folder
        Folder of the bag; it is created.
    cameras
        Cameras of the recording.
    copied_topics
        Topics of the recording that are copied.
    fixed_frame
        Frame of fused people; empty if people are not fused.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        cameras: Sequence[RecordedCamera],
        copied_topics: Sequence[Topic],
        fixed_frame: str = '',
    ) -> None:
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._types = message_types()
        # Publishers of the same topic are merged into one connection.
        by_name = {(topic.name, topic.msgtype): topic for topic in reversed(copied_topics)}
        self._connections = {
            key: self._writer.add_connection(
                topic.name,
                topic.msgtype,
                **definition_arguments(topic),
                offered_qos_profiles=topic.qos,
            )
            for key, topic in sorted(by_name.items())
        }
        self._skeletons, self._markers = (
            [
                self._writer.add_connection(
                    f'{camera.namespace}/pose/{name}', msgtype, typestore=typestore()
                )
                for camera in cameras
            ]
            for name, msgtype in (('skeletons', SKELETONS), ('markers', MARKERS))
        )
        self._transforms = self._connections.get(
            ('/tf', TRANSFORMS)
        ) or self._writer.add_connection('/tf', TRANSFORMS, typestore=typestore())
        self._write_markers = [MarkerWriter(self._types) for _ in cameras]
        self._fixed_frame = fixed_frame
        if fixed_frame:
            self._fused_skeletons, self._fused_markers = (
                self._writer.add_connection(name, msgtype, typestore=typestore())
                for name, msgtype in ((SKELETONS_TOPIC, SKELETONS), (MARKERS_TOPIC, MARKERS))
            )
            self._write_fused_markers = MarkerWriter(self._types)

    def copy_message(self, message: BagMessage) -> None:
        """Write a message of the recording without changes."""
        connection = self._connections[message.topic.name, message.topic.msgtype]
        self._writer.write(connection, message.time_ns, message.data)

    def write_people(
        self, frame: RecordedFrame, people: People, camera: Camera, prefix: str
    ) -> None:
        """
        Write the people of a frame as skeletons, markers and transforms with its stamp.

        Parameters
        ----------
        frame
            The frame.
        people
            People in the camera frame.
        camera
            Camera of the image.
        prefix
            Prefix of the names of person frames in TF.
        """
        header, time_ns = header_at(frame.stamp_ns, frame.frame_id), frame.time_ns
        message = to_message(people, header, self._types)
        labels = short_labels(people)
        markers = self._write_markers[frame.camera](message, labels, camera.up)
        if frame.frame_id:
            self._write_transforms(people, header, time_ns, prefix)
        self._write_message(self._markers[frame.camera], time_ns, markers, MARKERS)
        self._write_message(self._skeletons[frame.camera], time_ns, message, SKELETONS)

    def write_fused(self, fused: FusedFrame) -> None:
        """Write fused people as skeletons, markers with the cameras, and transforms."""
        header = header_at(fused.stamp_ns, self._fixed_frame)
        message = to_message(fused.people, header, self._types)
        labels = [str(person_id) for person_id in fused.people.ids.tolist()]
        markers = self._write_fused_markers(message, labels, WORLD_UP)
        markers.markers.append(frustum_marker(fused.views, header, self._types))
        self._write_transforms(fused.people, header, fused.time_ns, '')
        self._write_message(self._fused_markers, fused.time_ns, markers, MARKERS)
        self._write_message(self._fused_skeletons, fused.time_ns, message, SKELETONS)

    def close(self, summary: str) -> None:
        """Complete the bag; store a summary as custom data in its metadata."""
        self._writer.set_custom_data(CUSTOM_KEY, summary)
        self._writer.close()

    def abort(self) -> None:
        """Close the bag without completing it."""
        self._writer.abort()

    def _write_transforms(self, people: People, header: Any, time_ns: int, prefix: str) -> None:
        if len(people):
            transforms = to_transforms(people, header, self._types, prefix)
            tree = message_factory(TRANSFORMS)(transforms=transforms)
            self._write_message(self._transforms, time_ns, tree, TRANSFORMS)

    def _write_message(self, connection: Any, time_ns: int, message: Any, msgtype: str) -> None:
        data = typestore().serialize_cdr(message, msgtype)
        self._writer.write(connection, time_ns, data)


def definition_arguments(topic: Topic) -> dict[str, Any]:
    """
    Return the definition of a topic's messages and its hash, as arguments of rosbags.

    The definition of ROS is used for the messages that this package reads, and for messages
    without a valid definition in the recording.
    """
    return _arguments(topic.msgtype, '' if topic.msgtype in READ_TYPES else topic.definition)


@functools.lru_cache(maxsize=1000)
def _arguments(msgtype: str, definition: str) -> dict[str, Any]:
    store = typestore_of(msgtype, definition) or typestore()
    if msgtype not in store.fielddefs:
        # Of an unknown type, an empty definition is written: readers reject a hash that does not
        # match the definition.
        store = get_typestore(Stores.EMPTY)
        store.register(get_types_from_msg('', msgtype))
    text, _ = store.generate_msgdef(msgtype, ros_version=2)
    return {'msgdef': text, 'rihs01': store.hash_rihs01(msgtype)}
