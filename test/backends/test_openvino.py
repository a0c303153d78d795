"""OpenVINO is imported without telemetry, and an interrupted inference leaves nothing running."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from metrabs_ros.backends.openvino import CompiledNetwork, import_openvino

SIDE_PX, CHANNELS = 256, 16


def test_openvino_is_imported_without_its_telemetry():
    program = (
        'import sys, threading\n'
        'from metrabs_ros.backends.openvino import create_core\n'
        'create_core()\n'
        'assert not [name for name, own in sys.modules.items() if own and "telemetry." in name]\n'
        'assert threading.active_count() == 1, threading.enumerate()\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True)


def slow_network():
    """Return a network with several convolutions, which takes milliseconds for an item."""
    openvino = import_openvino()
    opset = openvino.opset8
    image = opset.parameter([1, CHANNELS, SIDE_PX, SIDE_PX], np.float32)
    kernel = np.full((CHANNELS, CHANNELS, 3, 3), 1e-3, np.float32)
    node = image
    for _ in range(8):
        node = opset.convolution(node, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    return openvino.Model([node], [image], 'slow')


class InterruptedResults:
    """The second use is interrupted, as by SIGINT."""

    def __init__(self, results):
        self._results, self._uses = results, 0

    def __getitem__(self, item):
        self._uses += 1
        if self._uses == 2:
            raise KeyboardInterrupt
        return self._results[item]


def test_the_requests_of_an_interrupted_inference_finish_before_the_exception_is_raised():
    network = CompiledNetwork(slow_network(), 'fp32', threads=1)
    (results,) = network.allocate_outputs(2)
    results[:] = 0
    batch = np.ones((2, CHANNELS, SIDE_PX, SIDE_PX), np.float32)
    with pytest.raises(KeyboardInterrupt):
        network.infer_items(batch, [InterruptedResults(results)])
    assert (results[0] > 0).all()
