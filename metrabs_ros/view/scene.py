"""Logging of cameras and people to the Rerun viewer."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import scaling_about_corner
from metrabs_ros.conversions.people import to_metres
from metrabs_ros.drawing import color_of
from metrabs_ros.foreign_text import printable
from metrabs_ros.people import MAX_MAGNITUDE, People
from metrabs_ros.view.access import DEFAULT_HOST
from metrabs_ros.view.backlog import Backlog, memory_limit_bytes
from metrabs_ros.view.entities import entity_paths
from metrabs_ros.view.server import ViewServer
from metrabs_ros.view.validation import PNG_START
from metrabs_ros.view.viewer_files import load_viewer_files

try:
    import rerun as rr
    import rerun.blueprint as rrb
except ImportError as error:
    raise ImportError(
        'the view in a browser needs rerun-sdk 0.39 or later: pip install rerun-sdk'
    ) from error

APPLICATION_ID = 'metrabs_ros'
FUSED = 'fused people'
"""Name for the people of several cameras in a scene, which no camera can have."""
JPEG_QUALITY = 80
MAX_SIDE_PX = 1280
"""Maximum longer side of a displayed image; larger images are scaled down before encoding."""
MIN_SAMPLES_PER_PIXEL = 2
"""Minimum number of source pixels, in each direction, per pixel of a scaled image."""
MEMORY_LIMIT = '256MiB'
"""Default limit of the data that is buffered for browsers."""
TRANSFER_PERIOD_S = 0.05
TRAIL_LENGTH = 60
"""Maximum number of positions of a trail."""
TRAIL_TIMEOUT_S = 5.0
"""Time without a new position after which a trail is removed."""
MAX_PEOPLE = 100
"""Maximum number of displayed people, and of trails."""
MAX_PLOTS = 100
MAX_IMAGE_ROWS = 2
"""Maximum number of images in one column of the layout."""
MAX_STATUS_CHARS = 200_000
MIN_BLUEPRINT_PERIOD_S = 5.0
JOINT_RADIUS_M, BONE_RADIUS_M = 0.035, 0.02
TRAIL_RADIUS_M, ARROW_RADIUS_M, AXIS_RADIUS_M = 0.01, 0.015, 0.008
LABEL_ABOVE_M, LABEL_ABOVE_PER_DISTANCE = 0.15, 0.05
"""Height of a label above a person: a constant, plus a multiple of the distance.  The viewer draws
the text below the point, at the same size for all distances."""
AXIS_LENGTH_M = 0.3
FRUSTUM_M = 0.5
MAX_FRAME_LABELS = 12
"""Maximum number of TF frames for which names are always displayed."""
MIN_ARROW_SPEED_M_S = 0.2
EXTRAPOLATED_ALPHA = 90
AXIS_COLORS = ((230, 60, 60), (60, 200, 60), (80, 120, 255))
MIN_DATE_S = 1e8
"""Minimum stamp that is displayed as a date; smaller stamps are displayed as durations."""
PLOT_RANGE_S = 30.0
EYE_BEHIND_CAMERA_M = ((2.5, -3.0, -4.0), (0.0, 0.0, 6.0), (0.0, -1.0, 0.0))
"""Initial eye position, look-at point and up vector in an optical frame."""


class FramePose(NamedTuple):
    """A TF frame: name, rotation [3, 3] and translation [3] in metres to the scene's frame."""

    name: str
    rotation: FloatArray
    translation_m: FloatArray


@dataclasses.dataclass
class _Trail:
    """The last positions of a person, and the time of the last one in seconds."""

    positions_m: collections.deque[list[float]]
    last_s: float


class Scene:
    """
    A scene of one or several cameras.

    Parameters
    ----------
    cameras
        Names of the cameras; the name of a single camera may be empty.
    without_images
        Which of these names are not cameras but people of several cameras, for example of a
        fusion.
    is_live
        Whether to display live data by the system time, which is monotonic; otherwise the scene
        displays a recording by its stamps.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        is_live: bool = False,
        without_images: Collection[str] = (),
    ) -> None:
        self._recording_id = str(uuid.uuid4())
        self._stream = rr.RecordingStream(APPLICATION_ID, recording_id=self._recording_id)
        self._roots = {
            name: f'world/{path}'.rstrip('/') for name, path in entity_paths(cameras).items()
        }
        self._without_images = frozenset(without_images)
        self._trails: dict[str, dict[int, _Trail]] = {name: {} for name in cameras}
        self._scales: dict[str, FloatArray] = {name: np.ones(2) for name in cameras}
        """Scale from the last image to the displayed image, in x and y."""
        self._plots: dict[str, str] = {}
        self._z_up = False
        self._is_live = is_live
        self._has_dates: bool | None = None
        """Whether stamps are displayed as dates; None before the first stamp."""
        self._timeline = 'log_time' if is_live else 'stamp'
        self._backlog: Backlog | None = None
        self._preamble: _Preamble | None = None
        self._blueprint_sent_s = -np.inf
        self._stream.log('world', rr.ViewCoordinates.RDF, static=True)

    def set_z_up(self, z_up: bool) -> None:
        """Set the up direction: z for world frames, -y for optical frames."""
        if z_up != self._z_up:
            self._z_up = z_up
            self._stream.log('world', self._up_axes(), static=True)
            # A blueprint resets the user's layout, and frames may change with each message.
            now_s = time.monotonic()
            if now_s - self._blueprint_sent_s > MIN_BLUEPRINT_PERIOD_S:
                self._blueprint_sent_s = now_s
                if self._backlog is None or self._preamble is None:
                    self._stream.send_blueprint(self._blueprint())
                else:
                    self._backlog.append(self._preamble.blueprint())

    def serve(
        self,
        web_port: int,
        data_port: int,
        memory_limit: str = MEMORY_LIMIT,
        host: str = DEFAULT_HOST,
    ) -> str:
        """
        Serve the scene to browsers.

        Parameters
        ----------
        web_port, data_port
            Ports of the page and of its data.
        memory_limit
            Limit of the data that is buffered for browsers.
        host
            Address or name to listen on; by default the loopback interface.

        Returns
        -------
        URL of the page.

        Raises
        ------
        OSError
            If the server cannot listen on the host or the ports.
        ValueError
            If the memory limit is not an amount of memory.
        """
        self._backlog = Backlog(memory_limit_bytes(memory_limit))
        self._preamble = _Preamble(self)
        server = ViewServer(
            host, web_port, data_port, load_viewer_files, self._preamble.encoded, self._backlog
        )
        transfer = threading.Thread(
            target=_transfer, args=(rr.binary_stream(self._stream), self._backlog), daemon=True
        )
        transfer.start()
        return server.address

    def save(self, file: str) -> None:
        """Write the data that is logged from now on to a file for the Rerun viewer."""
        self._stream.save(file, default_blueprint=self._blueprint())

    def flush(self) -> None:
        """Wait until all logged data is encoded."""
        self._stream.flush()

    def show_image(self, stamp_s: float, name: str, image: ImageArray | bytes) -> None:
        """
        Display the image of a camera; scale a large image down to `MAX_SIDE_PX`.

        Intrinsics and people that are displayed afterwards are scaled accordingly.

        Parameters
        ----------
        stamp_s
            Stamp in seconds.
        name
            Name of the camera.
        image
            [H, W, 3], uint8, RGB; or the content of a JPEG or PNG file, which is not scaled.
        """
        self._set_time(stamp_s)
        self._scales[name] = np.ones(2)
        if not isinstance(image, bytes):
            scaled = shrink(image)
            self._scales[name] = np.array(scaled.shape[1::-1]) / np.array(image.shape[1::-1])
            flags = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
            _, jpeg = cv2.imencode('.jpg', scaled[..., ::-1], flags)
            image = jpeg.tobytes()
        kind = 'image/png' if image.startswith(PNG_START) else 'image/jpeg'
        self._stream.log(
            f'{self._roots[name]}/camera/image', rr.EncodedImage(contents=image, media_type=kind)
        )

    def show_camera(
        self,
        stamp_s: float,
        name: str,
        camera: Camera,
        image_shape: tuple[int, ...],
        pose: FramePose | None = None,
    ) -> None:
        """
        Display the frustum of a camera, without distortion.

        Parameters
        ----------
        stamp_s
            Stamp in seconds.
        name
            Name of the camera.
        camera
            Camera of the last image, before scaling.
        image_shape
            Height and width of that image in pixels; further elements are ignored.
        pose
            Pose of the camera in the scene; None if it is unknown.
        """
        self._set_time(stamp_s)
        scale = self._scales[name]
        root = f'{self._roots[name]}/camera'
        if pose is not None:
            self._stream.log(
                root, rr.Transform3D(translation=pose.translation_m, mat3x3=pose.rotation)
            )
        self._stream.log(
            f'{root}/image',
            rr.Pinhole(
                image_from_camera=scaling_about_corner(scale) @ camera.intrinsic_matrix,
                resolution=np.rint(scale * image_shape[1::-1]),
                camera_xyz=rr.ViewCoordinates.RDF,
                image_plane_distance=FRUSTUM_M,
            ),
        )

    def show_people(self, stamp_s: float, name: str, people: People) -> None:
        """Display people in the frame of the scene, at most `MAX_PEOPLE`, and on the image."""
        self._set_time(stamp_s)
        people, colors = _displayed(people)
        self._show_skeletons(name, people, colors)
        self._show_trails(self._roots[name], self._trails[name], people, stamp_s)
        if name not in self._without_images:
            self._show_on_image(name, people, colors)

    def show_people_on_image(self, stamp_s: float, name: str, people: People) -> None:
        """Display people, in any frame, only on the image of their camera."""
        self._set_time(stamp_s)
        self._show_on_image(name, *_displayed(people))

    def show_frames(self, stamp_s: float, frames: Sequence[FramePose]) -> None:
        """Display the axes and the names of TF frames."""
        frames = [frame for frame in frames if _is_finite(frame)]
        self._set_time(stamp_s)
        origins = np.array([frame.translation_m for frame in frames]).reshape(-1, 3)
        axes = np.array([frame.rotation.T for frame in frames]).reshape(-1, 3)
        self._stream.log(
            'world/tf/axes',
            rr.Arrows3D(
                vectors=AXIS_LENGTH_M * axes,
                origins=origins.repeat(3, axis=0),
                colors=np.tile(np.array(AXIS_COLORS, np.uint8), (len(frames), 1)),
                radii=AXIS_RADIUS_M,
            ),
        )
        # Person frames need no names: people are labelled with their ids.
        named = [frame for frame in frames if 'person_' not in frame.name]
        self._stream.log(
            'world/tf/names',
            rr.Points3D(
                [frame.translation_m for frame in named],
                radii=AXIS_RADIUS_M,
                labels=[printable(frame.name) for frame in named],
                show_labels=len(named) <= MAX_FRAME_LABELS,
                colors=(180, 180, 180),
            ),
        )

    def plot(self, stamp_s: float, values: Mapping[str, float]) -> None:
        """Add values to plots; names are such as ``rate/frames per second``."""
        self._set_time(stamp_s)
        for name, value in values.items():
            if name not in self._plots:
                if len(self._plots) >= MAX_PLOTS:
                    continue
                kind, _, label = name.partition('/')
                (path,) = entity_paths([f'{kind}/{label.replace("/", "_")}']).values()
                if path in self._plots.values():
                    path = f'{path}_{len(self._plots)}'
                self._plots[name] = path
                self._log_series(self._stream, name)
            self._stream.log(f'plots/{self._plots[name]}', rr.Scalars(value))

    def show_status(self, text: str) -> None:
        """
        Replace the status text, in Markdown.

        Untrusted text must be escaped; see `markdown.escape_markdown`.
        """
        document = rr.TextDocument(text[:MAX_STATUS_CHARS], media_type=rr.MediaType.MARKDOWN)
        # The status of a recording has no stamp, so that it is displayed only if it is static.
        self._stream.log('status', document, static=not self._is_live)

    def _up_axes(self) -> rr.components.ViewCoordinates:
        return rr.ViewCoordinates.RIGHT_HAND_Z_UP if self._z_up else rr.ViewCoordinates.RDF

    def _log_series(self, stream: rr.RecordingStream, name: str) -> None:
        label = printable(name.partition('/')[2])
        path = f'plots/{self._plots[name]}'
        stream.log(path, rr.SeriesLines(names=label, widths=2), static=True)

    def _show_skeletons(self, name: str, people: People, colors: NDArray[np.uint8]) -> None:
        root = self._roots[name]
        poses_m = to_metres(people.poses3d_mm)
        joints = poses_m.shape[1]
        edges = np.array(people.skeleton.edges, int).reshape(-1, 2)
        bones = poses_m[:, edges].reshape(-1, 2, 3)
        self._stream.log(
            f'{root}/people/joints',
            rr.Points3D(
                poses_m.reshape(-1, 3), colors=colors.repeat(joints, axis=0), radii=JOINT_RADIUS_M
            ),
        )
        self._stream.log(
            f'{root}/people/bones',
            rr.LineStrips3D(bones, colors=colors.repeat(len(edges), axis=0), radii=BONE_RADIUS_M),
        )
        up = np.array((0.0, 0.0, 1.0) if self._z_up else (0.0, -1.0, 0.0))
        tops = np.array([pose[np.argmax(pose @ up)] for pose in poses_m]).reshape(-1, 3)
        velocities = to_metres(people.velocities_mm_s.mean(axis=1))
        speeds = np.linalg.norm(velocities, axis=-1)
        distances_m = to_metres(people.distances_mm)
        above_m = LABEL_ABOVE_M + LABEL_ABOVE_PER_DISTANCE * distances_m
        labels = [f'{person_id}: ' for person_id in people.ids]
        if name not in self._without_images:
            labels = [f'{own}{distance:.1f} m, ' for own, distance in zip(labels, distances_m)]
        self._stream.log(
            f'{root}/people/ids',
            rr.Points3D(
                tops + above_m[:, None] * up,
                radii=0.01,
                colors=colors,
                labels=[f'{own}{speed:.1f} m/s' for own, speed in zip(labels, speeds)],
                show_labels=True,
            ),
        )
        moving = speeds > MIN_ARROW_SPEED_M_S
        self._stream.log(
            f'{root}/people/velocities',
            rr.Arrows3D(
                vectors=velocities[moving],
                origins=to_metres(people.positions_mm)[moving],
                colors=colors[moving],
                radii=ARROW_RADIUS_M,
            ),
        )

    def _show_trails(
        self, root: str, trails: dict[int, _Trail], people: People, stamp_s: float
    ) -> None:
        positions_m = to_metres(people.positions_mm).tolist()
        for person_id, position_m in zip(people.ids.tolist(), positions_m):
            trail = trails.setdefault(
                person_id, _Trail(collections.deque(maxlen=TRAIL_LENGTH), stamp_s)
            )
            trail.positions_m.append(position_m)
            trail.last_s = stamp_s
        for person_id in list(trails):
            # Stamps go back when a recording is played again.
            if abs(stamp_s - trails[person_id].last_s) > TRAIL_TIMEOUT_S:
                del trails[person_id]
        for person_id in list(trails)[:-MAX_PEOPLE]:
            del trails[person_id]
        shown = {key: trail for key, trail in trails.items() if len(trail.positions_m) > 1}
        self._stream.log(
            f'{root}/people/trails',
            rr.LineStrips3D(
                [list(trail.positions_m) for trail in shown.values()],
                colors=[color_of(person_id) for person_id in shown],
                radii=TRAIL_RADIUS_M,
            ),
        )

    def _show_on_image(self, name: str, people: People, colors: NDArray[np.uint8]) -> None:
        root, scale = f'{self._roots[name]}/camera/image', self._scales[name]
        shift = scaling_about_corner(scale)[:2, 2]
        edges = np.array(people.skeleton.edges, int).reshape(-1, 2)
        # The image points of joints out of view are not reliable.
        visible = people.in_view[:, edges].all(axis=-1)
        bones = scale * people.poses2d_px[:, edges][visible] + shift
        self._stream.log(
            f'{root}/bones',
            rr.LineStrips2D(
                bones,
                colors=colors.repeat(visible.sum(axis=1), axis=0),
                radii=rr.Radius.ui_points(1.2),
            ),
        )
        left_top = scale * people.boxes_px[:, :2] + shift
        size = scale * people.boxes_px[:, 2:]
        self._stream.log(
            f'{root}/boxes',
            rr.Boxes2D(
                array=np.concatenate([left_top, size], axis=1),
                array_format=rr.Box2DFormat.XYWH,
                colors=colors,
                labels=[str(person_id) for person_id in people.ids],
                show_labels=True,
                radii=rr.Radius.ui_points(0.8),
            ),
        )

    def _set_time(self, stamp_s: float) -> None:
        # The viewer allows one type per timeline.  The type of the first stamp is kept, even if a
        # simulation or another camera has stamps of the other type.
        if self._has_dates is None:
            self._has_dates = stamp_s >= MIN_DATE_S
        if self._has_dates:
            self._stream.set_time('stamp', timestamp=stamp_s)
        else:
            self._stream.set_time('stamp', duration=stamp_s)

    def _blueprint(self) -> rrb.Blueprint:
        """Return the layout of the viewer."""
        eye = None
        if not self._z_up:
            position, target, up = EYE_BEHIND_CAMERA_M
            eye = rrb.EyeControls3D(position=position, look_target=target, eye_up=up)
        space = rrb.Spatial3DView(
            name='People', origin='world', eye_controls=eye, background=(18, 20, 24, 255)
        )
        images = [
            rrb.Spatial2DView(name=printable(name) or 'Camera', origin=f'{root}/camera/image')
            for name, root in self._roots.items()
            if name not in self._without_images
        ]
        # The images of many cameras would be small in one column.
        shown_images: Sequence[rrb.Spatial2DView | rrb.Grid] = images
        if len(images) > MAX_IMAGE_ROWS:
            shown_images = [rrb.Grid(*images, grid_columns=2)]
        last = rrb.VisibleTimeRange(
            self._timeline,
            start=rr.TimeRangeBoundary.cursor_relative(seconds=-PLOT_RANGE_S),
            end=rr.TimeRangeBoundary.cursor_relative(seconds=0.0),
        )
        plots = [
            rrb.TimeSeriesView(name=title, origin=f'plots/{kind}', time_ranges=last)
            for title, kind in (
                ('Latency in ms', 'latency'),
                ('Frames per second', 'rate'),
                ('People', 'people'),
            )
            if self._is_live or kind != 'latency'
        ]
        return rrb.Blueprint(
            rrb.Horizontal(
                rrb.Vertical(space, rrb.Horizontal(*plots), row_shares=[3, 1]),
                rrb.Vertical(
                    *shown_images,
                    rrb.TextDocumentView(name='Status', origin='status'),
                    row_shares=[*(3 * len(images) / len(shown_images) for _ in shown_images), 1],
                ),
                column_shares=[3, 2],
            ),
            rrb.BlueprintPanel(state='collapsed'),
            rrb.SelectionPanel(state='collapsed'),
            rrb.TimePanel(
                state='collapsed',
                timeline=self._timeline,
                play_state='following' if self._is_live else 'playing',
            ),
        )


class _Preamble:
    """
    Encoder of the data that a browser needs before any other data of a scene.

    One stream is used for all browsers, and blueprints are stored: rerun-sdk leaks threads for
    each closed stream, and for each blueprint that is sent.

    Parameters
    ----------
    scene
        The scene.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._lock = threading.Lock()
        self._stream = rr.RecordingStream(
            APPLICATION_ID, recording_id=scene._recording_id, send_properties=False
        )
        self._encoded = rr.binary_stream(self._stream)
        self._store_info = self._encoded.read() or b''
        self._blueprints: dict[bool, bytes] = {}

    def encoded(self) -> bytes:
        """Return the encoded layout and static data."""
        blueprint = self.blueprint()
        with self._lock:
            self._stream.log('world', self._scene._up_axes(), static=True)
            for name in list(self._scene._plots):
                self._scene._log_series(self._stream, name)
            return self._store_info + (self._encoded.read() or b'') + blueprint

    def blueprint(self) -> bytes:
        """Return the encoded layout for the current up direction."""
        with self._lock:
            z_up = self._scene._z_up
            if z_up not in self._blueprints:
                self._stream.send_blueprint(self._scene._blueprint())
                self._blueprints[z_up] = self._encoded.read() or b''
            return self._blueprints[z_up]


def _transfer(encoded: rr.BinaryStream, backlog: Backlog) -> None:
    """Move encoded data to the backlog until the process ends."""
    while True:
        block = encoded.read()
        if block:
            backlog.append(block)
        time.sleep(TRANSFER_PERIOD_S)


def shrink(image: ImageArray) -> ImageArray:
    """
    Scale an image down so that its longer side is at most `MAX_SIDE_PX`.

    Most pixels of a very large image are skipped: averaging all pixels of a view with negative
    strides, such as that of a BGR image, is as slow as JPEG encoding.

    Parameters
    ----------
    image
        [H, W, 3], uint8.

    Returns
    -------
    The scaled image; the image itself if it is small enough.
    """
    height, width = image.shape[:2]
    factor = MAX_SIDE_PX / max(height, width)
    if factor >= 1:
        return image
    new_height, new_width = max(1, round(factor * height)), max(1, round(factor * width))
    step_y = max(1, height // (MIN_SAMPLES_PER_PIXEL * new_height))
    step_x = max(1, width // (MIN_SAMPLES_PER_PIXEL * new_width))
    # Sampling in the middle of the steps avoids a shift of the image.
    samples = np.ascontiguousarray(image[step_y // 2 :: step_y, step_x // 2 :: step_x])
    resized = cv2.resize(samples, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _displayed(people: People) -> tuple[People, NDArray[np.uint8]]:
    """Return the finite people, at most `MAX_PEOPLE`, and their colours, [N, 4]."""
    people = people.select(people.finite())
    people = people.select(np.arange(min(len(people), MAX_PEOPLE)))
    colors = np.array([_rgba(people, i) for i in range(len(people))], np.uint8).reshape(-1, 4)
    return people, colors


def _is_finite(frame: FramePose) -> bool:
    numbers = np.concatenate([frame.rotation.ravel(), frame.translation_m])
    return bool((np.abs(numbers) < MAX_MAGNITUDE).all())


def _rgba(people: People, index: int) -> tuple[int, int, int, int]:
    red, green, blue = (round(255 * part) for part in color_of(int(people.ids[index])))
    return red, green, blue, 255 if people.seen[index] else EXTRAPOLATED_ALPHA
