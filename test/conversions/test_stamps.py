import types

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from metrabs_ros.conversions.stamps import NS_PER_S, to_ns, to_seconds


@hypothesis.given(st.integers(0, 2**31 - 1), st.integers(0, NS_PER_S - 1))
def test_stamps_are_exact_in_nanoseconds_and_accurate_in_seconds(sec, nanosec):
    # Fields of recorded messages are 32-bit integers of NumPy in some types.
    stamp = types.SimpleNamespace(sec=np.int32(sec), nanosec=np.uint32(nanosec))
    assert divmod(to_ns(stamp), NS_PER_S) == (sec, nanosec)
    assert to_seconds(stamp) == pytest.approx(to_ns(stamp) / NS_PER_S, rel=1e-15)
