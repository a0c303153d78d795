"""
Inputs of MoveNet, and the outputs of the published graph for them.

The outputs are in test/data/movenet_official.json. The graph is not part of this package; to write
the file again, see scripts/convert_networks.py for the source of the graph and its packages, then:

    python test/movenet/movenet_official.py movenet-multipose.json
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile

import cv2
import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / 'test' / 'data'
FILE = DATA / 'movenet_official.json'


def inputs() -> dict[str, ImageArray]:
    """Return images, RGB, whose sides are multiples of 32; none of them is interpolated."""
    street, office, player, blobs = (
        np.asarray(cv2.imread(str(DATA / f'{name}.png')))[..., ::-1]
        for name in ('street', 'office', 'player', 'blobs')
    )
    images = {
        'street': street,
        'office, smaller': office[::2, ::2],
        'player, smaller': player[::2, ::2],
        'blobs, smaller': blobs[::3, ::3],
        'part of street, mirrored': street[100:356, 320:768][:, ::-1],
        'part of office': office[:, 320:],
    }
    return {name: padded(image) for name, image in images.items()}


def padded(image: ImageArray) -> ImageArray:
    """Return an image that is black at the right and bottom, up to multiples of 32."""
    rows, columns = -image.shape[0] % 32, -image.shape[1] % 32
    return np.pad(image, ((0, rows), (0, columns), (0, 0)))


def official(name: str) -> FloatArray:
    """
    Return the output of the published graph for an input: the best six people, [6, 56].

    A row consists of 17 keypoints (y, x, score), a box (top, left, bottom, right) and a score;
    positions are fractions of the height and width.
    """
    return np.array(json.loads(FILE.read_text())[name])


def main(graph_file: pathlib.Path) -> None:
    """Write the outputs of the published graph."""
    import openvino

    sys.path.insert(0, str(ROOT / 'scripts'))
    import convert_networks

    with tempfile.TemporaryDirectory() as folder:
        converted = pathlib.Path(folder) / 'graph.pb'
        converted.write_bytes(convert_networks.read_graph(graph_file).SerializeToString())
        model = openvino.convert_model(converted)
    network = openvino.Core().compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    outputs = {}
    for name, image in inputs().items():
        result = network({0: image[None].astype(np.int32)})
        outputs[name] = np.round(next(iter(result.values()))[0].astype(float), 6).tolist()
    rows = [f'{json.dumps(name)}: {json.dumps(people)}' for name, people in outputs.items()]
    FILE.write_text('{\n' + ',\n'.join(rows) + '\n}\n')


if __name__ == '__main__':
    main(pathlib.Path(sys.argv[1]))
