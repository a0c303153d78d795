"""
Measure conversions between skeletons.

    python benchmarks/skeletons.py autoencoder large custom speed real [--recording FOLDER]

autoencoder: fit to 20,000 synthetic poses of 180 joints in 8 conventions, with and without 30 %
missing convention samples; errors of joints in new poses, also if their whole convention is
missing there.  large: time to fit 100,000 poses.  custom: custom joints from 5, 20 and 50 frames.
speed: time to convert 20 people.  real: error of the exact joints of the built-in skeletons on the
recording of benchmarks/accuracy.py.

The exit status is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

import machine
import numpy as np
import synthetic_skeletons
from accuracy_recording import find_videos, read_cameras, read_truth
from targets import Target, report

import metrabs_ros
from metrabs_ros.people import People
from metrabs_ros.skeletons.affine_autoencoder import AffineAutoencoder, fit_autoencoder, split
from metrabs_ros.skeletons.affine_regression import fill_missing, joint_covariance
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17
from metrabs_ros.skeletons.custom_joints import Examples, fit_custom_joints
from metrabs_ros.skeletons.pose_samples import PoseSamples

POSES, HELD_OUT, MANY_POSES = 20_000, 2000, 100_000
MISSING_SHARE = 0.3
MIN_WEIGHT = 0.01
CUSTOM_FRAMES = (5, 20, 50)
PEOPLE, REPEATS = 20, 2000
DETECT_EVERY = 6
MAX_DISTANCE_MM = 700.0
"""Maximum distance of a detection from the true person."""
MAX_AFFINE_MM, MIN_TIMES_BETTER = 5.0, 3.0
"""Error where the relation is affine; elsewhere, ratio to that of the best single joint."""
MAX_WEIGHTS = 8
MAX_EQUIVARIANCE_MM = 1e-5
MAX_FIT_S = 600.0
MAX_CUSTOM_MM, CUSTOM_TARGET_FRAMES, FEW_CUSTOM_FRAMES = 8.0, 50, 5
MAX_CONVERSION_US = 100.0


def samples_of(synthetic: synthetic_skeletons.SyntheticSkeletons, missing_share=0.0):
    """Return the poses as input of the fit; whole conventions are missing at random."""
    poses_mm = synthetic.poses_mm.copy()
    count = synthetic.conventions.max() + 1
    missing = np.random.default_rng(0).random((len(poses_mm), count)) < missing_share
    poses_mm[missing[:, synthetic.conventions]] = np.nan
    pairs = [(int(a), int(b)) for a, b in synthetic.mirror_pairs]
    return PoseSamples(poses_mm, tuple(synthetic.joint_names.tolist()), pairs)


def single_joint_errors_mm(fitted, held_out) -> np.ndarray:
    """Return the errors [J] of the joint of another convention that is nearest on average."""
    poses_mm = fitted.poses_mm[:HELD_OUT].astype(np.float64)
    other = held_out.poses_mm.astype(np.float64)
    errors_mm = np.zeros(len(fitted.joint_names))
    for j in range(len(errors_mm)):
        candidates = np.flatnonzero(fitted.conventions != fitted.conventions[j])
        distances = np.linalg.norm(poses_mm[:, candidates] - poses_mm[:, [j]], axis=-1)
        best = candidates[distances.mean(axis=0).argmin()]
        errors_mm[j] = np.linalg.norm(other[:, best] - other[:, j], axis=-1).mean()
    return errors_mm


def measure_autoencoder() -> list[Target]:
    """Print the errors in new poses, with complete and with incomplete poses."""
    fitted = synthetic_skeletons.make(POSES)
    held_out = synthetic_skeletons.make(HELD_OUT, seed=99)
    is_affine = fitted.is_affine
    print(
        f'{POSES} synthetic poses, {len(is_affine)} joints, '
        f'{fitted.conventions.max() + 1} conventions, {is_affine.sum()} joints affine; '
        f'noise of {synthetic_skeletons.NOISE_MM} mm per axis'
    )
    single_mm = single_joint_errors_mm(fitted, held_out)
    print(f'best single joint of another convention: {shown_errors(single_mm, is_affine)}')
    targets = []
    for missing_share in (0.0, MISSING_SHARE):
        start_s = time.process_time()
        samples = samples_of(fitted, missing_share)
        own = fit_autoencoder(samples)
        spent_s = time.process_time() - start_s
        known_mm = errors_mm(own, held_out.poses_mm.astype(np.float64), held_out)
        hidden_mm = hidden_errors_mm(own, samples, held_out)
        weights = [(np.abs(m) > MIN_WEIGHT).sum(axis=1).max() for m in (own.decoder, own.encoder)]
        equivariance_mm = equivariance_error_mm(own, held_out)
        title = f'{100 * missing_share:.0f} % of convention samples missing in the fit'
        print(
            f'{title}: {shown_errors(known_mm, is_affine)}; without the convention of the joint: '
            f'{shown_errors(hidden_mm, is_affine)}; at most {weights[0]} weights above '
            f'{MIN_WEIGHT} per joint, {weights[1]} per latent point; {len(own.encoder)} latent '
            f'points; equivariance {equivariance_mm:.1e} mm; {spent_s:.0f} s of processor time'
        )
        for kind, own_mm in (('all known', known_mm), ('convention hidden', hidden_mm)):
            better = single_mm[~is_affine].mean() / own_mm[~is_affine].mean()
            targets += [
                Target(
                    f'{title}, {kind}: error of affine joints',
                    own_mm[is_affine].mean(),
                    'mm',
                    at_most=MAX_AFFINE_MM,
                ),
                Target(
                    f'{title}, {kind}: other joints, error of a single joint divided by theirs',
                    better,
                    'times',
                    at_least=MIN_TIMES_BETTER,
                ),
            ]
        targets += [
            Target(f'{title}: weights per joint', weights[0], '', at_most=MAX_WEIGHTS),
            Target(f'{title}: equivariance', equivariance_mm, 'mm', at_most=MAX_EQUIVARIANCE_MM),
        ]
    return targets


def shown_errors(own_mm: np.ndarray, is_affine: np.ndarray) -> str:
    """Return the errors [J] of affine and of other joints as text."""
    affine_mm, other_mm = own_mm[is_affine], own_mm[~is_affine]
    return (
        f'affine {affine_mm.mean():.1f} mm (worst {affine_mm.max():.1f}), others '
        f'{other_mm.mean():.1f} mm (worst {other_mm.max():.1f})'
    )


def errors_mm(own: AffineAutoencoder, poses_mm: np.ndarray, true) -> np.ndarray:
    """Return the mean errors [J] of the reconstruction of poses [N, J, 3]."""
    reconstructed_mm = own.decode(own.encode(poses_mm))
    return np.linalg.norm(reconstructed_mm - true.poses_mm, axis=-1).mean(axis=0)


def hidden_errors_mm(own: AffineAutoencoder, samples: PoseSamples, held_out) -> np.ndarray:
    """
    Return the errors [J] of joints in new poses that lack all joints of the same convention.

    The missing joints are filled in from the others as in the fit, and then encoded and decoded.
    """
    rows, _ = split(len(samples.poses_mm))
    covariance = joint_covariance(samples.poses_mm[rows], samples.skeleton.mirror)
    result_mm = np.zeros(len(samples.joint_names))
    for convention in np.unique(held_out.conventions):
        is_hidden = held_out.conventions == convention
        poses_mm = held_out.poses_mm.astype(np.float64)
        poses_mm[:, is_hidden] = np.nan
        own_mm = errors_mm(own, fill_missing(poses_mm, covariance), held_out)
        result_mm[is_hidden] = own_mm[is_hidden]
    return result_mm


def equivariance_error_mm(own, held_out) -> float:
    """Return the largest difference after rotation, translation and mirroring."""
    rng = np.random.default_rng(0)
    poses_mm = held_out.poses_mm[:100].astype(np.float64)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    shift_mm = rng.normal(0, 1000, 3)
    mirror = own.joints.mirror
    reflected = poses_mm * [-1, 1, 1]

    def reconstruct(joints_mm: np.ndarray) -> np.ndarray:
        return own.decode(own.encode(joints_mm))

    moved = reconstruct(poses_mm @ rotation.T + shift_mm)
    differences = [
        moved - (reconstruct(poses_mm) @ rotation.T + shift_mm),
        reconstruct(reflected[:, mirror]) - (reconstruct(poses_mm) * [-1, 1, 1])[:, mirror],
    ]
    return max(float(np.abs(own_mm).max()) for own_mm in differences)


def measure_large() -> list[Target]:
    """Print the time to fit many poses."""
    samples = samples_of(synthetic_skeletons.make(MANY_POSES), MISSING_SHARE)
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    own = fit_autoencoder(samples)
    spent_s = time.perf_counter() - start_s
    print(
        f'{MANY_POSES} poses of {len(samples.joint_names)} joints, '
        f'{100 * MISSING_SHARE:.0f} % missing: {spent_s:.0f} s, '
        f'{time.process_time() - start_cpu_s:.0f} s of processor time; mean error '
        f'{np.nanmean(own.errors_mm):.1f} mm'
    )
    return [Target(f'time to fit {MANY_POSES} poses', spent_s, 's', at_most=MAX_FIT_S)]


def measure_custom() -> list[Target]:
    """Print the errors of custom joints in new poses."""
    new = synthetic_skeletons.make(HELD_OUT, seed=98)
    is_custom = new.conventions == 0
    is_affine = new.is_affine[is_custom]
    targets = []
    for count in CUSTOM_FRAMES:
        examples = synthetic_skeletons.make(count, seed=3)
        parts = []
        for own in (~is_custom, is_custom):
            index = np.cumsum(own) - 1
            pairs = [(int(index[a]), int(index[b])) for a, b in new.mirror_pairs if own[a]]
            names = tuple(new.joint_names[own].tolist())
            parts.append(PoseSamples(examples.poses_mm[:, own].astype(float), names, pairs))
        result = fit_custom_joints(Examples(*parts), 'custom', 'model')
        definition = result.definition
        index = [parts[0].joint_names.index(name) for name in definition.source_joints]
        own_mm = np.linalg.norm(
            definition.weights @ new.poses_mm[:, ~is_custom][:, index]
            - new.poses_mm[:, is_custom],
            axis=-1,
        ).mean(axis=0)
        count_of_weights = (definition.weights != 0).sum(axis=1).mean()
        print(
            f'custom joints from {count} frames: {own_mm.mean():.1f} mm in new poses (affine '
            f'{own_mm[is_affine].mean():.1f} mm), cross-validated '
            f'{result.errors_mm.mean():.1f} mm, {count_of_weights:.1f} weights per joint'
            + ''.join(f'; warning: {warning}' for warning in result.warnings)
        )
        title = f'custom joints from {count} frames'
        if count == CUSTOM_TARGET_FRAMES:
            targets.append(Target(f'{title}, error', own_mm.mean(), 'mm', at_most=MAX_CUSTOM_MM))
        if count == FEW_CUSTOM_FRAMES:
            targets.append(Target(f'{title}, warnings', len(result.warnings), '', at_least=1))
    return targets


def measure_speed() -> list[Target]:
    """Print the time to convert the positions, and all arrays, of 20 people."""
    all_joints = {'': BLAZEPOSE_33.within(BLAZEPOSE_33)}
    rng = np.random.default_rng(0)
    poses_mm = rng.normal((0, 0, 4000), 400, (PEOPLE, 33, 3))
    people = People.from_detections(
        BLAZEPOSE_33,
        np.zeros((PEOPLE, 4)),
        np.ones(PEOPLE),
        poses_mm,
        poses_mm[..., :2] / poses_mm[..., 2:],
        (480, 640),
    )
    slowest_us = np.zeros(2)
    for name, definition in DEFINITIONS.items():
        convention = definition.within(all_joints)
        times = [
            1e6 * median_s(own)
            for own in (
                lambda own=convention: own.positions(poses_mm),
                lambda own=convention: people.in_convention(own),
            )
        ]
        print(
            f'{name}, {PEOPLE} people: positions {times[0]:.0f} us, with image points, deviations '
            f'and confidences {times[1]:.0f} us'
        )
        slowest_us = np.maximum(slowest_us, times)
    return [
        Target(f'{what} of {PEOPLE} people, slowest', value_us, 'us', at_most=MAX_CONVERSION_US)
        for what, value_us in zip(('positions', 'all values'), slowest_us)
    ]


def median_s(function: Callable[[], object]) -> float:
    """Return the median processor time of a call, in seconds."""
    function()
    times = []
    for _ in range(REPEATS):
        start_s = time.thread_time()
        function()
        times.append(time.thread_time() - start_s)
    return float(np.median(times))


def measure_real(recording: pathlib.Path | None) -> None:
    """Print the errors of joints that follow from those of coco_17, relative to the hips."""
    cameras, truth = read_cameras(find_videos(recording)), read_truth()
    model = metrabs_ros.load_model('blazepose')
    estimated, true = [], []
    hips = [COCO_17.joint_names.index(f'{side}_hip') for side in ('left', 'right')]
    for own in cameras:
        for i, image in enumerate(own.images()):
            row = np.flatnonzero(truth.frames == i)
            if i % DETECT_EVERY or not len(row):
                continue
            prediction = model.detect_poses(
                image,
                intrinsic_matrix=own.camera.intrinsic_matrix,
                distortion_coeffs=own.camera.distortion_coeffs,
                extrinsic_matrix=own.camera.extrinsic_matrix,
            )
            true_mm = truth.poses_mm[0, row[0]]
            places_mm = prediction['poses3d'][:, 23:25].mean(axis=1)
            distances_mm = np.linalg.norm(places_mm - true_mm[hips].mean(axis=0), axis=-1)
            if len(distances_mm) and distances_mm.min() < MAX_DISTANCE_MM:
                estimated.append(prediction['poses3d'][distances_mm.argmin()])
                true.append(true_mm)
    estimated_mm, true_mm = np.array(estimated), np.array(true)
    estimated_mm -= estimated_mm[:, 23:25].mean(axis=1, keepdims=True)
    true_mm -= true_mm[:, hips].mean(axis=1, keepdims=True)
    print(f'{len(true_mm)} detections in {len(cameras)} cameras; errors relative to the hips, mm')
    seen: dict[str, float] = {}
    for definition in DEFINITIONS.values():
        source = [BLAZEPOSE_33.joint_names.index(name) for name in definition.source_joints]
        for name, row, deviation_mm in zip(
            definition.skeleton.joint_names, definition.weights, definition.deviations_mm
        ):
            used = [definition.source_joints[k] for k in np.flatnonzero(row)]
            key = f'{name} ({definition.skeleton.name})' if len(used) > 1 else used[0]
            if deviation_mm or key in seen or not set(used) <= set(COCO_17.joint_names):
                continue
            weights = row[np.flatnonzero(row)]
            own_mm = weights @ estimated_mm[:, np.array(source)[np.flatnonzero(row)]]
            expected_mm = weights @ true_mm[:, [COCO_17.joint_names.index(own) for own in used]]
            seen[key] = float(np.nanmean(np.linalg.norm(own_mm - expected_mm, axis=-1)))
    print(', '.join(f'{name} {error_mm:.0f}' for name, error_mm in seen.items()))


MEASUREMENTS = {
    'autoencoder': measure_autoencoder,
    'large': measure_large,
    'custom': measure_custom,
    'speed': measure_speed,
}


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Run the requested measurements, and print their results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', nargs='+', choices=[*MEASUREMENTS, 'real'])
    parser.add_argument('--recording', type=pathlib.Path, help='copy of the recording')
    args = parser.parse_args(arguments)
    print(machine.describe())
    targets = []
    for what in args.what:
        if what == 'real':
            measure_real(args.recording)
        else:
            targets += MEASUREMENTS[what]()
    return report(targets)


if __name__ == '__main__':
    sys.exit(main())
