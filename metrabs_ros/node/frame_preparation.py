"""Preparation of frames: decoded image, camera model, transforms, boxes, depth and floor."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import UNCALIBRATED, check_size, to_camera
from metrabs_ros.conversions.detections import DEFAULT_MAX_PEOPLE, select_detections, to_boxes
from metrabs_ros.conversions.images import compressed_shape, declared_shape, decompress
from metrabs_ros.conversions.stamps import to_seconds
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.node.depth_buffer import DepthMessage
from metrabs_ros.node.depth_input import DepthInput
from metrabs_ros.node.diagnostics import Statistics
from metrabs_ros.node.ground_lookup import GroundLookup
from metrabs_ros.node.image_conversion import to_rgb
from metrabs_ros.node.settings import Settings
from metrabs_ros.node.size_limited_subscription import OversizedMessage
from metrabs_ros.node.synchronisation import SynchronisedImage
from metrabs_ros.node.transforms import WORLD_UP, RigidTransform, TransformLookup
from metrabs_ros.options import View
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import JUMP_BACK_S

TOPIC_DETECTOR = 'topic'
"""Value of the parameter detector for boxes from the topic detections."""
IDENTITY = RigidTransform(np.eye(3), np.zeros(3))


class Frame(NamedTuple):
    """
    Synchronised messages of one image.

    Parameters
    ----------
    camera
        Name of the camera.
    synchronised
        Image with the messages that belong to it.
    depth
        Depth image with the nearest stamp; None without depth images.
    """

    camera: str
    synchronised: SynchronisedImage
    depth: DepthMessage | None = None

    @property
    def image(self) -> Any:
        """Message of type Image or CompressedImage."""
        return self.synchronised.image


class PreparedFrame(NamedTuple):
    """
    Frame that is prepared for detection and pose estimation.

    Parameters
    ----------
    camera
        Name of the camera.
    header
        Header of the image.
    timed_view
        Decoded image, camera model, stamp, and person boxes if they come from a topic.
    output_transform
        Transform from the camera frame to the frame of the published messages.
    output_frame
        Name of the frame of the published messages.
    restarts_tracks
        Whether earlier tracks must be deleted, because their frame or the time base has changed.
    """

    camera: str
    header: Header
    timed_view: TimedView
    output_transform: RigidTransform
    output_frame: str
    restarts_tracks: bool


class FramePreparation:
    """
    Prepares the frames of one camera for detection and pose estimation.

    Parameters
    ----------
    camera
        Name of the camera.
    transforms
        Looks up transforms.
    ground
        Looks up the floor.
    statistics
        Counts fallbacks and measures latencies.
    """

    def __init__(
        self,
        camera: str,
        transforms: TransformLookup,
        ground: GroundLookup,
        statistics: Statistics,
    ) -> None:
        self.is_rectified_topic = False
        """Whether the name of the image topic is that of rectified images."""
        self._camera = camera
        self._transforms = transforms
        self._ground = ground
        self._statistics = statistics
        self._last_stamp_s = -np.inf
        self._restarts_tracks = False
        """As in `PreparedFrame`; kept until a frame can be prepared."""
        self._world_frame = ''
        self._extrinsics: FloatArray | None = None

    def prepare(self, frame: Frame, depth: DepthInput | None, current: Settings) -> PreparedFrame:
        """
        Decode the image and determine the camera model, the transforms and the boxes of a frame.

        Parameters
        ----------
        frame
            The messages.
        depth
            Prepares the depth image; None if there are no depth images.
        current
            Settings.

        Raises
        ------
        UnusableInput
            If the frame cannot be processed.
        """
        synchronised = frame.synchronised
        header = synchronised.image.header
        latencies = self._statistics.latencies
        latencies.add('synchronise', synchronised.completed_s - synchronised.received_s)
        latencies.add('wait', time.monotonic() - synchronised.completed_s)
        info = self._select_info(synchronised.info, current)
        with latencies.measure('decode'):
            image = _decode(synchronised.image, info, current.max_image_pixels)
        with latencies.measure('camera'):
            camera = self._with_world_pose(
                self._make_camera(info, image.shape, current), header, current
            )
            output_transform, output_frame = self._lookup_output_transform(header, current)
            ground = None
            if current.ground_frame:
                ground = self._ground.lookup(header, current.ground_frame, current.ground_height)
        view = View(image, camera)
        depth_image = None
        if depth is not None:
            with latencies.measure('depth'):
                depth_image = depth.prepare(frame.depth, view, header, current)
        boxes = None
        if current.detector == TOPIC_DETECTOR:
            boxes = self._select_boxes(synchronised.detections, image.shape, current)
        stamp_s = to_seconds(header.stamp)
        self._check_time_jump(stamp_s)
        restarts_tracks, self._restarts_tracks = self._restarts_tracks, False
        return PreparedFrame(
            self._camera,
            header,
            TimedView(view, stamp_s, boxes, self._camera, ground, depth_image),
            output_transform,
            output_frame,
            restarts_tracks,
        )

    def _select_info(self, info: CameraInfo | None, current: Settings) -> CameraInfo | None:
        """Return the camera_info, or None if the default field of view is used instead."""
        if current.default_fov_degrees and (info is None or not any(info.k)):
            return None
        if info is None:
            raise UnusableInput(
                'no camera_info',
                'there is no camera_info with the images; remap camera_info to the topic of the '
                'camera driver, or set default_fov_degrees to process images without calibration',
            )
        return info

    def _make_camera(
        self, info: CameraInfo | None, image_shape: tuple[int, ...], current: Settings
    ) -> Camera:
        if info is None:
            fov_degrees = current.default_fov_degrees
            self._report_fallback(
                UNCALIBRATED,
                'the camera is not calibrated; distances are based on an assumed field of view '
                f'of {fov_degrees} degrees',
            )
            return Camera.from_fov(fov_degrees, image_shape)
        rectified = current.rectified == 'true' or (
            current.rectified == 'auto' and self.is_rectified_topic and any(info.p)
        )
        try:
            return to_camera(info, image_shape, rectified)
        except UnusableInput as error:
            if error.cause != UNCALIBRATED:
                raise
            advice = 'or set default_fov_degrees for approximate intrinsics'
            raise UnusableInput(UNCALIBRATED, f'{error}, {advice}') from error

    def _select_boxes(
        self, detections: Any, image_shape: tuple[int, ...], current: Settings
    ) -> Boxes:
        """
        Return the boxes for pose estimation from a message of the detector.

        Raises
        ------
        UnusableInput
            If the message is too large.
        """
        if isinstance(detections, OversizedMessage):
            raise UnusableInput('detections', str(detections))
        boxes, left_out = select_detections(
            to_boxes(detections, current.detection_class, image_shape),
            current.detector_nms_iou_threshold,
            current.max_detections,
        )
        if left_out:
            self._report_fallback(
                'many detections',
                f'a message has {len(boxes) + left_out} detections that do not overlap; the '
                f'{DEFAULT_MAX_PEOPLE} with the highest scores are processed; set max_detections '
                'to change the limit',
            )
        return boxes

    def _with_world_pose(self, camera: Camera, header: Header, current: Settings) -> Camera:
        """Return the camera with its pose in the world frame if a world frame is configured."""
        if current.world_frame != self._world_frame:
            self._set_extrinsics(None)
            self._world_frame = current.world_frame
        if current.world_frame:
            try:
                transform = self._transforms.lookup(
                    header.frame_id, current.world_frame, header.stamp
                )
                self._set_extrinsics(transform.matrix)
            except UnusableInput as error:
                self._fall_back_or_raise(error, current)
        # Without a current transform, the last known pose is used.
        if self._extrinsics is None:
            return camera
        return dataclasses.replace(
            camera, extrinsic_matrix=self._extrinsics, world_up_vector=WORLD_UP
        )

    def _set_extrinsics(self, extrinsics: FloatArray | None) -> None:
        """Set the camera pose; tracks restart if their frame changes."""
        if (extrinsics is None) != (self._extrinsics is None):
            self._restarts_tracks = True
        self._extrinsics = extrinsics

    def _lookup_output_transform(
        self, header: Header, current: Settings
    ) -> tuple[RigidTransform, str]:
        """Return the transform from the camera frame to the output frame, and its name."""
        if not header.frame_id:
            self._report_fallback(
                'image without frame_id',
                'the header of the images has no frame_id, so TF and RViz cannot be used; check '
                'that the camera driver sets frame_id',
            )
        if current.target_frame in ('', header.frame_id):
            return IDENTITY, header.frame_id
        try:
            transform = self._transforms.lookup(
                current.target_frame, header.frame_id, header.stamp
            )
        except UnusableInput as error:
            self._fall_back_or_raise(error, current)
            return IDENTITY, header.frame_id
        return transform, current.target_frame

    def _fall_back_or_raise(self, error: UnusableInput, current: Settings) -> None:
        if current.tf_fallback == 'drop':
            raise error
        self._report_fallback(error.cause, str(error))

    def _report_fallback(self, cause: str, explanation: str) -> None:
        self._statistics.fallbacks.report(cause, explanation, self._camera)

    def _check_time_jump(self, stamp_s: float) -> None:
        """Restart the tracks if the stamps jumped back in time."""
        back_s = self._last_stamp_s - stamp_s
        self._last_stamp_s = stamp_s
        if back_s > JUMP_BACK_S:
            # TF is not cleared: other cameras use it, and it detects jumps on its own.
            self._restarts_tracks = True
            self._report_fallback(
                'jump back in time',
                f'the stamps of the images jumped back by {back_s:.1f} s, for example because a '
                'recording was restarted; all tracks are deleted',
            )


def _decode(
    image: Image | CompressedImage, info: CameraInfo | None, max_pixels: int
) -> ImageArray:
    """
    Decode an image message.

    Parameters
    ----------
    image
        Image message.
    info
        Calibration for a check of the image size before decoding; None for no check.
    max_pixels
        Maximum number of pixels of the image.

    Returns
    -------
    Image [H, W, 3], uint8, RGB.

    Raises
    ------
    UnusableInput
        If the image cannot be decoded, is too large, or has another size than the camera_info.
    """
    is_raw = isinstance(image, Image)
    shape = declared_shape(image, max_pixels) if is_raw else compressed_shape(image, max_pixels)
    if info is not None:
        check_size(info, *shape)
    return to_rgb(image, max_pixels) if is_raw else decompress(image, max_pixels)
