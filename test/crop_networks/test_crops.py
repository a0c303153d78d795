"""Crops match those of the official implementation and, approximately, of the fast sampler."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import DATA, photo
from golden_cases import CASES

from metrabs_ros.blazepose.crops import sample_crops as sample_crops_with_opencv
from metrabs_ros.camera import Camera
from metrabs_ros.crop_networks import crops
from metrabs_ros.crop_networks.augmentation import Augmentations
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.crop_networks.crops import BLACK, WHITE, sample_crops
from metrabs_ros.crop_networks.source_image import DeviceImage, HostImage

CPU = torch.device('cpu')


def crops_of(image, camera, boxes, count=1, side_px=256, antialias_factor=1):
    virtual = virtual_cameras_for_boxes(np.array(boxes, float), camera, side_px)
    augmentations = Augmentations.evenly_spaced(count)
    return sample_crops(
        HostImage(image),
        camera,
        augmentations.apply_to(virtual),
        augmentations.gamma,
        antialias_factor,
    ).numpy()


@pytest.mark.parametrize('index', [0, 5])
def test_crops_match_the_official_implementation(index):
    case = CASES[index]
    camera = Camera(np.array(case['K']), np.array(case.get('dist', [])))
    crops = crops_of(photo(case['image']), camera, case['boxes'])
    official = np.load(DATA / 'golden' / 'intermediates.npz')[f'{index:02}/crops']
    np.testing.assert_allclose(crops, official.astype(np.float32), atol=2e-3)
    assert np.abs(crops - official.astype(np.float32)).mean() < 2e-4


@pytest.mark.parametrize('device_image', [HostImage, lambda image: DeviceImage(image, CPU)])
@pytest.mark.parametrize(
    'box', [[-90, 20, 200, 300], [600, 300, 300, 400], [-400, -300, 1600, 1200], [900, 0, 90, 90]]
)
def test_a_white_background_is_that_of_an_image_with_a_white_frame(street, box, device_image):
    # A multiple of the factor of the pyramid's coarsest level.
    frame_px = 1600
    framed = cv2.copyMakeBorder(street, *[frame_px] * 4, cv2.BORDER_CONSTANT, value=[255] * 3)
    intrinsics = np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]])
    shift = np.array([[0, 0, frame_px], [0, 0, frame_px], [0, 0, 0]])
    white, expected = (
        sample_crops(
            device_image(image),
            Camera(intrinsics + offset),
            virtual_cameras_for_boxes(
                np.array([box], float) + offset[0, 2] * np.array([1, 1, 0, 0]),
                Camera(intrinsics + offset),
                64,
            ),
            np.array([2.2]),
            background=background,
        ).numpy()
        for image, offset, background in ((street, 0 * shift, WHITE), (framed, shift, BLACK))
    )
    assert (white == 1).any()
    np.testing.assert_allclose(white, expected, atol=1e-3)


@pytest.mark.parametrize('antialias_factor', [1, 2, 3])
@pytest.mark.parametrize('coeffs', [[], [-0.28, 0.09, 0.0012, -0.0007, -0.011]])
def test_crops_of_the_fast_sampler_are_similar(street, antialias_factor, coeffs):
    # In a smooth image the mean of pixel values equals the mean in linear RGB.
    street = cv2.GaussianBlur(street, (0, 0), 4)
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]), np.array(coeffs))
    boxes = np.array([[236, 155, 62, 150], [100, 20, 500, 530.0]])
    virtual = virtual_cameras_for_boxes(boxes, camera, 128)
    exact = sample_crops(HostImage(street), camera, virtual, np.ones(1), antialias_factor).numpy()
    fast = sample_crops_with_opencv(street, camera, virtual, antialias_factor)
    assert np.abs(exact - fast.transpose(0, 3, 1, 2)).max() < 0.06


def test_the_crop_of_a_person_does_not_depend_on_other_people():
    image, camera = photo('blobs'), Camera(np.array(CASES[4]['K']))
    boxes = CASES[4]['boxes']
    together = crops_of(image, camera, boxes, count=4)
    for i, box in enumerate(boxes):
        alone = crops_of(image, camera, [box], count=4)
        np.testing.assert_array_equal(together[4 * i : 4 * i + 4], alone)


def test_many_large_crops_are_sampled_in_parts(street, monkeypatch):
    camera = Camera.from_fov(50, street.shape)
    boxes = [[20 * i, 100, 60, 150] for i in range(5)]
    whole = crops_of(street, camera, boxes, count=2, side_px=64)
    monkeypatch.setattr('metrabs_ros.crop_networks.crops.MAX_PIXELS', 5 * 64**2)
    np.testing.assert_array_equal(whole, crops_of(street, camera, boxes, count=2, side_px=64))


@pytest.mark.parametrize('max_crops', [1, 5, 12, 40])
def test_many_crops_of_one_person_are_sampled_in_parts(street, monkeypatch, max_crops):
    camera = Camera.from_fov(50, street.shape)
    boxes = [[20 + 300 * i, 100, 260, 350] for i in range(2)]

    def sampled_crops():
        return crops_of(street, camera, boxes, count=12, side_px=32, antialias_factor=2)

    whole, sampled, source_pixels = sampled_crops(), [], crops.source_pixels

    def counted(camera, to_ray, side_px, count, device):
        if count == side_px:
            sampled.append(len(to_ray) * count**2)
        return source_pixels(camera, to_ray, side_px, count, device)

    monkeypatch.setattr(crops, 'source_pixels', counted)
    monkeypatch.setattr(crops, 'MAX_PIXELS', max_crops * 64**2)
    np.testing.assert_allclose(sampled_crops(), whole, atol=1e-4)
    assert max(sampled) <= crops.MAX_PIXELS
    assert sum(sampled) == 24 * 64**2


@pytest.mark.slow
def test_memory_for_many_augmentations_and_a_large_antialias_factor_is_limited():
    code = """
import pathlib
import numpy as np
from metrabs_ros.camera import Camera
from metrabs_ros.crop_networks.augmentation import Augmentations
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.crop_networks.crops import BLACK, WHITE, sample_crops
from metrabs_ros.crop_networks.source_image import HostImage

image = np.zeros((480, 640, 3), np.uint8)
camera = Camera.from_fov(60, image.shape)
augmentations = Augmentations.evenly_spaced(10)
virtual = virtual_cameras_for_boxes(np.array([[200.0, 100, 100, 200]]), camera, 256)


def peak_kib():
    # Unlike ru_maxrss, this excludes the memory of the parent process.
    lines = pathlib.Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))


before = peak_kib()
sample_crops(HostImage(image), camera, augmentations.apply_to(virtual), augmentations.gamma, 8)
print(peak_kib() - before)
"""
    ran = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) * 1024 < 2**30


@pytest.mark.parametrize(('side_px', 'factor'), [(256, 4), (256, 16), (384, 16), (1024, 6)])
def test_common_crop_sizes_are_accepted(side_px, factor):
    crops.check_sampled_size(side_px, factor)


def test_a_crop_that_needs_too_much_memory_is_rejected():
    with pytest.raises(
        ValueError, match=r'antialias_factor is 16; .* crops of 1024 x 1024'
    ) as caught:
        crops.check_sampled_size(1024, 16)
    assert str(caught.value).endswith('6144 x 6144, so it must be at most 6')


def test_crops_are_black_outside_the_image(street):
    camera = Camera.from_fov(50, street.shape)
    left, right = crops_of(
        street, camera, [[-200, 100, 201, 300], [766, 100, 200, 300]], side_px=64
    )
    assert not left[:, :, :30].any()
    assert not right[:, :, -30:].any()


@pytest.mark.parametrize('shape', [(2, 2, 3), (3, 900, 3), (700, 5, 3)])
@pytest.mark.parametrize('size', [1, 40, 5000])
def test_crops_of_images_with_extreme_shapes_are_finite(shape, size):
    image = np.full(shape, 200, np.uint8)
    camera = Camera.from_fov(60, shape, distortion_coeffs=np.array([-0.3, 0.1, 0, 0]))
    crops = crops_of(image, camera, [[0, 0, size, size]], count=3, side_px=32)
    assert np.isfinite(crops).all()
    assert crops.min() >= 0
    assert crops.max() <= 1


def test_crops_are_float32_tensors_in_the_layout_of_the_network(street):
    camera = Camera.from_fov(50, street.shape)
    virtual = virtual_cameras_for_boxes(np.array([[10.0, 10, 90, 90]]), camera, 64)
    crops = sample_crops(HostImage(street), camera, virtual, np.ones(1))
    assert crops.shape == (1, 3, 64, 64)
    assert crops.dtype == torch.float32


@pytest.mark.parametrize('coeffs', [[], [-0.28, 0.09, 0.0012, -0.0007, -0.011]])
@pytest.mark.parametrize('count', [1, 5])
@pytest.mark.parametrize('antialias_factor', [1, 2])
def test_crops_are_the_same_on_host_and_device(street, coeffs, count, antialias_factor):
    camera = Camera.from_fov(60, street.shape, distortion_coeffs=np.array(coeffs))
    boxes = [[300, 90, 220, 400], [100, 200, 50, 70], [10, 20, 700, 560], [-100, -50, 300, 300]]
    augmentations = Augmentations.evenly_spaced(count)
    virtual = augmentations.apply_to(
        virtual_cameras_for_boxes(np.array(boxes, float), camera, 128)
    )
    views = [street, np.ascontiguousarray(street[..., ::-1])[..., ::-1], street[::-1][::-1]]
    host, *devices = (
        sample_crops(source_image, camera, virtual, augmentations.gamma, antialias_factor).numpy()
        for source_image in [HostImage(street), *(DeviceImage(v, CPU) for v in views)]
    )
    for view in views[1:]:
        same = sample_crops(
            HostImage(view), camera, virtual, augmentations.gamma, antialias_factor
        )
        np.testing.assert_array_equal(same.numpy(), host)
    for device in devices:
        np.testing.assert_allclose(device, host, atol=1e-3)


def test_crops_are_complete_for_strong_lens_distortion(street):
    # The source bounds are computed from a coarse grid; all points between must lie inside.
    white = np.full_like(street, 255)
    for coeffs in ([-0.45, 0.25, 0.01, -0.01, -0.08], [0.6, 0.4, 0, 0, 0.2]):
        camera = Camera.from_fov(80, street.shape, distortion_coeffs=np.array(coeffs))
        boxes = [[20, 20, 700, 500], [300, 200, 100, 100], [600, 400, 150, 160]]
        virtual = virtual_cameras_for_boxes(np.array(boxes, float), camera, 64)
        crops = sample_crops(HostImage(white), camera, virtual, np.ones(1)).numpy()
        inside = crops[:, 0, 8:-8, 8:-8]
        assert inside[1].min() > 0.999
