"""BlazePose's landmarks are computed in the requested precision."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CAN_CALCULATE_IN_BF16

import metrabs_ros


@pytest.mark.skipif(not CAN_CALCULATE_IN_BF16, reason='this processor has no bfloat16')
def test_landmarks_are_less_precise_in_bf16_only(model, player):
    box = [[200, 50, 300, 450]]
    default, exact, rounded = (
        estimator.estimate_poses(player, box)['poses3d']
        for estimator in (
            model,
            metrabs_ros.load_model('blazepose', precision='fp32'),
            metrabs_ros.load_model('blazepose', precision='bf16'),
        )
    )
    np.testing.assert_allclose(default, exact, atol=1)
    assert np.linalg.norm(rounded - exact, axis=-1).max() > 10


@pytest.mark.skipif(CAN_CALCULATE_IN_BF16, reason='this processor has bfloat16')
def test_an_unsupported_precision_is_rejected():
    with pytest.raises(ValueError, match=r"'bf16' is not available .* in f32; choose fp32"):
        metrabs_ros.load_model('blazepose', precision='bf16')
