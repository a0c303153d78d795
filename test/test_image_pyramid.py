"""Image pyramid levels are aligned at the outer edges."""

from __future__ import annotations

import numpy as np

from metrabs_ros.image_pyramid import corner_aligned_scaling


def test_scaling_keeps_the_outer_edges():
    for factor in (0.25, 0.5, 2, 3):
        edge = corner_aligned_scaling(factor) @ (-0.5, -0.5, 1)
        np.testing.assert_allclose(edge[:2], -0.5)
