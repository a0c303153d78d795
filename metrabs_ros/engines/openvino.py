"""Running networks on the CPU with OpenVINO."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = {'fp32': 'f32', 'bf16': 'bf16'}
"""Without being told, OpenVINO takes bfloat16 where the processor has it."""


class OpenVinoEngine:
    """
    A network that reads one float32 batch and gives some of its outputs.

    What only the other outputs need is not computed.

    Parameters
    ----------
    model_file
        Any format that OpenVINO reads directly: .tflite, .onnx, .xml.
    output_names
        The outputs to compute, in the order in which they are returned.
    threads
        How many to use; 0 leaves it to OpenVINO, which takes one for each core.
    precision
        ``fp32`` or ``bf16``.

    Raises
    ------
    ImportError
        If the package openvino is not installed.
    """

    def __init__(
        self,
        model_file: pathlib.Path,
        output_names: Sequence[str],
        threads: int = 0,
        precision: str = 'fp32',
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ImportError(
                'the package openvino is needed to run this model on the CPU: pip install openvino'
            ) from error
        core = openvino.Core()
        whole = core.read_model(model_file)
        wanted = [whole.output(name).get_node().input_value(0) for name in output_names]
        network = openvino.Model(wanted, whole.get_parameters(), whole.get_friendly_name())
        options: dict[str, Any] = {'INFERENCE_PRECISION_HINT': TYPES[precision]}
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads
        # One item is fastest with all threads on it, several are fastest side by side.
        single = core.compile_model(network, 'CPU', {'PERFORMANCE_HINT': 'LATENCY', **options})
        several = core.compile_model(network, 'CPU', {'PERFORMANCE_HINT': 'THROUGHPUT', **options})
        self._single = single.create_infer_request()
        self._several = openvino.AsyncInferQueue(several)
        self._several.set_callback(self._keep)
        self._output_shapes = [tuple(output.shape[1:]) for output in single.outputs]

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """
        Run the network.

        Parameters
        ----------
        batch
            [N, ...], of the shape that the network was made for.

        Returns
        -------
        One array [N, ...] for each of the output names.
        """
        results = [np.empty((len(batch), *shape), np.float32) for shape in self._output_shapes]
        # These networks have their batch size of 1 built in.
        if len(batch) == 1:
            self._single.infer({0: batch}, share_inputs=True)
            self._keep(self._single, (results, 0))
            return results
        for i in range(len(batch)):
            self._several.start_async({0: batch[i : i + 1]}, (results, i), share_inputs=True)
        self._several.wait_all()
        return results

    @staticmethod
    def _keep(request: Any, where: tuple[list[NDArray[np.float32]], int]) -> None:
        results, row = where
        for index, result in enumerate(results):
            result[row] = request.get_output_tensor(index).data[0]
