"""Writing of bags for tests, and reading of messages and people."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import yaml
from rosbags import rosbag1, rosbag2
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from metrabs_ros.conversions.people import to_people
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.typestore import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    SKELETONS,
    TRANSFORMS,
    message_factory,
    typestore,
)

START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000
FOCAL_PX = 900.0
MCAP, SQLITE = StoragePlugin.MCAP, StoragePlugin.SQLITE3


@dataclasses.dataclass
class RecordedTopic:
    """An image topic and its CameraInfo topic."""

    name: str = '/camera/image_raw'
    frame_id: str = 'camera_optical_frame'
    info: str | None = '/camera/camera_info'
    encoding: str = 'bgr8'
    quality: str | None = None


CAMERA = (RecordedTopic(),)


def header(i, frame_id='camera_optical_frame'):
    sec, nanosec = divmod(START_NS + i * STEP_NS, 10**9)
    stamp = message_factory('builtin_interfaces/msg/Time')(sec=sec, nanosec=nanosec)
    return message_factory('std_msgs/msg/Header')(stamp=stamp, frame_id=frame_id)


def image_message(image, i, topic):
    if topic.quality:
        _, data = cv2.imencode(topic.quality, image)
        return message_factory(COMPRESSED_IMAGE)(
            header=header(i, topic.frame_id), format=topic.quality[1:], data=data.reshape(-1)
        )
    height, width = image.shape[:2]
    return message_factory(IMAGE)(
        header=header(i, topic.frame_id),
        height=height,
        width=width,
        encoding=topic.encoding,
        step=image[0].nbytes,
        data=np.ascontiguousarray(image).view(np.uint8).reshape(-1),
    )


def info_message(image, i, frame_id='camera_optical_frame'):
    height, width = image.shape[:2]
    k = [FOCAL_PX, 0, width / 2, 0, FOCAL_PX, height / 2, 0, 0, 1]
    return message_factory(CAMERA_INFO)(
        header=header(i, frame_id),
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=[0.0] * 5,
        k=k,
        r=np.eye(3).reshape(-1),
    )


def messages_of(images, topics):
    """Return (topic, type, time, message) for images, BGR, on each of the topics."""
    for i, image in enumerate(images):
        time_ns = START_NS + i * STEP_NS
        for topic in topics:
            kind = COMPRESSED_IMAGE if topic.quality else IMAGE
            yield topic.name, kind, time_ns, image_message(image, i, topic)
            if topic.info:
                info = info_message(image, i, topic.frame_id)
                yield topic.info, CAMERA_INFO, time_ns + 1000, info
        text = message_factory('std_msgs/msg/String')(data=f'number {i}')
        yield '/chatter', 'std_msgs/msg/String', time_ns + 2000, text


def definition_arguments(definition):
    """Return the arguments of rosbags for a changed definition of a type."""
    return {} if definition is None else {'msgdef': definition, 'rihs01': f'RIHS01_{"1" * 64}'}


def write_bag(
    folder,
    images,
    topics=CAMERA,
    plugin=MCAP,
    compression=CompressionMode.NONE,
    definitions=None,
    extra=(),
):
    """Write a ROS 2 bag of images, BGR."""
    writer = rosbag2.Writer(folder, version=9, storage_plugin=plugin)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    store, connections = typestore(), {}
    with writer:
        for topic in topics:
            kind = COMPRESSED_IMAGE if topic.quality else IMAGE
            for name, msgtype in ((topic.name, kind), (topic.info, CAMERA_INFO)):
                if name and name not in connections:
                    definition = (definitions or {}).get(msgtype)
                    connections[name] = writer.add_connection(
                        name,
                        msgtype,
                        typestore=store,
                        **definition_arguments(definition),
                    )
        for name, msgtype, time_ns, message in (*messages_of(images, topics), *extra):
            if name not in connections:
                definition = (definitions or {}).get(msgtype)
                connections[name] = writer.add_connection(
                    name, msgtype, typestore=store, **definition_arguments(definition)
                )
            data = message if isinstance(message, bytes) else store.serialize_cdr(message, msgtype)
            writer.write(connections[name], time_ns, data)
    return folder


def write_split_bag(folder, images):
    """Write a bag that is split into two files."""
    half = len(images) // 2
    parts = [folder.with_name(f'part_{i}') for i in range(2)]
    write_bag(parts[0], images[:half])
    later = [item for item in messages_of(images, CAMERA) if item[2] >= START_NS + half * STEP_NS]
    write_bag(parts[1], [], extra=later)
    folder.mkdir()
    metadata = []
    for i, part in enumerate(parts):
        (part / f'{part.name}.mcap').rename(folder / f'{folder.name}_{i}.mcap')
        metadata.append(yaml.safe_load((part / 'metadata.yaml').read_text()))
    info = metadata[0]['rosbag2_bagfile_information']
    other_info = metadata[1]['rosbag2_bagfile_information']
    info['relative_file_paths'] = [f'{folder.name}_{i}.mcap' for i in range(2)]
    info['message_count'] += other_info['message_count']
    info['duration']['nanoseconds'] = len(images) * STEP_NS
    for topic_info in info['topics_with_message_count']:
        topic_info['message_count'] += next(
            topic['message_count']
            for topic in other_info['topics_with_message_count']
            if topic['topic_metadata']['name'] == topic_info['topic_metadata']['name']
        )
    info['files'] = []
    (folder / 'metadata.yaml').write_text(yaml.safe_dump(metadata[0]))
    return folder


def write_ros1_bag(file, images, topics=CAMERA, compression=None, extra=()):
    """Write a ROS 1 bag."""
    store, connections = get_typestore(Stores.ROS1_NOETIC), {}
    for msgtype in (TRANSFORMS, 'tf/msg/tfMessage'):
        transforms = 'geometry_msgs/TransformStamped[] transforms'
        store.register(get_types_from_msg(transforms, msgtype))
    writer = rosbag1.Writer(file)
    if compression:
        writer.set_compression(compression)
    with writer:
        messages = sorted([*messages_of(images, topics), *extra], key=lambda message: message[2])
        for name, msgtype, time_ns, message in messages:
            if name not in connections:
                connections[name] = writer.add_connection(name, msgtype, typestore=store)
            writer.write(
                connections[name], time_ns, store.serialize_ros1(to_ros1(store, message), msgtype)
            )
    return file


def to_ros1(store, message):
    """Return a message as in ROS 1, with `seq` in headers and upper case in CameraInfo."""
    name = message.__msgtype__
    kind = store.types[name]
    values = {}
    for field, _ in store.fielddefs[name][1]:
        ros2_field = field.lower() if name == CAMERA_INFO else field
        value = getattr(message, ros2_field, 0)
        if isinstance(value, list):
            values[field] = [to_ros1(store, item) for item in value]
        else:
            values[field] = to_ros1(store, value) if hasattr(value, '__msgtype__') else value
    return kind(**values)


def messages_in(folder, *names):
    """Return (topic's name, time, data) of the messages in a bag."""
    bag = Bag(folder, lambda message: None)
    try:
        selected = [topic for topic in bag.counts if not names or topic.name in names]
        messages = bag.messages(selected) if selected else ()
        return [(m.topic.name, m.time_ns, bytes(m.data)) for m in messages]
    finally:
        bag.close()


def people_in(folder, topic='/camera/pose/skeletons'):
    """Return (stamp in ns, people) of each frame of results."""
    found = []
    for _, _, data in messages_in(folder, topic):
        message = typestore().deserialize_cdr(data, SKELETONS)
        stamp = message.header.stamp
        found.append((stamp.sec * 10**9 + stamp.nanosec, to_people(message)))
    return found
