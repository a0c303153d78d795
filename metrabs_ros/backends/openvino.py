"""Running networks on the CPU with OpenVINO."""

from __future__ import annotations

import concurrent.futures
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown
from metrabs_ros.weights.store import WeightsError

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
    ValueError
        If the processor cannot calculate in that precision.
    metrabs_ros.weights.store.WeightsError
        If OpenVINO cannot read the file or prepare its network.
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
        try:
            whole = openvino.Core().read_model(model_file)
            wanted = [whole.output(name).get_node().input_value(0) for name in output_names]
            network = openvino.Model(wanted, whole.get_parameters(), whole.get_friendly_name())
        except RuntimeError as error:
            raise WeightsError(
                f'OpenVINO cannot read {shown(model_file)}: {reason_of(error)}'
            ) from error
        self._network = CompiledNetwork(network, precision, threads)

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
        results = self._network.room_for(len(batch))
        # These networks have their batch size of 1 built in.
        if len(batch) == 1:
            self._network.run_together(batch, results)
        else:
            self._network.run_side_by_side(batch, results)
        return results


class CompiledNetwork:
    """
    A network that is ready to run in two ways.

    One item is fastest with all threads on it, several are fastest side by side.

    Parameters
    ----------
    network
        An ``openvino.Model`` with one input.
    precision, threads
        As `OpenVinoEngine` takes them.

    Raises
    ------
    ValueError
        If the processor cannot calculate in that precision.
    metrabs_ros.weights.store.WeightsError
        If OpenVINO cannot prepare the network.
    """

    def __init__(self, network: Any, precision: str, threads: int) -> None:
        import openvino

        options: dict[str, Any] = {'INFERENCE_PRECISION_HINT': TYPES[precision]}
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads

        core = openvino.Core()

        def compiled(hint: str) -> Any:
            return core.compile_model(network, 'CPU', {'PERFORMANCE_HINT': hint, **options})

        try:
            with concurrent.futures.ThreadPoolExecutor() as both:
                together, side_by_side = both.map(compiled, ('LATENCY', 'THROUGHPUT'))
        except RuntimeError as error:
            raise WeightsError(f'OpenVINO cannot prepare a network: {reason_of(error)}') from error
        # OpenVINO emulates bfloat16 where there is AVX-512, and elsewhere ignores the wish.
        taken = together.get_property('INFERENCE_PRECISION_HINT')
        if taken != getattr(openvino.Type, TYPES[precision]):
            raise ValueError(
                f'precision {precision!r} is not available on this processor, where OpenVINO '
                f'would calculate in {taken.to_string()}; choose fp32 or auto'
            )
        self._together = together.create_infer_request()
        self._side_by_side = openvino.AsyncInferQueue(side_by_side)
        self._side_by_side.set_callback(_keep)
        self._item_shapes = [
            tuple(size.get_length() for size in list(output.partial_shape)[1:])
            for output in together.outputs
        ]

    @property
    def width(self) -> int:
        """How many items run side by side."""
        return len(self._side_by_side)

    def room_for(self, count: int) -> list[NDArray[np.float32]]:
        """Return an array [count, ...] for each output."""
        return [np.empty((count, *shape), np.float32) for shape in self._item_shapes]

    def run_together(
        self, batch: NDArray[np.float32], results: Sequence[NDArray[np.float32]]
    ) -> None:
        """Run a batch [N, ...] with all threads; results are filled in place."""
        self._together.infer({0: batch}, share_inputs=True)
        _keep(self._together, results)

    def run_side_by_side(
        self, batch: NDArray[np.float32], results: Sequence[NDArray[np.float32]]
    ) -> None:
        """Run each item of a batch [N, ...] on its own; results are filled in place."""
        for row in range(len(batch)):
            own = slice(row, row + 1)
            where = [result[own] for result in results]
            self._side_by_side.start_async({0: batch[own]}, where, share_inputs=True)
        self._side_by_side.wait_all()


def reason_of(error: Exception) -> str:
    """Return the last line of OpenVINO's message; those before say where in its source it was."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1] if lines else 'no reason given', 200)


def _keep(request: Any, results: Sequence[NDArray[np.float32]]) -> None:
    for index, result in enumerate(results):
        result[:] = request.get_output_tensor(index).data
