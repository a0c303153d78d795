"""Networks that are part of the package; see weights/networks/README.md for their sources."""

from __future__ import annotations

import pathlib

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import sha256_of, shown
from metrabs_ros.weights.store import WeightsError

FOLDER = pathlib.Path(__file__).parent / 'networks'
SHA256 = {
    'movenet_multipose.bin': 'f3d39e8e7bb895481f9c8a218f935a214b100e567f6fdd3679a26b667b08c458',
    'movenet_multipose.xml': '1fc23774b45eed1aab3832de5fc662dd2c8ddbf19402af5d78aff7197090831f',
    'pose_landmark_full.tflite': (
        'e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f'
    ),
    'pose_landmark_lite.tflite': (
        'f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61'
    ),
}
"""Checksums of the files; scripts/convert_networks.py creates the files and prints these."""


def bundled_network(name: str) -> pathlib.Path:
    """
    Return a file of a bundled network.

    Its checksum is verified, and that of a file with weights next to it.

    Parameters
    ----------
    name
        One of `SHA256`.

    Raises
    ------
    WeightsError
        If a file is missing or was changed.
    """
    file = FOLDER / name
    _verify(file)
    weights = file.with_suffix('.bin')
    if weights.name in SHA256:
        _verify(weights)
    return file


def _verify(file: pathlib.Path) -> None:
    try:
        actual = sha256_of(file)
    except OSError as error:
        raise WeightsError(
            f'{shown(file)}, which is part of the package, cannot be read: {printable(error)}; '
            'install metrabs_ros again'
        ) from error
    if actual != SHA256[file.name]:
        raise WeightsError(
            f'{shown(file)}, which is part of the package, is damaged or was changed: its sha256 '
            f'is {actual}, expected {SHA256[file.name]}; install metrabs_ros again'
        )
