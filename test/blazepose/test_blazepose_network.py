"""BlazePose's landmarks are found in the precision that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import CAN_CALCULATE_IN_BF16

import metrabs_ros


@pytest.mark.skipif(not CAN_CALCULATE_IN_BF16, reason='this processor has no bfloat16')
def test_landmarks_in_bf16_are_rounded_and_those_in_fp32_are_not(model, player):
    box = [[200, 50, 300, 450]]
    usual, exact, rounded = (
        estimator.estimate_poses(player, box)['poses3d']
        for estimator in (
            model,
            metrabs_ros.load_model('blazepose', precision='fp32'),
            metrabs_ros.load_model('blazepose', precision='bf16'),
        )
    )
    np.testing.assert_allclose(usual, exact, atol=1)
    assert np.linalg.norm(rounded - exact, axis=-1).max() > 10


@pytest.mark.skipif(CAN_CALCULATE_IN_BF16, reason='this processor has bfloat16')
def test_a_precision_that_the_processor_lacks_is_refused():
    with pytest.raises(ValueError, match=r"'bf16' is not available .* in f32; choose fp32"):
        metrabs_ros.load_model('blazepose', precision='bf16')
