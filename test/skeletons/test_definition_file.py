"""Files of skeleton definitions: round trips, hostile content, use by a model."""

from __future__ import annotations

import contextlib
import json
import pathlib
import pickle
import re

import numpy as np
import pytest
from hostile import NOT_FILES, put_sparse_file, run_in_child
from hypothesis import given
from hypothesis import strategies as st

import metrabs_ros
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, Skeleton
from metrabs_ros.skeletons.definition_file import read_definitions, write_definitions
from metrabs_ros.skeletons.definitions import PointSkeleton

JOINTS = {'pelvis': {'left_hip': 0.5, 'right_hip': 0.5}, 'nose': {'nose': 1}}


def entry(**changes):
    return {'name': 'pair_2', 'source': 'blazepose_33', 'joints': JOINTS, **changes}


def write(file, *entries):
    file.write_text(json.dumps({'skeletons': list(entries)}))
    return file


def error_of(file):
    """Return the error of reading a file, which must be one line that names the file."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_definitions(file)
    message = str(caught.value)
    assert message.startswith(f'skeleton file {file} ')
    assert '\n' not in message
    assert len(message) < 1500
    return message


def test_all_parts_are_the_same_after_writing_and_reading(tmp_path):
    file = tmp_path / 'skeletons.json'
    write_definitions(file, DEFINITIONS.values())
    for read, written in zip(read_definitions(file), DEFINITIONS.values(), strict=True):
        assert read.skeleton == written.skeleton
        assert (read.source, read.notes) == (written.source, written.notes)
        assert read.description == written.description
        order = [read.source_joints.index(name) for name in written.source_joints]
        np.testing.assert_array_equal(read.weights[:, order], written.weights)
        np.testing.assert_array_equal(read.deviations_mm, written.deviations_mm)


def test_the_examples_of_the_documentation_are_valid(tmp_path):
    page = pathlib.Path(__file__).parents[2] / 'docs' / 'skeletons.md'
    definitions = []
    for example in re.findall(r'```json\n(.*?)```', page.read_text(), re.DOTALL):
        (tmp_path / 'example.json').write_text(example)
        definitions += read_definitions(tmp_path / 'example.json')
    torso, pockets = definitions
    assert torso.within({'': BLAZEPOSE_33.within(BLAZEPOSE_33)}).skeleton.mirror.tolist() == [
        *(0, 2, 1)
    ]
    assert isinstance(pockets, PointSkeleton)


POINTS = {'left_pocket': [0.12, -0.05, 0.09], 'right_pocket': [-0.12, -0.05, 0.09]}


def test_points_of_the_body_are_read(tmp_path):
    file = write(
        tmp_path / 'a',
        {
            'name': 'pockets_2',
            'points': POINTS,
            'edges': [list(POINTS)],
            'mirror': [list(POINTS)],
            'description': 'trouser pockets',
        },
        entry(),
    )
    pockets, pair = read_definitions(file)
    assert isinstance(pockets, PointSkeleton)
    assert pockets.skeleton == Skeleton('pockets_2', tuple(POINTS), ((0, 1),), ((0, 1),))
    assert pockets.points_m.tolist() == list(POINTS.values())
    assert pockets.description == 'trouser pockets'
    assert pair.skeleton.name == 'pair_2'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'points': {}}, "skeleton 'a' has 0 joints"),
        ({'points': [1]}, '"points" of a is .1.; expected: an object'),
        ({'points': {'b': [1, 2]}}, r"joint 'b' of a is .1, 2.; expected: .x, y, z. in metres"),
        ({'points': {'b': [1, 2, '3']}}, "joint 'b' of a is"),
        ({'points': {'b': [1, 2, True]}}, "joint 'b' of a is"),
        ({'points': {'b': [1, 2, 11]}}, 'a coordinate of 11; coordinates are in metres'),
        ({'points': {'b': [1, 2, 10**400]}}, "joint 'b' of a is"),
        ({'points': {'b\n': [1, 2, 3]}}, 'has the name'),
        ({'points': {'b': [1, 2, 3]}, 'source': ''}, "unknown key 'source'; known: name, points"),
        ({'points': {'b': [1, 2, 3]}, 'mirror': [['b', 'b']]}, 'a joint has one counterpart'),
    ],
)
def test_other_points_are_rejected(tmp_path, changes, message):
    assert re.search(message, error_of(write(tmp_path / 'a', {'name': 'a', **changes})))


def test_a_model_that_does_not_localise_points_names_those_that_do(model, tmp_path):
    definitions = read_definitions(write(tmp_path / 'a', {'name': 'a', 'points': POINTS}))
    with pytest.raises(ValueError, match=r"'a' consists of points .* use nlf_s or nlf_l"):
        model.add_skeletons(definitions)


def test_optional_keys(tmp_path):
    (simple,) = read_definitions(write(tmp_path / 'a', entry()))
    assert simple.skeleton.edges == ()
    assert simple.skeleton.mirror_pairs is None
    full = entry(
        source='',
        edges=[['nose', 'pelvis']],
        mirror=[],
        deviations_mm={'pelvis': 7},
        notes={'nose': 'a note'},
        description='two points',
    )
    (own,) = read_definitions(write(tmp_path / 'a', full))
    assert own.skeleton.edges == ((1, 0),)
    assert own.skeleton.mirror_pairs == ()
    assert own.deviations_mm.tolist() == [7, 0]
    assert own.notes == ('', 'a note')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'name': ''}, '"name" has the name ""'),
        ({'name': 'a\nb'}, '"name" has the name "a'),
        ({'name': 'x' * 101}, 'expected: 1 to 100 printable'),
        ({'name': 5}, '"name" has the name 5'),
        ({'source': None}, '"source" of pair_2 has the name null'),
        ({'joints': []}, r'"joints" of pair_2 is \[\]; expected: an object'),
        ({'joints': {}}, "skeleton 'pair_2' has no joints"),
        ({'joints': {'a': {'b': 'c'}}}, "joint 'a' of pair_2 has \"c\" for 'b', not a number"),
        ({'joints': {'a': {'b': True}}}, "joint 'a' of pair_2 has true for 'b', not a number"),
        ({'joints': {'a': {'b': 1e308}}}, "has 1e\\+308 for 'b', not a number"),
        ({'joints': {'a': {'b': 0.9}}}, "weights that sum to 0.9 instead of 1 for 'a'"),
        ({'joints': {'a': {}}}, "weights that sum to 0 instead of 1 for 'a'"),
        ({'edges': [['nose']]}, r'"edges" of pair_2 has \["nose"\]; expected: two joints'),
        ({'edges': [['nose', 'tail']]}, 'expected: two joints of this skeleton'),
        ({'mirror': [['nose', 'pelvis'], ['pelvis', 'nose'], ['nose', 'nose']]}, 'counterpart'),
        ({'deviations_mm': {'tail': 1}}, 'has the unknown joint "tail"'),
        ({'deviations_mm': {'nose': -1}}, 'deviations that are not from 0'),
        ({'notes': {'nose': 1}}, '"notes" of pair_2 has 1; expected: a line'),
        ({'weights': []}, "a skeleton has the unknown key 'weights'; known: name"),
    ],
)
def test_invalid_values_are_named_in_one_sentence(tmp_path, changes, message):
    assert re.search(message, error_of(write(tmp_path / 'a', entry(**changes))))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is not valid: Expecting value'),
        (b'[]', 'it has no list "skeletons"'),
        (b'{"skeletons": []}', 'it has no list "skeletons" of 1 to 100'),
        (b'{"skeletons": [1]}', '"skeletons" has the entry 1'),
        (b'{"skeletons": [{"name": "a"}]}', 'a skeleton lacks "source"'),
        (b'{"a": 1, "a": 2}', "'a' occurs twice in one object"),
        (b'{"a": NaN}', 'NaN is not a number in JSON'),
        (b'{"a": ' + b'9' * 5000 + b'}', 'is not valid: '),
        (b'[' * 1_000_000, 'is nested too deeply'),
        (b'\xff\xfe', 'is not valid: '),
        (pickle.dumps({'skeletons': []}), 'is not valid: '),
        (b'{"skeletons": [' + b',' * 100, 'is not valid: '),
    ],
    ids=range(12),
)
def test_files_of_another_kind_are_rejected(tmp_path, content, message):
    file = tmp_path / 'skeletons.json'
    file.write_bytes(content)
    assert message in error_of(file)


def test_more_joints_and_weights_than_the_limits_are_rejected(tmp_path):
    many = {f'joint {i}': {'nose': 1} for i in range(5000)}
    assert 'a list of at most 4096' in error_of(write(tmp_path / 'a', entry(joints=many)))
    wide = {f'joint {i}': {f'source {i}': 1} for i in range(3000)}
    assert 'combines 3000 joints to 3000' in error_of(write(tmp_path / 'a', entry(joints=wide)))
    twice = error_of(write(tmp_path / 'a', entry(), entry()))
    assert 'two skeletons have the same name' in twice


@pytest.mark.parametrize('put', [*NOT_FILES, put_sparse_file], ids=lambda put: put.__name__)
def test_paths_that_are_not_small_files_are_rejected(tmp_path, put):
    file = tmp_path / 'skeletons.json'
    put(file)
    message = run_in_child(lambda: read_definitions(file))
    assert message.startswith(f'ValueError: skeleton file {file} '), message


def test_a_missing_file_is_named_before_a_network_is_loaded(tmp_path):
    with pytest.raises(ValueError, match=r'skeleton file .*b cannot be read: No such file'):
        metrabs_ros.load_model('blazepose', skeletons=tmp_path / 'b')
    write(tmp_path / 'a', entry(source='mannequin_9', joints={'a': {'tail': 1}}))
    with pytest.raises(ValueError, match="joints of 'mannequin_9', but the model lacks 'tail'"):
        metrabs_ros.load_model('blazepose', skeletons=tmp_path / 'a')


def test_a_model_estimates_the_joints_of_a_file(tmp_path, street):
    model = metrabs_ros.load_model(
        'blazepose', skeletons=str(write(tmp_path / 'a', entry(edges=[['nose', 'pelvis']])))
    )
    prediction = model.detect_poses(street, skeleton='pair_2')
    everything = model.detect_poses(street)
    assert len(prediction['boxes']) > 0
    np.testing.assert_allclose(
        prediction['poses3d'][:, 0], everything['poses3d'][:, 23:25].mean(axis=1)
    )
    np.testing.assert_array_equal(prediction['poses3d'][:, 1], everything['poses3d'][:, 0])
    for name in ('poses2d', 'network_poses2d'):
        assert np.abs(prediction[name][:, 0] - everything[name][:, 23:25].mean(axis=1)).max() < 2


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_content_is_read_or_rejected_with_a_sentence(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / 'any.json'
    file.write_bytes(content)
    error_of(file)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.sampled_from(['name', 'source', 'joints', 'edges', 'mirror', 'notes']), json_values)
def test_any_value_is_read_or_rejected_with_a_sentence(tmp_path_factory, key, value):
    file = write(tmp_path_factory.getbasetemp() / 'any.json', entry(**{key: value}))
    with contextlib.suppress(ValueError):
        assert read_definitions(file)
        return
    error_of(file)


def test_a_repeated_key_among_many_is_found_quickly(tmp_path):
    file = tmp_path / 'skeletons.json'
    keys = [*range(300_000), 299_999]
    file.write_text('{' + ', '.join(f'"{key}": 1' for key in keys) + '}')
    assert "'299999' occurs twice" in error_of(file)


def test_the_weights_of_all_skeletons_are_limited_together(tmp_path):
    joints = {f'joint {i}': {f'source {i % 900}': 1} for i in range(4000)}
    entries = [entry(name=f'own {i}', joints=joints) for i in range(2)]
    assert len(read_definitions(write(tmp_path / 'one.json', entries[0]))) == 1
    error = error_of(write(tmp_path / 'two.json', *entries))
    assert 'own 1 combines 900 joints to 4000; at most 4000000 weights' in error


def test_chains_of_large_weights_are_rejected(tmp_path):
    large = {'nose': {'nose': 60, 'left_hip': -59}, 'left_hip': {'nose': -59, 'left_hip': 60}}
    entries = [
        entry(name='a', joints=large),
        entry(name='b', source='a', joints=large),
    ]
    first, second = read_definitions(write(tmp_path / 'chain.json', *entries))
    conventions = {'blazepose_33': BLAZEPOSE_33.within(BLAZEPOSE_33)}
    conventions['a'] = first.within(conventions)
    with pytest.raises(ValueError, match=r"'b' has weights .* exceed 100 for 'nose'"):
        second.within(conventions)
