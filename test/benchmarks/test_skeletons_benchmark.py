"""Targets of benchmarks, and errors of joints whose convention is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import skeletons
import synthetic_skeletons
import targets

from metrabs_ros.skeletons.affine_autoencoder import AffineAutoencoder


def test_a_missed_target_is_printed_and_changes_the_exit_status(capsys):
    met = targets.Target('error', 4.0, 'mm', at_most=5)
    assert targets.report([met, targets.Target('ratio', 3.2, 'times', at_least=3)]) == 0
    assert capsys.readouterr().out.count('target met') == 2
    for value in (5.01, float('nan')):
        assert targets.report([met, targets.Target('error', value, 'mm', at_most=5)]) == 1
        assert f'target MISSED  error: {value:.3g} mm (at most 5)' in capsys.readouterr().out


def test_the_script_compares_what_it_measures_with_its_targets(monkeypatch, capsys):
    monkeypatch.setattr(skeletons, 'REPEATS', 3)
    monkeypatch.setattr(skeletons, 'MAX_CONVERSION_US', 1e6)
    assert skeletons.main(['speed']) == 0
    monkeypatch.setattr(skeletons, 'MAX_CONVERSION_US', 1e-6)
    assert skeletons.main(['speed']) == 1
    assert 'target MISSED  positions of 20 people' in capsys.readouterr().out


def test_hidden_joints_are_predicted_from_other_conventions_only():
    fitted, new = (synthetic_skeletons.make(300, seed, 2, 40) for seed in (0, 1))
    samples = skeletons.samples_of(fitted)
    same = AffineAutoencoder(
        np.eye(40), np.eye(40), samples.skeleton, samples.skeleton.mirror, np.zeros(40)
    )
    poses_mm = new.poses_mm.astype(np.float64)
    assert skeletons.errors_mm(same, poses_mm, new).max() == pytest.approx(0)
    hidden_mm = skeletons.hidden_errors_mm(same, samples, new)
    # Each joint has independent noise, which no other joint predicts.
    assert hidden_mm.min() > synthetic_skeletons.NOISE_MM
    assert hidden_mm.mean() < 100
