"""Files of skeleton definitions: JSON, from untrusted sources, with limits on all sizes."""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import SHARED, read_limited, shown, write_atomically
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.skeletons.definitions import (
    Definition,
    PointSkeleton,
    SkeletonDefinition,
)

MAX_FILE_BYTES = 16 << 20
MAX_SKELETONS = 100
MAX_JOINTS = 4096
MAX_EDGES = 4 * MAX_JOINTS
MAX_WEIGHTS = 4_000_000
"""Maximum number of joints times source joints, summed over the skeletons of a file."""
MAX_NAME_CHARS = 100
MAX_TEXT_CHARS = 1000
REQUIRED = ('name', 'source', 'joints')
OPTIONAL = ('description', 'edges', 'mirror', 'deviations_mm', 'notes')
POINTS = 'points'
"""Instead of source and joints: canonical points."""
OPTIONAL_WITH_POINTS = ('description', 'edges', 'mirror')
EXPECTED = 'expected: {"skeletons": [{"name": ..., "source": ..., "joints": ...}]}'


def read_definitions(file: pathlib.Path) -> list[Definition]:
    """
    Read the skeleton definitions in a file.

    Raises
    ------
    ValueError
        If the file cannot be read, or is not valid; the message is one sentence that names the
        file and the value.
    """
    try:
        text = read_limited(file, MAX_FILE_BYTES).decode('utf-8')
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_reject_constant)
        entries = content.get('skeletons') if isinstance(content, dict) else None
        if not isinstance(entries, list) or not 0 < len(entries) <= MAX_SKELETONS:
            raise ValueError(
                f'it has no list "skeletons" of 1 to {MAX_SKELETONS} skeletons; {EXPECTED}'
            )
        definitions: list[Definition] = []
        left = MAX_WEIGHTS
        for entry in entries:
            definition = _parse(entry, left)
            definitions.append(definition)
            if isinstance(definition, SkeletonDefinition):
                left -= definition.weights.size
        names = [definition.skeleton.name for definition in definitions]
        if len(set(names)) < len(names):
            raise ValueError(f'two skeletons have the same name: {printable(sorted(names), 300)}')
        return definitions
    except OSError as error:
        reason = printable(error.strerror or error, MAX_TEXT_CHARS)
        raise ValueError(f'skeleton file {shown(file)} cannot be read: {reason}') from error
    except RecursionError as error:
        raise ValueError(f'skeleton file {shown(file)} is nested too deeply') from error
    except ValueError as error:
        reason = printable(' '.join(str(error).split()), MAX_TEXT_CHARS)
        raise ValueError(f'skeleton file {shown(file)} is not valid: {reason}') from error


def write_definitions(file: pathlib.Path, definitions: Iterable[SkeletonDefinition]) -> None:
    """
    Write skeleton definitions to a file; it is replaced atomically.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    content = {'skeletons': [_as_entry(definition) for definition in definitions]}
    write_atomically(file, (json.dumps(content, indent=1) + '\n').encode(), SHARED)


def as_names(values: Any, what: str) -> tuple[str, ...]:
    """
    Return a list of names of joints.

    Raises
    ------
    ValueError
        If it is not a list of printable texts of limited length.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) > MAX_JOINTS:
        raise ValueError(f'{what} is {_shown(values)}; expected: a list of at most {MAX_JOINTS}')
    for value in values:
        is_text = isinstance(value, str) and value.isprintable()
        if not is_text or not 0 < len(value.strip()) <= len(value) <= MAX_NAME_CHARS:
            raise ValueError(
                f'{what} has the name {_shown(value)}; expected: 1 to {MAX_NAME_CHARS} printable '
                'characters'
            )
    return tuple(values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of key-value pairs; JSON would use the last one of equal keys."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        ((twice, _),) = counts.most_common(1)
        raise ValueError(f"'{printable(twice)}' occurs twice in one object")
    return content


def _reject_constant(name: str) -> float:
    raise ValueError(f'{name} is not a number in JSON')


def _parse(entry: Any, max_weights: int) -> Definition:
    if not isinstance(entry, dict):
        raise ValueError(f'"skeletons" has the entry {_shown(entry)}; {EXPECTED}')
    if POINTS in entry:
        _check_keys(entry, ('name', POINTS), OPTIONAL_WITH_POINTS)
        return _parse_points(entry)
    _check_keys(entry, REQUIRED, OPTIONAL)
    return _parse_combinations(entry, max_weights)


def _check_keys(
    entry: Mapping[str, Any], required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    for key in required:
        if key not in entry:
            raise ValueError(f'a skeleton lacks "{key}"; {EXPECTED}')
    unknown = sorted(set(entry) - {*required, *optional})
    if unknown:
        raise ValueError(
            f"a skeleton has the unknown key '{printable(unknown[0])}'; known: "
            f'{", ".join((*required, *optional))}'
        )


def _parse_points(entry: Mapping[str, Any]) -> PointSkeleton:
    (name,) = as_names([entry['name']], '"name"')
    points = _as_object(entry[POINTS], f'"points" of {name}')
    joint_names = as_names(list(points), f'"points" of {name}')
    for joint, point in points.items():
        is_point = isinstance(point, list) and len(point) == len('xyz')
        # Larger integers cannot be converted to floats.
        if not is_point or not all(_is_number(value) and abs(value) < 1e9 for value in point):
            raise ValueError(
                f"joint '{joint}' of {name} is {_shown(point)}; expected: [x, y, z] in metres"
            )
    index = {joint: i for i, joint in enumerate(joint_names)}
    return PointSkeleton(
        Skeleton(name, joint_names, *_parse_pairs(entry, name, index)),
        np.array([[float(value) for value in point] for point in points.values()]).reshape(-1, 3),
        _as_text(entry.get('description', ''), f'"description" of {name}'),
    )


def _parse_pairs(
    entry: Mapping[str, Any], name: str, index: Mapping[str, int]
) -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...] | None]:
    """Return the edges, and the mirror pairs or None."""
    edges = _as_pairs(entry.get('edges', []), index, f'"edges" of {name}')
    mirror = None
    if 'mirror' in entry:
        mirror = _as_pairs(entry['mirror'], index, f'"mirror" of {name}')
    return edges, mirror


def _parse_combinations(entry: Mapping[str, Any], max_weights: int) -> SkeletonDefinition:
    (name,) = as_names([entry['name']], '"name"')
    source = entry['source']
    if source != '':
        (source,) = as_names([source], f'"source" of {name}')
    combinations = _as_object(entry['joints'], f'"joints" of {name}')
    joint_names = as_names(list(combinations), f'"joints" of {name}')
    rows = [_as_numbers(own, f"joint '{joint}' of {name}") for joint, own in combinations.items()]
    source_joints = as_names(
        list(dict.fromkeys(joint for row in rows for joint in row)), f'"joints" of {name}'
    )
    if len(rows) * len(source_joints) > max_weights:
        raise ValueError(
            f'{name} combines {len(source_joints)} joints to {len(rows)}; at most {MAX_WEIGHTS} '
            'weights are supported in a file'
        )
    column = {joint: i for i, joint in enumerate(source_joints)}
    weights = np.zeros((len(rows), len(source_joints)))
    for i, row in enumerate(rows):
        weights[i, [column[joint] for joint in row]] = list(row.values())
    index = {joint: i for i, joint in enumerate(joint_names)}
    deviations = _as_numbers(entry.get('deviations_mm', {}), f'"deviations_mm" of {name}')
    notes = _as_object(entry.get('notes', {}), f'"notes" of {name}')
    for key, values in (('deviations_mm', deviations), ('notes', notes)):
        for joint in values:
            if joint not in index:
                raise ValueError(f'"{key}" of {name} has the unknown joint {_shown(joint)}')
    return SkeletonDefinition(
        Skeleton(name, joint_names, *_parse_pairs(entry, name, index)),
        source,
        source_joints,
        weights,
        np.array([deviations.get(joint, 0.0) for joint in joint_names]),
        tuple(_as_text(notes.get(joint, ''), f'"notes" of {name}') for joint in joint_names),
        _as_text(entry.get('description', ''), f'"description" of {name}'),
    )


def _as_object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f'{what} is {_shown(value)}; expected: an object with names as keys')
    return value


def _as_numbers(value: Any, what: str) -> dict[str, float]:
    numbers = {}
    for name, number in _as_object(value, what).items():
        if not _is_number(number) or not -1e9 < number < 1e9:
            raise ValueError(f"{what} has {_shown(number)} for '{printable(name)}', not a number")
        numbers[name] = float(number)
    return numbers


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_pairs(value: Any, index: Mapping[str, int], what: str) -> tuple[tuple[int, int], ...]:
    """Return pairs of joint names as pairs of indices."""
    if not isinstance(value, list) or len(value) > MAX_EDGES:
        raise ValueError(f'{what} is {_shown(value)}; expected: a list of pairs of joints')
    pairs = []
    for pair in value:
        is_pair = isinstance(pair, list) and len(pair) == 2
        if not is_pair or not all(isinstance(name, str) and name in index for name in pair):
            raise ValueError(f'{what} has {_shown(pair)}; expected: two joints of this skeleton')
        pairs.append((index[pair[0]], index[pair[1]]))
    return tuple(pairs)


def _as_text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARS or not value.isprintable():
        raise ValueError(f'{what} has {_shown(value)}; expected: a line of printable text')
    return value


def _shown(value: Any) -> str:
    """Return the start of a value; its containers are bounded by the size of the file."""
    return printable(json.dumps(value, default=str), 80)


def _as_entry(definition: SkeletonDefinition) -> dict[str, Any]:
    skeleton = definition.skeleton
    names = skeleton.joint_names
    entry: dict[str, Any] = {'name': skeleton.name, 'source': definition.source}
    if definition.description:
        entry['description'] = definition.description
    entry['joints'] = {
        name: {
            source: float(weight)
            for source, weight in zip(definition.source_joints, row)
            if weight != 0
        }
        for name, row in zip(names, definition.weights)
    }
    entry['edges'] = [[names[a], names[b]] for a, b in skeleton.edges]
    if skeleton.mirror_pairs is not None:
        entry['mirror'] = [[names[a], names[b]] for a, b in skeleton.mirror_pairs]
    entry['deviations_mm'] = {
        name: float(value) for name, value in zip(names, definition.deviations_mm) if value
    }
    entry['notes'] = {name: note for name, note in zip(names, definition.notes) if note}
    return entry
