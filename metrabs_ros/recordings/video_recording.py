"""A folder of synchronised videos, one per calibrated camera, as a recording."""

from __future__ import annotations

import heapq
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.conversions.transforms import frame_name, quaternions
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import View
from metrabs_ros.recordings.bag_message import BagMessage, Topic
from metrabs_ros.recordings.calibration import UnusableCalibration
from metrabs_ros.recordings.image_files import Source, UnusableImage, UnusableSource
from metrabs_ros.recordings.image_recording import camera_messages
from metrabs_ros.recordings.input_files import is_folder, join_names, list_folder
from metrabs_ros.recordings.profiles import LATCHED
from metrabs_ros.recordings.recording import RecordedCamera, RecordedFrame, timed_view
from metrabs_ros.recordings.rig_calibration import (
    PlacedCamera,
    is_rig_calibration,
    read_rig,
    resized,
)
from metrabs_ros.recordings.typestore import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    TRANSFORMS,
    header_at,
    message_factory,
    typestore,
)
from metrabs_ros.regular_file import shown
from metrabs_ros.tracking.timed_view import TimedView

VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.y4m')
VIDEO_FOLDER, CALIBRATION_FOLDER = 'videos', 'calibration'
"""Folders of a Pose2Sim project."""
MAX_RATE_DIFFERENCE = 0.01
"""Rates that differ by less, as a share, are taken as inexact values of the same rate."""
TF_STATIC = '/tf_static'


class VideoRecording:
    """
    Synchronised videos of several cameras.  Stamps start at 0 s and follow the frame rates.

    Parameters
    ----------
    videos
        A video for each camera; at least one.
    cameras
        The cameras with their poses, in the order of the videos.
    fixed_frame
        Name of the world frame.
    copy_messages
        Whether the images, as JPEG, and CameraInfo messages are written to the results.
    warn
        Called with each warning message.
    """

    def __init__(
        self,
        videos: Sequence[Source],
        cameras: Sequence[PlacedCamera],
        fixed_frame: str,
        copy_messages: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._videos = videos
        self._placed = list(cameras)
        self._fixed_frame = fixed_frame
        self._warn = warn
        self._rates_hz = _common_rates_hz(videos, warn)
        self._has_warned = [False] * len(videos)
        names = _unique([frame_name(own.name) or 'camera' for own in cameras])
        self.cameras = [
            RecordedCamera(f'/{name}', f'{name}_', shown(video.path), video.expected_frames)
            for name, video in zip(names, videos)
        ]
        self._images = [Topic(f'/{name}/image_raw/compressed', COMPRESSED_IMAGE) for name in names]
        self._infos = [Topic(f'/{name}/camera_info', CAMERA_INFO) for name in names]
        self._copies = copy_messages
        self._static = Topic(TF_STATIC, TRANSFORMS, qos=(LATCHED,))
        copied = [*self._images, *self._infos] if copy_messages else []
        self.copied_topics: Sequence[Topic] = [self._static, *copied]

    def __iter__(self) -> Iterator[RecordedFrame | BagMessage]:
        """Return frames and messages; see `Recording`."""
        yield self._camera_poses()
        counts = [0] * len(self._videos)
        frames = [self._frames_of(i) for i in range(len(self._videos))]
        # Of frames of the same time, those of the first camera are first.
        for frame in heapq.merge(*frames, key=lambda own: (own.time_ns, own.camera)):
            counts[frame.camera] += 1
            if self._copies and not isinstance(frame.content, UnusableInput):
                yield from self._messages(frame)
            yield frame
        self._warn_about_ends(counts)

    def view(self, frame: RecordedFrame) -> TimedView:
        """Return the image of a frame and its camera; see `Recording`."""
        if isinstance(frame.content, UnusableInput):
            raise frame.content
        image = frame.content[..., ::-1]
        placed = self._sized(frame.camera, image.shape)
        return timed_view(frame, View(image, to_camera(placed.calibration, image.shape)))

    def close(self) -> None:
        """Do nothing; the videos need no closing."""

    def _frames_of(self, camera: int) -> Iterator[RecordedFrame]:
        own = self._placed[camera]
        for i, image in enumerate(self._videos[camera].images_or_errors()):
            time_ns = round(i * 1e9 / self._rates_hz[camera])
            content: ImageArray | UnusableInput = (
                UnusableInput('picture', str(image)) if isinstance(image, UnusableImage) else image
            )
            yield RecordedFrame(
                camera, time_ns, time_ns, own.frame_id, content, pose=own.extrinsic_matrix
            )

    def _sized(self, camera: int, image_shape: tuple[int, ...]) -> PlacedCamera:
        """
        Return a camera with the calibration of its images; warn if they have another size.

        Raises
        ------
        UnusableInput
            If the calibration is for images of another aspect ratio.
        """
        own = self._placed[camera]
        height, width = image_shape[:2]
        name = shown(self._videos[camera].path)
        try:
            calibration = resized(own.calibration, width, height)
        except UnusableCalibration as error:
            raise UnusableInput(f'camera_info size, {own.name}', f'{name}: {error}') from error
        known = own.calibration.width, own.calibration.height
        if known not in ((width, height), (0, 0)) and not self._has_warned[camera]:
            self._has_warned[camera] = True
            self._warn(
                f'{name} has {width} x {height} pixels, but its calibration is for {known[0]} x '
                f'{known[1]}; the video is taken as a scaled one'
            )
        return PlacedCamera(own.name, own.frame_id, calibration, own.extrinsic_matrix)

    def _messages(self, frame: RecordedFrame) -> Iterator[BagMessage]:
        """Return the messages that a camera driver would have published for a frame."""
        try:
            calibration = self._sized(frame.camera, frame.content.shape).calibration
        except UnusableInput:
            calibration = None
        yield from camera_messages(
            frame.content,
            calibration,
            header_at(frame.stamp_ns, frame.frame_id),
            self._images[frame.camera],
            self._infos[frame.camera],
        )

    def _camera_poses(self) -> BagMessage:
        """Return a message with the poses of the cameras in the fixed frame."""
        transforms = [
            _to_transform(own.extrinsic_matrix, self._fixed_frame, own.frame_id)
            for own in self._placed
        ]
        message = message_factory(TRANSFORMS)(transforms=transforms)
        return BagMessage(self._static, 0, typestore().serialize_cdr(message, TRANSFORMS))

    def _warn_about_ends(self, counts: Sequence[int]) -> None:
        ends_s = [count / rate_hz for count, rate_hz in zip(counts, self._rates_hz)]
        last_s, rate_hz = max(ends_s), max(self._rates_hz)
        for video, count, end_s in zip(self._videos, counts, ends_s):
            # One frame is the rounding of different rates.
            if last_s - end_s > 0.5 / rate_hz:
                self._warn(
                    f'{shown(video.path)} ends at {end_s:.2f} s, after {count} frames, before the '
                    f'longest video, which ends at {last_s:.2f} s; the people after it are fused '
                    'from the other cameras'
                )


def open_videos(
    folder: pathlib.Path,
    calibration: pathlib.Path | None,
    fixed_frame: str,
    copy_messages: bool,
    warn: Callable[[str], None],
) -> VideoRecording:
    """
    Open the videos of a folder, or of its folder `VIDEO_FOLDER`, with their calibration.

    Parameters
    ----------
    folder
        The folder.
    calibration
        The calibration; see `read_rig`.  None for the file in `CALIBRATION_FOLDER`.
    fixed_frame, copy_messages, warn
        As for `VideoRecording`.

    Raises
    ------
    UnusableSource
        If the folder has no videos, or none of a calibrated camera.
    UnusableCalibration
        If the calibration cannot be used.
    """
    files = _find_videos(folder)
    path = calibration or _find_calibration(folder)
    rig = read_rig(path, fixed_frame, warn)
    assigned = assign_cameras([file.stem for file in files], list(rig))
    matched = {files[i]: name for i, name in assigned.items()}
    if not matched:
        raise UnusableSource(
            f'none of the videos {join_names(file.name for file in files)} has the name of a '
            f'camera in {shown(path)} ({join_names(rig)}); rename them'
        )
    videos, cameras = [], []
    for file in files:
        if file not in matched:
            warn(
                f'{shown(file)} is not processed: {shown(path)} has no camera of this name '
                f'(cameras: {join_names(rig)})'
            )
            continue
        try:
            videos.append(Source(str(file)))
        except UnusableSource as error:
            warn(f'camera {printable(matched[file], 100)} is not used: {error}')
            continue
        cameras.append(rig[matched[file]])
        if file.stem != matched[file]:
            warn(f'{shown(file)} is taken as the video of {printable(matched[file], 100)}')
    if not videos:
        raise UnusableSource(f'no video of {shown(folder)} can be read')
    missing = [name for name in rig if name not in matched.values()]
    if missing:
        warn(f'{shown(folder)} has no video of the calibrated cameras {join_names(missing)}')
    return VideoRecording(videos, cameras, fixed_frame, copy_messages, warn)


def assign_cameras(videos: Sequence[str], cameras: Sequence[str]) -> Mapping[int, str]:
    """
    Return the name of the camera for each video that can be assigned, by the index of the video.

    Names are equal, or one is a part of the other, as in ``int_cam01_img`` of Pose2Sim for
    ``cam01``.  If no name matches and there are as many videos as cameras, both are assigned in
    the order of their names, as by Pose2Sim.
    """
    assigned: dict[int, str] = {i: name for i, name in enumerate(videos) if name in cameras}
    free = [name for name in cameras if name not in assigned.values()]
    for i, video in enumerate(videos):
        parts = [name for name in free if _is_part(video, name) or _is_part(name, video)]
        if i not in assigned and len(parts) == 1:
            assigned[i] = parts[0]
    # A camera that several videos match is not known.
    names = list(assigned.values())
    assigned = {i: name for i, name in assigned.items() if names.count(name) == 1}
    if not assigned and len(videos) == len(cameras):
        order = sorted(range(len(videos)), key=lambda i: _natural_key(videos[i]))
        assigned = dict(zip(order, sorted(cameras, key=_natural_key)))
    return assigned


def _is_part(part: str, text: str) -> bool:
    """Return whether a name is a part of a text that letters and digits do not continue."""
    pattern = rf'(?<![A-Za-z0-9]){re.escape(part.lower())}(?![A-Za-z0-9])'
    return bool(part) and re.search(pattern, text.lower()) is not None


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers in names by their value."""
    parts = re.findall(r'\d+|\D+', name)
    return [(int(part[:15]), '') if part[0].isdecimal() else (-1, part) for part in parts]


def _find_videos(folder: pathlib.Path) -> list[pathlib.Path]:
    for own in (folder, folder / VIDEO_FOLDER):
        files = list_folder(own) if is_folder(own) else []
        files = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        if files:
            return files
    raise UnusableSource(
        f'{shown(folder)} has no videos ({" ".join(VIDEO_SUFFIXES)}) and no folder '
        f'{VIDEO_FOLDER} with videos'
    )


def _find_calibration(folder: pathlib.Path) -> pathlib.Path:
    own = folder / CALIBRATION_FOLDER
    files = (
        [file for file in list_folder(own) if is_rig_calibration(file)] if is_folder(own) else []
    )
    if len(files) != 1:
        found = f'{len(files)} calibrations ({join_names(file.name for file in files)})'
        raise UnusableCalibration(
            f'{shown(own)} has {found if files else "no calibration"}; give the calibration of '
            'the cameras with --calibration FILE'
        )
    return files[0]


def _common_rates_hz(videos: Sequence[Source], warn: Callable[[str], None]) -> FloatArray:
    """Return the rate of each video; the same one if the declared rates are almost equal."""
    rates_hz = np.array([video.rate_hz for video in videos])
    common_hz = float(np.sort(rates_hz)[(len(rates_hz) - 1) // 2])
    if not np.ptp(rates_hz):
        return rates_hz
    listed = ', '.join(f'{shown(v.path.name)} {v.rate_hz:g} Hz' for v in videos)
    if (np.abs(rates_hz / common_hz - 1) <= MAX_RATE_DIFFERENCE).all():
        warn(
            f'the videos have slightly different frame rates ({listed}); {common_hz:g} Hz is used '
            'for all of them'
        )
        return np.full(len(rates_hz), common_hz)
    warn(f'the videos have different frame rates ({listed}); frames are matched by their time')
    return rates_hz


def _to_transform(extrinsic_matrix: FloatArray, parent: str, child: str) -> object:
    """Return the pose of a camera as a TransformStamped."""
    to_world = np.linalg.inv(extrinsic_matrix)
    message = message_factory('geometry_msgs/msg/TransformStamped')(
        header=header_at(0, parent), child_frame_id=child
    )
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = to_metres(to_world[:3, 3]).tolist()
    x, y, z, w = quaternions(to_world[None, :3, :3])[0].tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = x, y, z, w
    return message


def _unique(names: Sequence[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        while name in result:
            name = f'{name}_'
        result.append(name)
    return result
