"""BlazePose's landmarks are found in the precision that was asked for."""

from __future__ import annotations

import numpy as np

import metrabs_ros


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
