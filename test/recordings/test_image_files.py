"""Reading of image folders."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metrabs_ros.recordings.image_files import Source, UnusableSource


def test_images_of_a_folder_are_returned_in_order_without_unusable_files(tmp_path, capsys):
    for i, value in enumerate((10, 20, 30)):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((4, 6, 3), value, np.uint8))
    (tmp_path / '3.png').write_bytes(b'no picture')
    cv2.imwrite(str(tmp_path / '4.png'), np.zeros((5, 5, 3), np.uint8))
    (tmp_path / 'notes.txt').touch()
    assert [image[0, 0, 0] for image in Source(str(tmp_path))] == [10, 20, 30]
    assert 'but the first image' in capsys.readouterr().err


def test_an_empty_folder_is_rejected(tmp_path):
    with pytest.raises(UnusableSource, match='has no images'):
        Source(str(tmp_path))
