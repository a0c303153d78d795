"""Poses from untrusted .npz files, as samples for fits."""

from __future__ import annotations

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import open_regular, shown
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.skeletons.definition_file import as_names
from metrabs_ros.skeletons.definitions import check_involution, check_unique
from metrabs_ros.weights.array_file import array_from_npy
from metrabs_ros.weights.zip_archive import open_zip, read_member

MAX_POSES_BYTES = 4 << 30
MAX_ARRAY_BYTES = 64 << 20
MAX_COORDINATE_MM = 1e7
SMALL_MM = 10.0
"""Poses smaller than this are probably in metres."""


@dataclasses.dataclass(frozen=True)
class PoseSamples:
    """
    N poses of J joints.

    Parameters
    ----------
    poses_mm
        [N, J, 3]; joints with NaN are missing.
    joint_names
        [J].
    mirror_pairs
        Pairs of indices of joints on both sides of the body; None to derive them from the names.

    Raises
    ------
    ValueError
        If the parts do not fit together; the message is one sentence.
    """

    poses_mm: FloatArray
    joint_names: tuple[str, ...]
    mirror_pairs: Sequence[tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        as_names(self.joint_names, 'joint_names')
        check_unique(self.joint_names, 'joint')
        shape, joints = self.poses_mm.shape, len(self.joint_names)
        if len(shape) != 3 or shape[1:] != (joints, 3) or not joints:
            raise ValueError(
                f'the poses have the shape {printable(shape)} and there are {joints} names; '
                'expected: [poses, joints, 3] and a name for each joint'
            )
        check_involution(self.skeleton)
        if not len(self.poses_mm):
            return
        flat = self.poses_mm.reshape(-1)
        # The comparison is false for NaN, which marks missing joints.
        if np.any(np.abs(flat) > MAX_COORDINATE_MM):
            raise ValueError(
                f'the poses have coordinates above {MAX_COORDINATE_MM:g} mm; mark missing joints '
                'with NaN'
            )
        known = np.isfinite(self.poses_mm).all(axis=-1)
        if not known.any(axis=0).all():
            never = self.joint_names[int(np.argmin(known.any(axis=0)))]
            raise ValueError(f"the joint '{printable(never)}' is NaN in all poses")
        extent_mm = np.nanmax(flat) - np.nanmin(flat)
        if extent_mm < SMALL_MM:
            raise ValueError(
                f'all coordinates are within {extent_mm:.3g} mm; poses must be in millimetres'
            )

    @property
    def skeleton(self) -> Skeleton:
        """The joints, without bones."""
        pairs = self.mirror_pairs
        mirror_pairs = None if pairs is None else tuple((int(a), int(b)) for a, b in pairs)
        return Skeleton('', self.joint_names, (), mirror_pairs)


def read_samples(file: pathlib.Path) -> PoseSamples:
    """
    Read poses from a .npz file.

    Its arrays are ``poses3d`` [N, J, 3] in millimetres with NaN for missing joints,
    ``joint_names`` [J], and optionally ``mirror_pairs`` [P, 2], indices or names of joints.

    Raises
    ------
    ValueError
        If the file cannot be read or is not valid; the message is one sentence.
    """
    arrays = read_arrays(file, {'poses3d', 'joint_names'}, {'mirror_pairs'})
    return samples_of(file, arrays, 'poses3d', 'joint_names', 'mirror_pairs')


def samples_of(
    file: pathlib.Path,
    arrays: dict[str, NDArray[Any]],
    poses: str,
    names: str,
    pairs: str,
) -> PoseSamples:
    """
    Return the samples in arrays of a file, which are named.

    Raises
    ------
    ValueError
        If they do not fit together; the message names the file.
    """
    try:
        values = arrays[poses]
        if values.dtype.kind not in 'fiu':
            raise ValueError(f'{poses} has the type {values.dtype}; expected: numbers')
        joint_names = as_names(arrays[names].reshape(-1).tolist(), names)
        values = values if values.dtype == np.float32 else values.astype(np.float64)
        return PoseSamples(values, joint_names, pairs_of(arrays.get(pairs), joint_names, pairs))
    except ValueError as error:
        raise ValueError(f'{shown(file)} is not valid: {error}') from error


def read_arrays(
    file: pathlib.Path, required: set[str], optional: set[str]
) -> dict[str, NDArray[Any]]:
    """
    Read arrays of numbers and texts from a .npz file; arrays of other names are not unpacked.

    Raises
    ------
    ValueError
        If the file cannot be read, or lacks an array.
    """
    try:
        with open_regular(file) as opened, open_zip(opened) as archive:
            stored = {name.removesuffix('.npy') for name in archive.namelist()}
            if missing := sorted(required - stored):
                raise ValueError(
                    f'it lacks the array {missing[0]}; expected: {", ".join(sorted(required))}'
                )
            return {
                name: array_from_npy(
                    read_member(
                        archive,
                        f'{name}.npy',
                        MAX_POSES_BYTES if name.endswith('3d') else MAX_ARRAY_BYTES,
                    )
                )
                for name in sorted((required | optional) & stored)
            }
    except OSError as error:
        reason = printable(error.strerror or error, 300)
        raise ValueError(f'{shown(file)} cannot be read: {reason}') from error
    # Damaged archives raise exceptions of several types.
    except (ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        reason = printable(' '.join(str(error).split()), 300)
        raise ValueError(f'{shown(file)} is not a valid .npz file of poses: {reason}') from error


def pairs_of(
    pairs: NDArray[Any] | None, names: tuple[str, ...], what: str
) -> list[tuple[int, int]] | None:
    """
    Return pairs of indices or names [P, 2] as pairs of indices; None for None.

    Raises
    ------
    ValueError
        If they are not pairs of joints; the message starts with `what`.
    """
    if pairs is None:
        return None
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in 'iuU'):
        raise ValueError(
            f'{what} is {pairs.dtype} of shape {printable(pairs.shape)}; expected: [P, 2], '
            'indices or names of joints'
        )
    index: dict[object, int] = {name: i for i, name in enumerate(names)}
    index |= {i: i for i in range(len(names))}
    result = []
    for a, b in pairs.reshape(-1, 2).tolist():
        for joint in (a, b):
            if joint not in index:
                raise ValueError(f'{what} has the unknown joint {printable(repr(joint))}')
        result.append((index[a], index[b]))
    return result
