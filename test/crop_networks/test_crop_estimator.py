"""Crops of several people and images run in full batches, in their order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.crop_networks.crop_estimator import rebatch


@given(lengths=st.lists(st.integers(1, 9), max_size=9), size=st.integers(1, 9))
def test_batches_have_the_same_rows_in_the_same_order_and_only_the_last_is_smaller(lengths, size):
    rows = torch.arange(sum(lengths))
    batches = list(rebatch(torch.split(rows, lengths), size))
    assert [len(batch) for batch in batches[:-1]] == [size] * len(batches[:-1])
    assert all(0 < len(batch) <= size for batch in batches)
    assert [row for batch in batches for row in batch.tolist()] == rows.tolist()
