"""Conversion of bags with skeletons to another skeleton."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from metrabs_ros.conversions.markers import MarkerWriter
from metrabs_ros.conversions.people import to_message
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MM_PER_M, People
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.fitted_depths import fitted_depths
from metrabs_ros.recordings.metadata import CUSTOM_KEY, METADATA_FILE
from metrabs_ros.recordings.output_files import (
    Pair,
    UnusableOutput,
    absolute,
    check_output,
    find_conflicts,
    publish,
    translate_os_errors,
    unfinished_folder,
)
from metrabs_ros.recordings.progress import progress_bar
from metrabs_ros.recordings.results import definition_arguments
from metrabs_ros.recordings.skeleton_converter import (
    MAX_LABEL_CHARS,
    ConversionSummary,
    SkeletonConverter,
)
from metrabs_ros.recordings.skeleton_messages import UnusableSkeletons, recorded_people
from metrabs_ros.recordings.typestore import MARKERS, SKELETONS, message_types, typestore
from metrabs_ros.skeletons.conventions import Convention

BODY_MARKERS = ('joints', 'bones')
"""Namespaces of the markers that depend on the skeleton."""
SKELETONS_NAME, MARKERS_NAME = 'skeletons', 'markers'


def convert_bag(
    source: pathlib.Path,
    output: pathlib.Path,
    converter: SkeletonConverter,
    overwrite: bool,
    warn: Callable[[str], None],
) -> ConversionSummary:
    """
    Write a copy of a bag with other skeletons and their markers.

    The output is not written if no person can be converted; see
    `skeleton_conversion.convert_skeletons`.
    """
    target = absolute(output)
    for conflict in find_conflicts([Pair(source, target)]):
        if conflict:
            raise UnusableOutput(conflict)
    check_output(target, overwrite, [METADATA_FILE, f'{target.name}.mcap'])
    bag = Bag(source, warn, progress_bar)
    try:
        bag.skeleton_topics()
        with translate_os_errors(output), unfinished_folder(target) as folder:
            summary = _write_bag(bag, folder.results, converter)
            if summary.people or not summary.skipped:
                publish(folder.results, target)
    finally:
        bag.close()
    return summary


def _write_bag(bag: Bag, folder: pathlib.Path, converter: SkeletonConverter) -> ConversionSummary:
    summary = ConversionSummary()
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.open()
    try:
        converted = _ConvertedBag(bag, writer, converter, summary)
        total = sum(bag.counts.values())
        with progress_bar('converting', total, ' messages') as advance:
            for message in bag.messages():
                advance(1)
                converted.add(message)
            converted.finish()
        writer.set_custom_data(CUSTOM_KEY, json.dumps({'converted_people': summary.people}))
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):
            writer.abort()
        raise
    return summary


class _ConvertedBag:
    """
    Writes the messages of a bag: skeletons and their markers converted, all others unchanged.

    The markers of a frame are recorded before its skeletons, so that they wait for them.

    Parameters
    ----------
    bag
        The bag.
    writer
        Writer of the new bag.
    converter
        Converter to the new skeleton.
    summary
        Counts of the conversion.
    """

    def __init__(
        self, bag: Bag, writer: Writer, converter: SkeletonConverter, summary: ConversionSummary
    ) -> None:
        self._writer = writer
        self._converter = converter
        self._summary = summary
        topics = bag.sorted_topics()
        self._connections = {topic: _add_connection(writer, topic) for topic in topics}
        # Parts of topic names that skeletons and their markers have in common.
        self._prefixes = {
            topic.name.removesuffix(SKELETONS_NAME)
            for topic in topics
            if topic.msgtype == SKELETONS
        }
        self._waiting: dict[str, BagMessage] = {}
        self._marker_writers: dict[str, MarkerWriter] = {}

    def add(self, message: BagMessage) -> None:
        """Write a message, or let it wait for the skeletons of the same frame."""
        topic = message.topic
        prefix = topic.name.removesuffix(MARKERS_NAME)
        if topic.msgtype == MARKERS and prefix in self._prefixes:
            if earlier := self._waiting.pop(prefix, None):
                self._write(*earlier)
            self._waiting[prefix] = message
        elif topic.msgtype == SKELETONS:
            self._add_skeletons(message)
        else:
            self._write(*message)

    def finish(self) -> None:
        """Write markers without skeletons."""
        for message in self._waiting.values():
            self._write(*message)

    def _add_skeletons(self, message: BagMessage) -> None:
        converted = _converted(message, self._converter, self._summary)
        if converted is None:
            return
        prefix = message.topic.name.removesuffix(SKELETONS_NAME)
        markers = self._waiting.pop(prefix, None)
        if markers is not None:
            writer = self._marker_writers.setdefault(prefix, MarkerWriter(message_types()))
            data = _converted_markers(markers, converted, writer, self._summary)
            self._write(markers.topic, markers.time_ns, data)
        data = typestore().serialize_cdr(converted, SKELETONS)
        self._write(message.topic, message.time_ns, data)

    def _write(self, topic: Topic, time_ns: int, data: bytes | memoryview) -> None:
        self._writer.write(self._connections[topic], time_ns, data)


def _add_connection(writer: Writer, topic: Topic) -> Any:
    """Return the connection of the new bag for a topic."""
    is_converted = topic.msgtype in (SKELETONS, MARKERS)
    arguments = {'typestore': typestore()} if is_converted else definition_arguments(topic)
    return writer.add_connection(
        topic.name, topic.msgtype, offered_qos_profiles=topic.qos, **arguments
    )


def _converted(
    message: BagMessage, converter: SkeletonConverter, summary: ConversionSummary
) -> Any:
    """Return a SkeletonArray with the new skeleton; None if the message is not valid."""

    def count_invalid(kind: str, count: int, reason: str) -> None:
        summary.skip(f'{kind}: {reason}', count)

    try:
        original, people = recorded_people(message, count_invalid)
        convention = converter.convention(people.skeleton)
    except (UnusableSkeletons, ValueError) as error:
        summary.skip(f'messages: {printable(error, MAX_LABEL_CHARS)}')
        return None
    people = _in_convention(people, convention, summary)
    people = people.select(people.finite())
    summary.people += len(people)
    return to_message(people, original.header, message_types())


def _in_convention(people: People, convention: Convention, summary: ConversionSummary) -> People:
    """Return people in any frame with new joints; count those with approximate image points."""
    if convention.weights is None or not len(people):
        return people.in_convention(convention)
    depths_mm = fitted_depths(people)
    if depths_mm is None:
        # Equal depths give the weighted means of the image points.
        depths_mm = np.full(people.poses3d_mm.shape[:2], MM_PER_M)
        # Fused people have no image points: all of them are 0.
        summary.approximate += int(people.poses2d_px.any(axis=(1, 2)).sum())
    return people.in_convention(convention, depths_mm)


def _converted_markers(
    message: BagMessage, converted: Any, write_markers: MarkerWriter, summary: ConversionSummary
) -> bytes | memoryview:
    """Return a MarkerArray with new joints and bones, and the other markers of a message."""
    try:
        original: Any = typestore().deserialize_cdr(message.data, MARKERS)
    except Exception as error:  # Invalid data can raise any exception in the library.
        summary.skip(f'messages of markers: {printable(error, MAX_LABEL_CHARS)}')
        return message.data
    labels = [''] * len(converted.skeletons)
    written = write_markers(converted, labels, np.array([0.0, 0.0, 1.0])).markers
    own = [marker for marker in written if marker.ns in BODY_MARKERS]
    own += [marker for marker in original.markers if marker.ns not in BODY_MARKERS]
    array = message_types().MarkerArray(markers=own)
    return typestore().serialize_cdr(array, MARKERS)
