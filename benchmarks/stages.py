"""Time of the stages of MeTRAbs or NLF: sampling of crops, network, and the rest."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from metrabs_ros.crop_networks import crop_estimator


class Stages:
    """
    Measures the time of calls of a model and of their stages.

    Parameters
    ----------
    model
        A MeTRAbs or NLF model.
    """

    def __init__(self, model: crop_estimator.CropPoseEstimator) -> None:
        self._model = model
        self._wait = torch.cuda.synchronize if 'cuda' in model.choice.device else lambda: None
        self._spent_s: dict[str, float] = {}

    def measure(
        self, call: Callable[[], object], calls: int, warm_up: int = 3
    ) -> dict[str, float]:
        """Return the median and 95th percentile of a call, and the medians of its stages."""
        for _ in range(warm_up):
            call()
        call_s = []
        for _ in range(calls):
            start_s = time.perf_counter()
            call()
            self._wait()
            call_s.append(time.perf_counter() - start_s)
        return {
            'median_ms': 1e3 * float(np.median(call_s)),
            'p95_ms': 1e3 * float(np.percentile(call_s, 95)),
            **self._measure_stages(call, calls),
        }

    def _measure_stages(self, call: Callable[[], object], calls: int) -> dict[str, float]:
        """Measure the stages in separate calls, because synchronising a GPU slows calls down."""
        by_stage = []
        with self._timed_stages():
            for _ in range(calls):
                self._spent_s = {'sampling': 0.0, 'network': 0.0}
                start_s = time.perf_counter()
                call()
                self._wait()
                self._spent_s['whole'] = time.perf_counter() - start_s
                by_stage.append(self._spent_s)
        median_s = {
            stage: float(np.median([spent[stage] for spent in by_stage])) for stage in by_stage[0]
        }
        rest_s = np.median([s['whole'] - s['network'] - s['sampling'] for s in by_stage])
        return {
            'sampling_ms': 1e3 * median_s['sampling'],
            'network_ms': 1e3 * median_s['network'],
            'rest_ms': 1e3 * float(rest_s),
            'whole_over_network': float(
                np.median([spent['whole'] / spent['network'] for spent in by_stage])
            ),
        }

    @contextlib.contextmanager
    def _timed_stages(self) -> Iterator[None]:
        network, sample = self._model.network, crop_estimator.sample_crops
        self._model.network = self._with_clock('network', network)
        crop_estimator.sample_crops = self._with_clock('sampling', sample)
        try:
            yield
        finally:
            self._model.network, crop_estimator.sample_crops = network, sample

    def _with_clock(self, stage: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            self._wait()
            start_s = time.perf_counter()
            result = function(*arguments)
            self._wait()
            self._spent_s[stage] += time.perf_counter() - start_s
            return result

        return call
