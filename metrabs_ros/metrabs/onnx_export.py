"""
Export of MeTRAbs networks to ONNX, for other runtimes and for NVIDIA's compilers.

The network has the input `INPUT`, [batch, 3, side, side], float32, RGB from 0 to 1, and the
outputs `OUTPUTS`, [batch, P, 2] in crop pixels and [batch, P, 3] in millimetres, float32.  The
batch size is dynamic.  The metadata describe the points and how joints are computed from them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import metrabs_ros
from metrabs_ros.arrays import FloatArray
from metrabs_ros.backends.selection import EXPORT_PACKAGES
from metrabs_ros.metrabs.checkpoint import Checkpoint
from metrabs_ros.metrabs.crop_engine import weights_hash
from metrabs_ros.metrabs.crop_network import CropNetwork
from metrabs_ros.metrabs.torch_engine import fuse_norms, move_to_device

INPUT = 'crops'
OUTPUTS = ('image_points_px', 'metric_points_mm')
BATCH = 'batch'
"""Name of the dynamic dimension."""
PRECISIONS = ('fp32', 'fp16')
OPSET = 18
"""The version that the exporter writes without conversion; TensorRT 10 reads it."""
EXAMPLE_BATCH = 4
"""torch.export would treat a batch size of one as a constant."""


def to_onnx(checkpoint: Checkpoint, precision: str) -> bytes:
    """
    Return the network of a checkpoint as an ONNX file.

    Parameters
    ----------
    checkpoint
        The network and its configuration; the network is modified.
    precision
        Precision of the backbone, one of `PRECISIONS`; the heads, the input and the outputs
        always have fp32.

    Raises
    ------
    ImportError
        If one of `EXPORT_PACKAGES` is not installed.
    """
    require_packages()
    description = metadata(checkpoint, precision)
    model = checkpoint.crop_model.eval()
    fuse_norms(model)
    exported = _export(
        move_to_device(model, torch.device('cpu'), precision), checkpoint.config.side_px
    )
    exported.producer_name = 'metrabs_ros'
    exported.producer_version = metrabs_ros.__version__
    exported.graph.name = 'metrabs'
    for value in (*exported.graph.input, *exported.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    # The shapes between the layers have torch's name for the batch size, and no reader needs them.
    del exported.graph.value_info[:]
    for name, text in description.items():
        exported.metadata_props.add(key=name, value=text)
    content: bytes = exported.SerializeToString()
    return content


def require_packages() -> None:
    """Raise an ImportError that names the packages to install if one is missing."""
    missing = [name for name in EXPORT_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'the export to ONNX needs the package {missing[0]}: '
            f'pip install {" ".join(EXPORT_PACKAGES)}'
        )


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that an exported network depends on."""
    return {
        'torch': torch.__version__,
        **{name: importlib.metadata.version(name) for name in EXPORT_PACKAGES},
    }


def _export(model: CropNetwork, side_px: int) -> Any:
    """Return a network as an ``onnx.ModelProto``."""
    crops = torch.zeros(EXAMPLE_BATCH, 3, side_px, side_px)
    with torch.no_grad(), _without_warnings():
        program = torch.export.export(
            model, (crops,), dynamic_shapes={INPUT: {0: torch.export.Dim(BATCH, min=1)}}
        )
        converted = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert converted is not None
    return converted.model_proto


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide the exporter's warnings that torchvision, which is not used, is not installed."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def metadata(checkpoint: Checkpoint, precision: str) -> dict[str, str]:
    """
    Return a description of a network that has not been modified, as text by name.

    Parameters
    ----------
    checkpoint
        The network and its configuration.
    precision
        Precision of the exported backbone.

    Returns
    -------
    All values except strings are JSON.  A matrix [M, N] is a list of its non-zero entries
    ``[row, column, value]``; its transpose times the points gives the joints.  The skeleton with
    the empty name has all joints.
    """
    config = checkpoint.config
    values: dict[str, Any] = {
        'weights': weights_hash(checkpoint.crop_model),
        'precision': precision,
        **dataclasses.asdict(config),
        'joints': checkpoint.joints.joint_names,
        'joint_transform_matrix': _entries(checkpoint.joint_transform_matrix),
        'skeletons': {
            name: {
                'joint_names': convention.skeleton.joint_names,
                'edges': convention.skeleton.edges,
                'indices': convention.indices.tolist(),
            }
            for name, convention in checkpoint.conventions.items()
        },
    }
    if checkpoint.decoder is not None:
        values['decoder'] = _entries(checkpoint.decoder)
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def _entries(matrix: FloatArray) -> list[list[float]]:
    return [
        [int(row), int(column), float(matrix[row, column])]
        for row, column in np.argwhere(matrix != 0)
    ]
