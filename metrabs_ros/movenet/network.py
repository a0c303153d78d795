"""MoveNet MultiPose network: from an image to the maps of its heads."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.backends.openvino import compile_for_cpu, create_core, error_summary
from metrabs_ros.regular_file import shown
from metrabs_ros.weights.store import WeightsError

STRIDE_PX = 4
"""Distance of the cells of the output maps, in input pixels."""
SIDE_MULTIPLE_PX = 32
"""Height and width of the input are multiples of this."""
OUTPUTS = (
    'centre_logits',
    'box_sizes',
    'box_offsets',
    'keypoint_offsets',
    'keypoint_logits',
    'keypoint_cell_offsets',
)


@dataclasses.dataclass(frozen=True)
class Heads:
    """
    Output maps of the network, with h x w cells of `STRIDE_PX` input pixels.

    All positions and offsets are in cells, y before x.

    Parameters
    ----------
    centre_logits
        [h, w], logit of a person's centre.
    box_sizes, box_offsets
        [h, w, 2], read at a centre: height and width of the box, and offset of its centre.
    keypoint_offsets
        [h, w, 17, 2], read at a centre: approximate offsets of the keypoints.
    keypoint_logits
        [h, w, 17], logit of a keypoint.
    keypoint_cell_offsets
        [h, w, 17, 2], offset of a keypoint from its cell.
    """

    centre_logits: FloatArray
    box_sizes: FloatArray
    box_offsets: FloatArray
    keypoint_offsets: FloatArray
    keypoint_logits: FloatArray
    keypoint_cell_offsets: FloatArray


class MoveNet:
    """
    The network on the CPU, for images of any size that is a multiple of 32.

    Parameters
    ----------
    model_file
        ``movenet_multipose.xml``.
    threads
        Number of CPU threads; 0 uses one for each core.
    precision
        ``fp32`` or ``bf16``.  In bf16 the scores change by 0.01 and the keypoints by 0.3 input
        pixels (medians).

    Raises
    ------
    ImportError
        If the package openvino is not installed.
    metrabs_ros.weights.store.WeightsError
        If OpenVINO cannot read or compile the network.
    """

    def __init__(
        self, model_file: pathlib.Path, threads: int = 0, precision: str = 'fp32'
    ) -> None:
        core = create_core()
        try:
            network = compile_for_cpu(
                core, core.read_model(model_file), threads, precision, 'LATENCY'
            )
        except RuntimeError as error:
            raise WeightsError(
                f'OpenVINO cannot prepare {shown(model_file)}: {error_summary(error)}'
            ) from error
        self._request = network.create_infer_request()
        self._outputs = [network.output(name) for name in OUTPUTS]

    def __call__(self, image: ImageArray) -> Heads:
        """Run the network on an image [H, W, 3], uint8, RGB; H and W are multiples of 32."""
        self._request.infer({0: np.ascontiguousarray(image)[None]}, share_inputs=True)
        maps = [
            self._request.get_tensor(output).data[0].astype(np.float32) for output in self._outputs
        ]
        centres, sizes, offsets, keypoint_offsets, keypoints, cell_offsets = maps
        shape = centres.shape[:2]
        return Heads(
            centres[..., 0],
            sizes,
            offsets,
            keypoint_offsets.reshape(*shape, -1, 2),
            keypoints,
            cell_offsets.reshape(*shape, -1, 2),
        )
