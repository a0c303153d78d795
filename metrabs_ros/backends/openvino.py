"""Inference on the CPU with OpenVINO."""

from __future__ import annotations

import concurrent.futures
import importlib
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown
from metrabs_ros.weights.store import WeightsError

OPENVINO_TYPES = {'fp32': 'f32', 'bf16': 'bf16'}
"""OpenVINO's names of the precisions.  Without a precision, OpenVINO uses bfloat16 on processors
that support it."""
TELEMETRY = 'openvino_telemetry'


def import_openvino() -> Any:
    """
    Return the module ``openvino``, imported without its telemetry.

    Otherwise each import reports to the servers of Intel, from a process that a thread forks.
    The thread waits forever if SIGINT interrupts the import, and so does the end of the program.

    Raises
    ------
    ImportError
        If the package openvino is not installed, or cannot be imported.
    """
    # openvino uses a substitute without effect if this import fails.
    sys.modules.setdefault(TELEMETRY, None)  # type: ignore[arg-type]
    try:
        return importlib.import_module('openvino')
    except ModuleNotFoundError as error:
        raise ImportError(
            'inference on the CPU needs the package openvino: pip install openvino'
        ) from error
    except ImportError as error:
        raise ImportError(
            f'the package openvino cannot be imported: {printable(error, 200)}'
        ) from error


def create_core(use_mmap: bool = True) -> Any:
    """
    Create an ``openvino.Core``.

    Parameters
    ----------
    use_mmap
        Whether networks that the core reads are mapped into memory.  Otherwise their files can be
        removed afterwards.

    Raises
    ------
    ImportError
        If the package openvino is not installed.
    """
    core = import_openvino().Core()
    if not use_mmap:
        core.set_property({'ENABLE_MMAP': False})
    return core


def compile_for_cpu(
    core: Any,
    network: Any,
    threads: int = 0,
    precision: str | None = None,
    hint: str | None = None,
) -> Any:
    """
    Compile a network for the CPU.

    Parameters
    ----------
    core, network
        An ``openvino.Core`` and an ``openvino.Model``.
    threads
        Number of threads; 0 leaves the choice to OpenVINO, which uses one for each core.
    precision
        ``fp32``, ``bf16``, or None for OpenVINO's default.
    hint
        ``LATENCY``, ``THROUGHPUT``, or None for OpenVINO's default.

    Returns
    -------
    openvino.CompiledModel
    """
    properties: dict[str, Any] = {}
    if threads:
        properties['INFERENCE_NUM_THREADS'] = threads
    if precision is not None:
        properties['INFERENCE_PRECISION_HINT'] = OPENVINO_TYPES[precision]
    if hint is not None:
        properties['PERFORMANCE_HINT'] = hint
    return core.compile_model(network, 'CPU', properties)


def cpu_supports_bf16() -> bool:
    """Return whether the processor has bfloat16 instructions; otherwise it is only emulated."""
    try:
        core = create_core()
    except ImportError:
        return False
    return 'BF16' in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


class OpenVinoEngine:
    """
    A network with one float32 input batch and selected outputs.

    Operations that only other outputs need are removed.

    Parameters
    ----------
    model_file
        File in a format that OpenVINO reads directly: .tflite, .onnx, .xml.
    output_names
        Names of the outputs, in the order in which they are returned.
    threads
        Number of threads; 0 uses one for each core.
    precision
        ``fp32`` or ``bf16``.

    Raises
    ------
    ImportError
        If the package openvino is not installed.
    ValueError
        If the processor does not support the precision.
    metrabs_ros.weights.store.WeightsError
        If OpenVINO cannot read the file or compile the network.
    """

    def __init__(
        self,
        model_file: pathlib.Path,
        output_names: Sequence[str],
        threads: int = 0,
        precision: str = 'fp32',
    ) -> None:
        core = create_core()
        openvino = import_openvino()
        try:
            model = core.read_model(model_file)
            outputs = [model.output(name).get_node().input_value(0) for name in output_names]
            network = openvino.Model(outputs, model.get_parameters(), model.get_friendly_name())
        except RuntimeError as error:
            raise WeightsError(
                f'OpenVINO cannot read {shown(model_file)}: {error_summary(error)}'
            ) from error
        self._network = CompiledNetwork(network, precision, threads)

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """
        Run the network.

        Parameters
        ----------
        batch
            [N, ...], with the input shape of the network.

        Returns
        -------
        list of arrays
            One array [N, ...] for each of the output names.
        """
        results = self._network.allocate_outputs(len(batch))
        # These networks have a fixed batch size of 1.
        if len(batch) == 1:
            self._network.infer_batch(batch, results)
        else:
            self._network.infer_items(batch, results)
        return results


class CompiledNetwork:
    """
    A network that is compiled twice: for low latency and for high throughput.

    A single item is fastest if all threads process it.  Several items are fastest if they are
    processed in parallel, each by one or few threads.

    Parameters
    ----------
    network
        An ``openvino.Model`` with one input.
    precision, threads
        See `OpenVinoEngine`.

    Raises
    ------
    ValueError
        If the processor does not support the precision.
    metrabs_ros.weights.store.WeightsError
        If OpenVINO cannot compile the network.
    """

    def __init__(self, network: Any, precision: str, threads: int) -> None:
        core = create_core()
        openvino = import_openvino()

        def compile_with(hint: str) -> Any:
            return compile_for_cpu(core, network, threads, precision, hint)

        try:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                for_latency, for_throughput = pool.map(compile_with, ('LATENCY', 'THROUGHPUT'))
        except RuntimeError as error:
            raise WeightsError(
                f'OpenVINO cannot prepare a network: {error_summary(error)}'
            ) from error
        # OpenVINO emulates bfloat16 on processors with AVX-512, and ignores the hint on others.
        used_type = for_latency.get_property('INFERENCE_PRECISION_HINT')
        if used_type != getattr(openvino.Type, OPENVINO_TYPES[precision]):
            raise ValueError(
                f'precision {precision!r} is not available on this processor, OpenVINO would use '
                f'{used_type.to_string()}; choose fp32 or auto'
            )
        self._latency_request = for_latency.create_infer_request()
        self._throughput_queue = openvino.AsyncInferQueue(for_throughput)
        self._throughput_queue.set_callback(_copy_outputs)
        self._item_shapes = [
            tuple(size.get_length() for size in list(output.partial_shape)[1:])
            for output in for_latency.outputs
        ]

    @property
    def width(self) -> int:
        """The number of items that `infer_items` processes in parallel."""
        return len(self._throughput_queue)

    def allocate_outputs(self, count: int) -> list[NDArray[np.float32]]:
        """Return an uninitialised array [count, ...] for each output."""
        return [np.empty((count, *shape), np.float32) for shape in self._item_shapes]

    def infer_batch(
        self, batch: NDArray[np.float32], results: Sequence[NDArray[np.float32]]
    ) -> None:
        """Process a batch [N, ...] with all threads in one run; fill in the results in place."""
        self._latency_request.infer({0: batch}, share_inputs=True)
        _copy_outputs(self._latency_request, results)

    def infer_items(
        self, batch: NDArray[np.float32], results: Sequence[NDArray[np.float32]]
    ) -> None:
        """Process the items of a batch [N, ...] in parallel; the results are filled in place."""
        try:
            for row in range(len(batch)):
                item = slice(row, row + 1)
                item_results = [result[item] for result in results]
                self._throughput_queue.start_async(
                    {0: batch[item]}, item_results, share_inputs=True
                )
        finally:
            # Also after SIGINT: requests that still run when Python ends abort the process.
            self._throughput_queue.wait_all()


def error_summary(error: Exception) -> str:
    """Return the last line of an OpenVINO error; the lines before are locations in its source."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1] if lines else 'no reason given', 200)


def _copy_outputs(request: Any, results: Sequence[NDArray[np.float32]]) -> None:
    for index, result in enumerate(results):
        result[:] = request.get_output_tensor(index).data
