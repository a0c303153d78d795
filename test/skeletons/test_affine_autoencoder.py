"""Autoencoder: equivariance, accuracy on known relations, missing joints, files, checkpoints."""

from __future__ import annotations

import pathlib
import shutil
import sys

import numpy as np
import pytest
import torch
from golden_cases import CASES, estimate
from hypothesis import given
from hypothesis import strategies as st

import metrabs_ros
from metrabs_ros.skeletons.affine_autoencoder import (
    AffineAutoencoder,
    fit_autoencoder,
    select_latents,
    split,
)
from metrabs_ros.skeletons.pose_samples import PoseSamples

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'benchmarks'))
import synthetic_skeletons

STEPS = 60, 40
JOINTS = 60


def samples_of(synthetic, missing_share=0.0):
    poses_mm = synthetic.poses_mm.astype(np.float64)
    count = synthetic.conventions.max() + 1
    missing = np.random.default_rng(0).random((len(poses_mm), count)) < missing_share
    poses_mm[missing[:, synthetic.conventions]] = np.nan
    pairs = [(int(a), int(b)) for a, b in synthetic.mirror_pairs]
    return PoseSamples(poses_mm, tuple(synthetic.joint_names.tolist()), pairs)


def synthetic_poses(count, seed=0):
    return synthetic_skeletons.make(count, seed, convention_count=3, joints=JOINTS)


@pytest.fixture(scope='module')
def fitted():
    torch.set_num_threads(1)
    return fit_autoencoder(samples_of(synthetic_poses(1500)), 30, steps=STEPS)


def test_joints_are_reconstructed_in_new_poses_from_few_weights(fitted):
    new = synthetic_poses(300, seed=5)
    errors_mm = np.linalg.norm(fitted.decode(fitted.encode(new.poses_mm)) - new.poses_mm, axis=-1)
    means_mm = errors_mm.mean(axis=0)
    assert means_mm[new.is_affine].mean() < 5
    for matrix in (fitted.encoder, fitted.decoder):
        assert ((np.abs(matrix) > 0.01).sum(axis=1) <= 8).all()
    # The errors of poses that were not fitted predict those of new poses.
    assert fitted.errors_mm.mean() == pytest.approx(means_mm.mean(), rel=0.2)


@given(st.integers(0, 2**32 - 1))
def test_latent_points_move_and_are_mirrored_with_the_joints(fitted, seed):
    rng = np.random.default_rng(seed)
    pose_mm = rng.normal(0, 600, (JOINTS, 3))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    shift_mm = rng.normal(0, 5000, 3)
    latents_mm = fitted.encode(pose_mm)
    moved_mm = fitted.encode(pose_mm @ rotation.T + shift_mm)
    np.testing.assert_allclose(moved_mm, latents_mm @ rotation.T + shift_mm, atol=1e-5)
    np.testing.assert_allclose(
        fitted.decode(moved_mm), fitted.decode(latents_mm) @ rotation.T + shift_mm, atol=1e-5
    )
    reflection, mirror = np.array([-1.0, 1, 1]), fitted.joints.mirror
    mirrored_mm = fitted.encode((pose_mm * reflection)[mirror])
    np.testing.assert_allclose(
        mirrored_mm, (latents_mm * reflection)[fitted.latent_mirror], atol=1e-5
    )
    np.testing.assert_allclose(
        fitted.decode(mirrored_mm), (fitted.decode(latents_mm) * reflection)[mirror], atol=1e-5
    )


def test_poses_without_some_conventions_are_fitted_almost_as_well():
    torch.set_num_threads(1)
    new = synthetic_poses(300, seed=5)
    own = fit_autoencoder(samples_of(synthetic_poses(1500), missing_share=0.3), 30, steps=STEPS)
    errors_mm = np.linalg.norm(own.decode(own.encode(new.poses_mm)) - new.poses_mm, axis=-1)
    assert errors_mm.mean(axis=0)[new.is_affine].mean() < 5
    assert np.isfinite(own.errors_mm).all()


def test_the_file_has_the_same_autoencoder_and_no_pickle(fitted, tmp_path):
    file = tmp_path / 'autoencoder.npz'
    fitted.write(file)
    read = AffineAutoencoder.read(file)
    np.testing.assert_array_equal(read.encoder, fitted.encoder)
    np.testing.assert_array_equal(read.decoder, fitted.decoder)
    np.testing.assert_array_equal(read.latent_mirror, fitted.latent_mirror)
    np.testing.assert_array_equal(read.errors_mm, fitted.errors_mm)
    assert read.joints == fitted.joints
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays['w2'].shape == (30, JOINTS)


def test_a_damaged_file_is_rejected_in_one_sentence(fitted, tmp_path):
    file = tmp_path / 'autoencoder.npz'
    fitted.write(file)
    content = file.read_bytes()
    for damaged in (b'', content[:100], content[:-200], b'PK' * 500):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match='is not a file of metrabs_ros fit-skeletons'):
            AffineAutoencoder.read(file)
    arrays = {'w1': np.ones((2, 1)), 'w2': np.ones((1, 2)) / 2}
    arrays |= {'joint_names': np.array(['a', 'b']), 'mirror_pairs': np.zeros((0, 2), int)}
    np.savez(file, **arrays, latent_mirror=np.zeros(1, int), errors_mm=np.zeros(2))
    with pytest.raises(ValueError, match='columns sum to one'):
        AffineAutoencoder.read(file)
    arrays |= {'w1': np.ones((2, 1)) / 2, 'w2': np.ones((1, 2))}
    arrays |= {'latent_mirror': np.zeros(1, int), 'errors_mm': np.zeros(2)}
    for changes, message in (
        ({'latent_mirror': np.ones(1, int)}, 'latent_mirror does not refer'),
        ({'latent_mirror': np.zeros(1)}, 'latent_mirror does not refer'),
        ({'errors_mm': np.zeros(3)}, 'errors_mm does not have a number for each joint'),
    ):
        np.savez(file, **{**arrays, **changes})
        with pytest.raises(ValueError, match=message):
            AffineAutoencoder.read(file)


def test_a_network_with_a_fitted_decoder_runs_from_a_checkpoint(checkpoint_folder, tmp_path):
    torch.set_num_threads(1)
    folder = tmp_path / 'checkpoint'
    shutil.copytree(checkpoint_folder('s_latents'), folder)
    with np.load(folder / 'joint_info.npz') as info:
        names = tuple(info['joint_names'].tolist())
    # Poses of as many joints with the names of the checkpoint, of which 12 are independent.
    rng = np.random.default_rng(0)
    points_mm = rng.normal(0, 300, (400, 12, 3))
    weights = rng.normal(0, 0.4, (len(names), 12))
    weights += (1 - weights.sum(axis=1, keepdims=True)) / 12
    own = fit_autoencoder(PoseSamples(weights @ points_mm, names, []), 12, steps=(5, 0))
    before = estimate(metrabs_ros.load_model(folder, 'torch'), CASES[0])
    (folder / 'affine_weights.npz').unlink()
    own.write(folder / 'affine_weights.npz')
    after = estimate(metrabs_ros.load_model(folder, 'torch'), CASES[0])
    assert after['poses3d'].shape == before['poses3d'].shape
    assert np.isfinite(after['poses3d']).all()
    assert np.abs(after['poses3d'] - before['poses3d']).max() > 1


def test_poses_that_are_not_fitted_are_blocks():
    fitted, held_out = split(1000)
    assert np.array_equal(np.sort(np.concatenate([fitted, held_out])), np.arange(1000))
    assert len(held_out) == 100
    assert (np.diff(held_out) == 1).sum() == 95
    for count in range(10, 100):
        assert len(split(count)[0]) >= 0.8 * count
        assert len(split(count)[1]) > 0


@given(st.integers(1, 9), st.integers(0, 3), st.integers(0, 100))
def test_latent_points_are_chosen_in_pairs_or_in_the_middle(pairs, central, seed):
    rng = np.random.default_rng(seed)
    joints = 2 * pairs + central
    mirror = np.arange(joints)
    mirror[: 2 * pairs] = mirror[: 2 * pairs].reshape(-1, 2)[:, ::-1].reshape(-1)
    root = rng.normal(size=(joints, joints))
    covariance = root @ root.T
    covariance = (covariance + covariance[np.ix_(mirror, mirror)]) / 2
    for count in range(1, joints + 1):
        if count % 2 and not central:
            with pytest.raises(ValueError, match=f'latents is {count}, which is not possible'):
                select_latents(covariance, mirror, count)
            continue
        chosen, latent_mirror = select_latents(covariance, mirror, count)
        assert len(set(chosen.tolist())) == count
        np.testing.assert_array_equal(chosen[latent_mirror], mirror[chosen])


@pytest.mark.parametrize(
    ('count', 'latents', 'message'),
    [
        (40, 10, 'there are 40 poses of 60 joints; at least 67 poses are needed'),
        (100, 61, 'latents is 61; it must be from 1 to the 60 joints'),
        (100, -1, 'latents is -1; it must be from 1'),
    ],
)
def test_too_few_poses_and_impossible_numbers_of_latents_are_rejected(count, latents, message):
    samples = samples_of(synthetic_poses(count))
    with pytest.raises(ValueError, match=message):
        fit_autoencoder(samples, latents, steps=(1, 1))


def test_few_joints_need_poses_for_the_validation():
    poses_mm = np.random.default_rng(0).normal(0, 300, (9, 3, 3))
    with pytest.raises(ValueError, match='9 poses of 3 joints; at least 10 poses are needed'):
        fit_autoencoder(PoseSamples(poses_mm, ('a', 'b', 'c')), steps=(1, 1))


def test_joints_that_never_occur_together_are_rejected():
    synthetic = synthetic_poses(200)
    poses_mm = synthetic.poses_mm.copy()
    poses_mm[:100, synthetic.conventions == 0] = np.nan
    poses_mm[100:, synthetic.conventions == 1] = np.nan
    with pytest.raises(ValueError, match='occur together in 0 poses; at least 3 are needed'):
        fit_autoencoder(PoseSamples(poses_mm, tuple(synthetic.joint_names.tolist())), 10)


def test_the_progress_ends_at_the_number_of_steps():
    torch.set_num_threads(1)
    done = []
    fit_autoencoder(samples_of(synthetic_poses(200)), 10, done.append, steps=(7, 5))
    assert sum(done) == 40 + 7 + 5


def test_without_torch_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(ImportError, match='needs the package torch: pip install torch'):
        fit_autoencoder(samples_of(synthetic_poses(100)), 10)
