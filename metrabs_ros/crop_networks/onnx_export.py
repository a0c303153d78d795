"""
Export of networks that run on crops to ONNX, for other runtimes and for NVIDIA's compilers.

The network has the input `INPUT`, [batch, 3, side, side], float32, RGB from 0 to 1, and outputs
[batch, ...], float32.  The batch size is dynamic.  The metadata describe the outputs.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Iterator
from typing import Any

import torch

import metrabs_ros
from metrabs_ros.backends.selection import EXPORT_PACKAGES
from metrabs_ros.crop_networks.crop_engine import weights_hash
from metrabs_ros.crop_networks.described_network import INPUT, DescribedNetwork
from metrabs_ros.crop_networks.torch_engine import fuse_norms, move_to_device

BATCH = 'batch'
"""Name of the dynamic dimension."""
PRECISIONS = ('fp32', 'fp16')
OPSET = 18
"""The version that the exporter writes without conversion; TensorRT 10 reads it."""
EXAMPLE_BATCH = 4
"""torch.export would treat a batch size of one as a constant."""


def to_onnx(network: DescribedNetwork, precision: str) -> bytes:
    """
    Return a network as an ONNX file.

    Parameters
    ----------
    network
        The network, which is modified.
    precision
        Precision of the backbone, one of `PRECISIONS`; the heads, the input and the outputs
        always have fp32.

    Raises
    ------
    ImportError
        If one of `EXPORT_PACKAGES` is not installed.
    """
    require_packages()
    texts = metadata(network, precision)
    model = network.model.eval()
    fuse_norms(model)
    move_to_device(model, torch.device('cpu'), precision)
    exported = _export(network)
    exported.producer_name = 'metrabs_ros'
    exported.producer_version = metrabs_ros.__version__
    exported.graph.name = network.name
    for value in (*exported.graph.input, *exported.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    # The shapes between the layers have torch's name for the batch size, and no reader needs them.
    del exported.graph.value_info[:]
    for name, text in texts.items():
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


def _export(network: DescribedNetwork) -> Any:
    """Return a network as an ``onnx.ModelProto``."""
    crops = torch.zeros(EXAMPLE_BATCH, *network.input.shape)
    with torch.no_grad(), _without_warnings():
        program = torch.export.export(
            network.model, (crops,), dynamic_shapes={INPUT: {0: torch.export.Dim(BATCH, min=1)}}
        )
        converted = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=[output.name for output in network.outputs],
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


def metadata(network: DescribedNetwork, precision: str) -> dict[str, str]:
    """
    Return a description of a network that has not been modified, as text by name.

    Parameters
    ----------
    network
        The network.
    precision
        Precision of the exported backbone.

    Returns
    -------
    All values except strings are JSON.
    """
    values: dict[str, Any] = {
        'weights': weights_hash(network.model),
        'precision': precision,
        **network.description,
    }
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }
