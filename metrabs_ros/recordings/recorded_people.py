"""People of several cameras in bags with skeletons, as input of the fusion and the calibration."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.foreign_text import printable
from metrabs_ros.fusion.camera_tracks import body_joints
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.people import People
from metrabs_ros.recordings.bag_message import RESULTS_SUFFIX, BagMessage, Topic
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.progress import progress_bar
from metrabs_ros.recordings.scale_cues import read_static_transforms, transform_topics
from metrabs_ros.recordings.skeleton_messages import UnusableSkeletons, recorded_people
from metrabs_ros.recordings.transform_buffer import TransformBuffer
from metrabs_ros.skeletons.conventions import Convention, Skeleton

MAX_CAMERAS = 20
MAX_FRAMES = 30_000
"""Maximum number of frames per camera: a quarter of an hour at 30 Hz."""
SUFFIX = '/pose/skeletons'
MIN_POINTS = 100
"""Minimum number of image points from which intrinsics are estimated."""
MAX_FITTED_POINTS = 20_000
MAX_MISFIT = 0.1
"""Maximum median difference between image points and projections, relative to the focal length."""
MIN_DEPTH_MM = 300.0
FRAME_ERROR = (
    'the positions of its people do not match their image points, so they are not in the frame of '
    'the camera; use the skeletons of pose nodes without target_frame'
)
ID_STEP = 1_000_000_000
"""Added to the ids of each further recording of the same camera."""


@dataclasses.dataclass
class RecordedPeople:
    """
    People of one camera.

    Parameters
    ----------
    name
        Name of the camera.
    frame_id
        Its optical frame in TF; derived from the name if the recording has none, or the same for
        several cameras.
    stamps_s
        F stamps.
    people
        F people of each frame, with the joints of the body, camera frame.
    intrinsic_matrix
        [3, 3], approximately; see `fitted_intrinsics`.
    """

    name: str
    frame_id: str = ''
    stamps_s: list[float] = dataclasses.field(default_factory=list)
    people: list[People] = dataclasses.field(default_factory=list)
    intrinsic_matrix: FloatArray = dataclasses.field(default_factory=lambda: np.eye(3))

    def frames(self, extrinsic_matrix: FloatArray | None = None) -> Iterator[CameraPeople]:
        """
        Yield the frames, with the image points of the network in an approximate pinhole camera.

        The rays of the positions are known without the lens and the intrinsics, and their image
        points too; only the few pixels between those and the points of the network depend on the
        approximate focal lengths.

        Parameters
        ----------
        extrinsic_matrix
            [4, 4], from world to camera, millimetres; by default the identity.
        """
        pose = np.eye(4) if extrinsic_matrix is None else extrinsic_matrix
        camera = Camera(self.intrinsic_matrix, extrinsic_matrix=pose)
        for stamp_s, people in zip(self.stamps_s, self.people):
            in_front = people.poses3d_mm[..., 2] > MIN_DEPTH_MM
            offsets_px = people.network_poses2d_px - people.poses2d_px
            people = dataclasses.replace(
                people,
                network_poses2d_px=camera.project(people.poses3d_mm) + offsets_px,
                joint_confidence=np.where(in_front, people.joint_confidence, 0),
            )
            yield CameraPeople.from_people(self.name, camera, stamp_s, people)


def read_people(
    paths: Sequence[pathlib.Path], warn: Callable[[str], None]
) -> tuple[list[RecordedPeople], TransformBuffer]:
    """
    Read the people of all cameras in one or several bags.

    A topic that several bags have is one camera if their times differ, and a camera for each bag
    otherwise, as in results of annotate for several videos.

    Parameters
    ----------
    paths
        Bags with skeletons.
    warn
        Called with each warning message.

    Returns
    -------
    The cameras, and the static transforms.

    Raises
    ------
    UnusableFile
        If a path does not exist or cannot be read.
    UnreadableRecording
        If a bag has no skeletons.
    """
    buffer = TransformBuffer()
    by_topic: dict[str, list[tuple[pathlib.Path, RecordedPeople]]] = {}
    for path in paths:
        bag = Bag(path, warn, progress_bar)
        try:
            read_static_transforms(bag, transform_topics(bag), buffer)
            topics = bag.skeleton_topics()
            with progress_bar(f'reading {printable(path.name)}', None, ' messages') as advance:
                for own in _read_topics(bag, topics, warn, advance):
                    by_topic.setdefault(own.name, []).append((path, own))
        finally:
            bag.close()
    cameras = []
    for own in (own for parts in by_topic.values() for own in _merged(parts)):
        try:
            own.intrinsic_matrix = fitted_intrinsics(own.people)
        except UnreadableRecording as error:
            warn(f'{printable(own.name)} is not used: {error}')
            continue
        cameras.append(own)
    if len(cameras) > MAX_CAMERAS:
        warn(f'there are {len(cameras)} cameras; the first {MAX_CAMERAS} are used')
    return _with_unique_names_and_frames(cameras[:MAX_CAMERAS]), buffer


def _read_topics(
    bag: Bag, topics: Sequence[Topic], warn: Callable[[str], None], advance: Callable[[int], None]
) -> list[RecordedPeople]:
    cameras = {
        topic: RecordedPeople(topic.name.removesuffix(SUFFIX).strip('/') or 'camera')
        for topic in topics
    }
    problems: dict[Topic, Counter[str]] = {topic: Counter() for topic in topics}
    for message in bag.messages(topics):
        advance(1)
        own, problem = cameras[message.topic], problems[message.topic]
        if len(own.people) >= MAX_FRAMES:
            problem[f'messages are later than the first {MAX_FRAMES}'] += 1
            continue
        _add_message(own, message, problem)
    for topic, counts in problems.items():
        for reason, count in counts.items():
            warn(f'{count} of {bag.counts[topic]} on {printable(topic.name)} skipped: {reason}')
    return list(cameras.values())


def _add_message(own: RecordedPeople, message: BagMessage, problems: Counter[str]) -> None:
    def count_invalid(kind: str, count: int, reason: str) -> None:
        problems[f'{kind}, {reason}'] += count

    try:
        skeletons, people = recorded_people(message, count_invalid)
    except UnusableSkeletons as error:
        problems[f'messages, {error}'] += 1
        return
    body = _body(people)
    if not len(body.skeleton):
        problems['messages, joint_names has none of the joints of the body'] += 1
        return
    own.frame_id = own.frame_id or skeletons.header.frame_id.lstrip('/')
    own.stamps_s.append(to_seconds(skeletons.header.stamp))
    own.people.append(body)


def _body(people: People) -> People:
    """Return people with only the joints of the body; skeletons can have hundreds of joints."""
    joints = body_joints(people.skeleton)
    joints = joints[joints >= 0]
    names = tuple(people.skeleton.joint_names[i] for i in joints)
    return people.in_convention(Convention(Skeleton('body', names, ()), joints))


def _merged(parts: Sequence[tuple[pathlib.Path, RecordedPeople]]) -> list[RecordedPeople]:
    """Return one camera, or one for each bag if they were recorded at the same time."""
    if len(parts) == 1:
        return [parts[0][1]]
    ranges = sorted((min(own.stamps_s), max(own.stamps_s)) for _, own in parts if own.stamps_s)
    if any(later[0] <= earlier[1] for earlier, later in itertools.pairwise(ranges)):
        return [
            dataclasses.replace(own, name=path.stem.removesuffix(RESULTS_SUFFIX))
            for path, own in parts
        ]
    result = RecordedPeople(parts[0][1].name, parts[0][1].frame_id)
    for k, (_, own) in enumerate(parts):
        result.stamps_s += own.stamps_s
        result.people += [
            dataclasses.replace(people, ids=people.ids + k * ID_STEP) for people in own.people
        ]
    return [result]


def _with_unique_names_and_frames(cameras: list[RecordedPeople]) -> list[RecordedPeople]:
    used: Counter[str] = Counter()
    for own in cameras:
        used[own.name] += 1
        if used[own.name] > 1:
            own.name = f'{own.name}_{used[own.name]}'
    frames = Counter(own.frame_id for own in cameras)
    for own in cameras:
        if not own.frame_id or frames[own.frame_id] > 1:
            own.frame_id = own.name.replace('/', '_')
    return cameras


def fitted_intrinsics(frames: Sequence[People]) -> FloatArray:
    """
    Return the intrinsic matrix [3, 3] that projects positions to image points.

    Raises
    ------
    UnreadableRecording
        If the positions are not in the frame of the camera.
    """
    poses_mm = np.concatenate(
        [own.poses3d_mm.reshape(-1, 3) for own in frames] or [np.zeros((0, 3))]
    )
    points_px = np.concatenate(
        [own.poses2d_px.reshape(-1, 2) for own in frames] or [np.zeros((0, 2))]
    )
    usable = poses_mm[:, 2] > MIN_DEPTH_MM
    if len(usable) and usable.mean() < 0.5:
        raise UnreadableRecording(FRAME_ERROR)
    poses_mm, points_px = poses_mm[usable], points_px[usable]
    step = max(len(poses_mm) // MAX_FITTED_POINTS, 1)
    poses_mm, points_px = poses_mm[::step], points_px[::step]
    if len(poses_mm) < MIN_POINTS:
        # Too few people for any result; the calibration explains that.
        return np.array([[1000.0, 0, 500], [0, 1000, 500], [0, 0, 1]])
    rays = poses_mm[:, :2] / poses_mm[:, 2:]
    matrix = np.eye(3)
    misfit = np.zeros(len(rays))
    for axis in (0, 1):
        design = np.column_stack([rays[:, axis], np.ones(len(rays))])
        solution, *_ = np.linalg.lstsq(design, points_px[:, axis], rcond=None)
        matrix[axis, axis], matrix[axis, 2] = solution
        misfit = np.maximum(misfit, np.abs(design @ solution - points_px[:, axis]))
    focal_px = min(matrix[0, 0], matrix[1, 1])
    if not focal_px > 0 or np.median(misfit) > MAX_MISFIT * focal_px:
        raise UnreadableRecording(FRAME_ERROR)
    return matrix


def ancestors(frame: str, parents: Mapping[str, str]) -> list[str]:
    """Return a frame, its parent, and so on up to the root; or to the start of a cycle."""
    result = [frame]
    while (parent := parents.get(result[-1])) and parent not in result:
        result.append(parent)
    return result
