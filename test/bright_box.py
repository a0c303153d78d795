"""A tiny ONNX network that detects the bright red area, with the layouts of several detectors."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH = 64, 96
SCORE, LOWER_SCORE = 0.9, 0.8
LAYOUTS = ('yolo', 'yolo5', 'end to end', 'rt-detr', 'detr', 'rf-detr')


class Graph:
    """Builder of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: object) -> str:
        name = f'c{len(self.constants)}'
        array = np.asarray(value)
        if array.dtype.kind == 'f':
            array = array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f'n{len(self.nodes)}'
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name


def write_detector(file: pathlib.Path, layout: str, dynamic: bool = False) -> None:
    """
    Write a network that returns the same box twice, with different scores.

    The scores are 0 if no pixel is bright red.
    """
    graph = Graph()
    red = graph.add('Slice', 'images', *(graph.constant(np.array([i])) for i in (0, 1, 1)))
    bright = graph.add(
        'Cast', graph.add('Greater', red, graph.constant(0.5)), to=TensorProto.FLOAT
    )
    dark = graph.add('Sub', graph.constant(1.0), bright)
    xs = graph.constant(np.arange(WIDTH, dtype=float).reshape(1, 1, 1, -1))
    ys = graph.constant(np.arange(HEIGHT, dtype=float).reshape(1, 1, -1, 1))
    far = graph.add('Mul', dark, graph.constant(1e4))
    shape = graph.constant(np.array([1, 1, 1]))

    def extreme(kind: str, coordinates: str, beyond: float) -> str:
        lit = graph.add('Mul', graph.add('Add', coordinates, graph.constant(beyond)), bright)
        if kind == 'ReduceMin':
            lit = graph.add('Add', lit, far)
        return graph.add('Reshape', graph.add(kind, lit, keepdims=1), shape)

    left, top = extreme('ReduceMin', xs, 0.0), extreme('ReduceMin', ys, 0.0)
    right, bottom = extreme('ReduceMax', xs, 1.0), extreme('ReduceMax', ys, 1.0)
    seen = graph.add('Reshape', graph.add('ReduceMax', bright, keepdims=1), shape)

    def scores(values: list[float]) -> str:
        row = graph.constant(np.array(values).reshape(1, 1, -1))
        return graph.add('Mul', row, seen)

    def times(value: str, factor: float) -> str:
        return graph.add('Mul', value, graph.constant(factor))

    def centred(scale_x: float, scale_y: float) -> str:
        return graph.add(
            'Concat',
            times(graph.add('Add', left, right), scale_x / 2),
            times(graph.add('Add', top, bottom), scale_y / 2),
            times(graph.add('Sub', right, left), scale_x),
            times(graph.add('Sub', bottom, top), scale_y),
            axis=2,
        )

    def rows(box: str, after: list[list[float]]) -> str:
        twice = [graph.add('Concat', box, scores(values), axis=2) for values in after]
        return graph.add('Concat', *twice, axis=1)

    def classes(person: float, count: int = 80) -> list[float]:
        return [person] + [0.05] * (count - 1)

    outputs = {}
    if layout == 'yolo':
        table = rows(centred(1.0, 1.0), [classes(SCORE), classes(LOWER_SCORE)])
        outputs['output0'] = graph.add('Transpose', table, perm=[0, 2, 1])
    elif layout == 'yolo5':
        outputs['output0'] = rows(
            centred(1.0, 1.0), [[SCORE, *classes(1.0)], [LOWER_SCORE, *classes(1.0)]]
        )
    elif layout == 'rt-detr':
        outputs['output0'] = rows(
            centred(1 / WIDTH, 1 / HEIGHT), [classes(SCORE), classes(LOWER_SCORE)]
        )
    elif layout == 'end to end':
        corners = graph.add('Concat', left, top, right, bottom, axis=2)
        # The last detection has another class.
        outputs['output0'] = rows(corners, [[SCORE, 0.0], [LOWER_SCORE, 0.0], [SCORE, 17.0]])
    else:
        boxes = centred(1 / WIDTH, 1 / HEIGHT)
        outputs['boxes'] = graph.add('Concat', boxes, boxes, axis=1)
        count = 92 if layout == 'detr' else 91
        logits = np.full((1, 2, count), -9.0)
        # With softmax the score depends on the last class, no object.
        logits[0, :, 1] = np.log([SCORE / (1 - SCORE), LOWER_SCORE / (1 - LOWER_SCORE)])
        logits[0, :, -1] = 0.0 if layout == 'detr' else -9.0
        outputs['logits'] = (
            graph.add(
                'Sub',
                graph.constant(logits),
                times(graph.add('Sub', graph.constant(1.0), seen), 50.0),
            )
            if layout == 'rf-detr'
            else graph.constant(logits)
        )
    for name, value in outputs.items():
        graph.nodes.append(helper.make_node('Identity', [value], [name]))
    size = ['height', 'width'] if dynamic else [HEIGHT, WIDTH]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            'bright_box',
            [helper.make_tensor_value_info('images', TensorProto.FLOAT, [1, 3, *size])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid('', 13)],
        ir_version=8,
    )
    onnx.save(model, file)
