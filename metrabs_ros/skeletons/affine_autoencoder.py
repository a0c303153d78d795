"""
Affine-combining autoencoder: many joints as combinations of few latent points, and back.

Sarandi, Hermans and Leibe, WACV 2023 (arXiv 2212.14474).  Latent points are affine combinations of
the joints, and the joints are affine combinations of the latent points, so that both commute with
rotation, translation and scaling of a pose.  Latent points are in pairs like the joints, with the
same weights on both sides of the body, so that both commute with mirroring.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import SHARED, shown, write_atomically
from metrabs_ros.skeletons.affine_regression import (
    MAX_ITERATIONS,
    SquaredDifferences,
    check_common_poses,
    fill_missing,
    joint_covariance,
    sparse_affine_weights,
)
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.skeletons.pose_samples import PoseSamples
from metrabs_ros.weights.array_file import read_npz

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_LATENTS = 48
"""As in the paper, for 555 joints."""
MAX_WEIGHTS = 8
"""Maximum number of weights of a joint or of a latent point."""
SPARSITY_MM = 1.0
"""Error that the sparsity loss balances with a sum of absolute weights of 1."""
STEPS, SPARSE_STEPS, BATCH_POSES = 2500, 1500, 256
"""Number of steps with all weights, and with the remaining ones; poses per step."""
STEP_COUNT = MAX_ITERATIONS + STEPS + SPARSE_STEPS
LEARNING_RATE, SPARSE_LEARNING_RATE = 2e-3, 1e-3
SINGULAR_MM2 = 1e-3
UNIT_MM = 100.0
"""Unit of lengths in the fit."""
NEAR_MM, FAR_MM, MIN_DEPTH_MM = 2000.0, 6000.0, 300.0
"""Distances of the cameras for the loss of projections."""
VALIDATION_BLOCKS, VALIDATION_STRIDE = 50, 10
"""Blocks of successive poses, and which of them are not fitted: every tenth."""
ARRAYS = ('w1', 'w2', 'joint_names', 'mirror_pairs', 'latent_mirror', 'errors_mm')

Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class AffineAutoencoder:
    """
    An encoder from J joints to L latent points, and a decoder.

    Parameters
    ----------
    encoder
        [L, J], weights of the joints in the latent points; rows sum to one.
    decoder
        [J, L], weights of the latent points in the joints; rows sum to one.
    joints
        The J joints, with their mirror pairs.
    latent_mirror
        [L], index of the counterpart of each latent point on the other side of the body.
    errors_mm
        [J], mean distance of each joint from its reconstruction in poses that were not fitted; NaN
        if these poses lack it.
    """

    encoder: FloatArray
    decoder: FloatArray
    joints: Skeleton
    latent_mirror: NDArray[np.intp]
    errors_mm: FloatArray

    def encode(self, poses_mm: FloatArray) -> FloatArray:
        """Return the latent points [..., L, 3] of joints [..., J, 3]."""
        return self.encoder @ poses_mm

    def decode(self, latents_mm: FloatArray) -> FloatArray:
        """Return the joints [..., J, 3] of latent points [..., L, 3]."""
        return self.decoder @ latents_mm

    def write(self, file: pathlib.Path) -> None:
        """
        Write a .npz file; its arrays ``w1`` [J, L] and ``w2`` [L, J] are those of checkpoints.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        content = io.BytesIO()
        pairs = np.array(self.joints.mirror_pairs or (), np.int64).reshape(-1, 2)
        arrays = (
            *(self.encoder.T, self.decoder.T, np.array(self.joints.joint_names)),
            *(pairs, self.latent_mirror, self.errors_mm),
        )
        np.savez(content, **dict(zip(ARRAYS, arrays)))  # type: ignore[arg-type]
        write_atomically(file, content.getvalue(), SHARED)

    @classmethod
    def read(cls, file: pathlib.Path) -> AffineAutoencoder:
        """
        Read a file from `write`.

        Raises
        ------
        ValueError
            If the file cannot be read, or its content is not valid.
        """
        try:
            w1, w2, names, pairs, mirror, errors_mm = read_npz(file, ARRAYS)
            joints, latents = len(names), len(mirror)
            is_valid = w1.shape == w2.shape[::-1] == (joints, latents) and names.dtype.kind == 'U'
            finite = is_valid and np.isfinite(w1).all() and np.isfinite(w2).all()
            if not finite or not np.allclose([*w1.sum(axis=0), *w2.sum(axis=0)], 1, atol=1e-4):
                raise ValueError('its weights are not matrices whose columns sum to one')
            is_index = mirror.dtype.kind in 'iu' and mirror.ndim == 1
            if not is_index or not np.isin(mirror, np.arange(latents)).all():
                raise ValueError('latent_mirror does not refer to the latent points')
            if (mirror[mirror] != np.arange(latents)).any():
                raise ValueError('latent_mirror does not pair the latent points')
            if errors_mm.shape != (joints,) or errors_mm.dtype.kind != 'f':
                raise ValueError('errors_mm does not have a number for each joint')
            samples = PoseSamples(
                np.zeros((0, joints, 3)), tuple(names.tolist()), _as_pairs(pairs)
            )
            return cls(w1.T, w2.T, samples.skeleton, mirror.astype(np.intp), errors_mm)
        # The reader of archives raises exceptions of several types for damaged files.
        except Exception as error:
            reason = printable(' '.join(str(error).split()), 300)
            raise ValueError(
                f'{shown(file)} is not a file of metrabs_ros fit-skeletons: {reason}'
            ) from error


def fit_autoencoder(
    samples: PoseSamples,
    latents: int = 0,
    advance: Advance = lambda steps: None,
    steps: tuple[int, int] = (STEPS, SPARSE_STEPS),
    seed: int = 0,
) -> AffineAutoencoder:
    """
    Fit an autoencoder to poses in which joints may be missing.

    Parameters
    ----------
    samples
        The poses.
    latents
        Number of latent points; 0: half of the joints, at most `DEFAULT_LATENTS`.
    advance
        Called with the number of steps done since the last call; there are `STEP_COUNT` with the
        default numbers of steps.
    steps
        Numbers of steps with all weights, and with the remaining ones.
    seed
        Seed of the random numbers.

    Raises
    ------
    ValueError
        If there are too few poses, or two joints never occur together.
    ImportError
        If torch is not installed.
    """
    _require_torch()
    joints = len(samples.skeleton)
    latents = latents or _default_latents(samples.skeleton.mirror)
    if not 1 <= latents <= joints:
        raise ValueError(f'latents is {latents}; it must be from 1 to the {joints} joints')
    fitted, held_out = split(len(samples.poses_mm))
    if len(fitted) < joints or not len(held_out):
        needed = max(joints * VALIDATION_STRIDE // (VALIDATION_STRIDE - 1) + 1, VALIDATION_STRIDE)
        raise ValueError(
            f'there are {len(samples.poses_mm)} poses of {joints} joints; at least {needed} poses '
            'are needed'
        )
    mirror = samples.skeleton.mirror
    differences = SquaredDifferences.of_poses(samples.poses_mm[fitted]).symmetrised(mirror)
    check_common_poses(differences, samples.skeleton.joint_names)
    done = 0

    def advance_estimation(iterations: int) -> None:
        nonlocal done
        done += iterations
        advance(iterations)

    covariance = joint_covariance(samples.poses_mm[fitted], mirror, advance_estimation)
    advance(MAX_ITERATIONS - done)
    chosen, latent_mirror = select_latents(covariance, mirror, latents)
    encoder = np.zeros((latents, joints))
    encoder[np.arange(latents), chosen] = 1
    decoder = np.array(
        [sparse_affine_weights(covariance, chosen, joint, MAX_WEIGHTS) for joint in range(joints)]
    )
    matrices = _refine(
        samples.poses_mm[fitted],
        covariance,
        (encoder, decoder),
        (latent_mirror, mirror),
        steps,
        advance,
        seed,
    )
    held_out_mm = samples.poses_mm[held_out]
    errors_mm = reconstruction_errors_mm(held_out_mm, covariance, *matrices)
    return AffineAutoencoder(*matrices, samples.skeleton, latent_mirror, errors_mm)


def _default_latents(mirror: NDArray[np.intp]) -> int:
    """Return half of the joints, at most `DEFAULT_LATENTS`, that are possible in pairs."""
    pairs = int((mirror != np.arange(len(mirror))).sum()) // 2
    count = max(2, min(DEFAULT_LATENTS, len(mirror) // 2))
    return count + (not _can_choose(count, pairs, len(mirror) - 2 * pairs))


def split(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """
    Return the indices of poses that are fitted, and of those that are not.

    Poses are left out in blocks, because successive poses are often similar.
    """
    block = np.arange(count) * min(VALIDATION_BLOCKS, count) // max(count, 1)
    is_held_out = block % VALIDATION_STRIDE == VALIDATION_STRIDE - 1
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def select_latents(
    covariance: FloatArray, mirror: NDArray[np.intp], count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """
    Return joints from which the others can be predicted well, as first latent points.

    Each one reduces the error of all joints most (column subset selection).  Joints on the side of
    the body are chosen in pairs.

    Parameters
    ----------
    covariance
        [J, J], second moments of the joints, the same on both sides.
    mirror
        [J], counterparts of the joints.
    count
        Number L of latent points.

    Returns
    -------
    The joints [L], and the counterparts of the latent points [L].

    Raises
    ------
    ValueError
        If pairs and joints in the middle do not add up to the number.
    """
    is_sided = mirror != np.arange(len(mirror))
    pairs, central = int(is_sided.sum()) // 2, int((~is_sided).sum())
    if not _can_choose(count, pairs, central):
        raise ValueError(
            f'latents is {count}, which is not possible with {pairs} pairs of joints and '
            f'{central} in the middle; give one more or one less'
        )
    chosen: list[int] = []
    # The origin of the moments is the mean of all joints: the first joint is the nearest to it.
    scores = -np.diag(covariance).copy()
    residual = covariance
    while len(chosen) < count:
        left = count - len(chosen)
        if not _can_choose(left - 2, pairs - 1, central):
            scores[is_sided] = -np.inf
        if not _can_choose(left - 1, pairs, central - 1):
            scores[~is_sided] = -np.inf
        joint = int(np.argmax(scores))
        own = dict.fromkeys((joint, int(mirror[joint])))
        pairs, central = pairs - (len(own) == 2), central - (len(own) == 1)
        for index in own:
            if not chosen:
                # From now on relative to the first joint, as the weights sum to one.
                residual = covariance - covariance[index] - covariance[:, [index]]
                residual = residual + covariance[index, index]
            elif residual[index, index] > SINGULAR_MM2:
                across = residual[index] / np.sqrt(residual[index, index])
                residual = residual - np.outer(across, across)
            chosen.append(index)
        scores = (residual**2).sum(axis=1) / np.maximum(np.diag(residual), SINGULAR_MM2)
        scores[chosen] = -np.inf
    index_of = {joint: i for i, joint in enumerate(chosen)}
    return np.array(chosen), np.array([index_of[int(mirror[joint])] for joint in chosen])


def _can_choose(count: int, pairs: int, central: int) -> bool:
    """Return whether as many joints can be chosen from pairs and from joints in the middle."""
    fewest_central = max(count - 2 * pairs, count % 2)
    fewest_central += (count - fewest_central) % 2
    return min(count, pairs, central) >= 0 and fewest_central <= min(central, count)


def reconstruction_errors_mm(
    poses_mm: FloatArray, covariance: FloatArray, encoder: FloatArray, decoder: FloatArray
) -> FloatArray:
    """Return the mean error [J] of joints in poses [N, J, 3], where they are known."""
    known = np.isfinite(poses_mm).all(axis=-1)
    complete_mm = fill_missing(poses_mm.astype(np.float64), covariance)
    errors_mm = np.linalg.norm(decoder @ (encoder @ complete_mm) - complete_mm, axis=-1)
    counts = known.sum(axis=0)
    means_mm = np.where(known, errors_mm, 0).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 0, means_mm, np.nan)


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ImportError('fit-skeletons needs the package torch: pip install torch') from error


def _refine(
    poses_mm: FloatArray,
    covariance: FloatArray,
    matrices: tuple[FloatArray, FloatArray],
    mirrors: tuple[NDArray[np.intp], NDArray[np.intp]],
    steps: tuple[int, int],
    advance: Advance,
    seed: int,
) -> tuple[FloatArray, FloatArray]:
    """Minimize the losses from initial matrices; return the encoder and the decoder."""
    import torch

    poses, known = _centred(poses_mm, covariance)
    generator = torch.Generator().manual_seed(seed)
    latent_mirror, joint_mirror = mirrors
    orders = ((latent_mirror, joint_mirror), (joint_mirror, latent_mirror))
    masks = [np.ones(matrix.shape, bool) for matrix in matrices]
    for count, rate in zip(steps, (LEARNING_RATE, SPARSE_LEARNING_RATE)):
        supports = [torch.from_numpy(mask) for mask in masks]
        values = [
            torch.tensor(matrix, dtype=torch.float32, requires_grad=True) for matrix in matrices
        ]
        optimiser = torch.optim.Adam(values, lr=rate)
        # The rate rises within the first steps, and falls to 0.
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, rate, total_steps=max(count, 1) + 1, pct_start=0.1
        )
        for _ in range(count):
            rows = torch.randint(len(poses), (BATCH_POSES,), generator=generator)
            encoder, decoder = (
                _affine(value, order, support)
                for value, order, support in zip(values, orders, supports)
            )
            loss = _loss(poses[rows], known[rows], encoder, decoder, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            advance(1)
        with torch.no_grad():
            encoder, decoder = (
                _affine(value.double(), order, support).numpy()
                for value, order, support in zip(values, orders, supports)
            )
        matrices = encoder, decoder
        masks = [_largest(matrix, order) for matrix, order in zip(matrices, orders)]
    return matrices


def _centred(poses_mm: FloatArray, covariance: FloatArray) -> tuple[Tensor, Tensor]:
    """
    Return poses [N, 3, J] relative to their means, in `UNIT_MM`, and which joints are known.

    Missing joints are filled, because the encoder needs all of them.
    """
    import torch

    known = np.isfinite(poses_mm).all(axis=-1)
    filled = fill_missing(poses_mm, covariance)
    centred = (filled - filled.mean(axis=1, keepdims=True)) / UNIT_MM
    return (
        torch.from_numpy(np.ascontiguousarray(centred.transpose(0, 2, 1), np.float32)),
        torch.from_numpy(known),
    )


def _affine(value: Tensor, order: tuple[NDArray[np.intp], NDArray[np.intp]], mask: Tensor) -> Any:
    """Return the symmetric matrix with rows that sum to one."""
    import torch

    rows, columns = (torch.from_numpy(own) for own in order)
    symmetric = (value + value[rows][:, columns]) / 2 * mask
    return symmetric / symmetric.sum(dim=1, keepdim=True)


def _largest(matrix: FloatArray, order: tuple[NDArray[np.intp], NDArray[np.intp]]) -> BoolArray:
    """Return which weights are among the largest of their row, the same on both sides."""
    count = min(MAX_WEIGHTS, matrix.shape[1])
    sizes = np.abs(matrix)
    ranks = np.argsort(np.argsort(-sizes, axis=1, kind='stable'), axis=1)
    mask = ranks < count
    # Of equal weights, the first ones are kept, which can differ on the other side.
    return mask & mask[order[0]][:, order[1]]


def _loss(
    poses: Tensor, known: Tensor, encoder: Tensor, decoder: Tensor, generator: Any
) -> Tensor:
    """
    Return the mean absolute errors in space and in an image, and the sparsity loss.

    Parameters
    ----------
    poses
        [B, 3, J], in `UNIT_MM`.
    known
        [B, J], which joints count.
    encoder, decoder
        [L, J] and [J, L].
    generator
        Random numbers for rotations and cameras.
    """
    import torch

    normal = torch.randn((len(poses), 3, 3), generator=generator)
    rotations = torch.linalg.qr(normal).Q
    # Reflections are as good as rotations, because both sides have the same weights.
    rotated = rotations @ poses
    decoded = rotated @ encoder.T @ decoder.T
    weights = known[:, None].float()
    number = weights.sum().clamp(min=1)
    in_space = ((decoded - rotated).abs() * weights).sum() / (3 * number)
    distance = torch.rand((len(poses), 1, 1), generator=generator)
    distance = (NEAR_MM + (FAR_MM - NEAR_MM) * distance) / UNIT_MM
    images = [
        own[:, :2] * distance / (own[:, 2:] + distance).clamp(min=MIN_DEPTH_MM / UNIT_MM)
        for own in (decoded, rotated)
    ]
    in_image = ((images[0] - images[1]).abs() * weights).sum() / (2 * number)
    sparsity = encoder.abs().sum(dim=1).mean() + decoder.abs().sum(dim=1).mean()
    return in_space + in_image + SPARSITY_MM / UNIT_MM * sparsity


def _as_pairs(pairs: NDArray[Any]) -> Sequence[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairs.reshape(-1, 2)]
