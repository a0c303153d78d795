"""Every parameter has a description and a documented default, and invalid values are rejected."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
import yaml
from rclpy.parameter import Parameter

from metrabs_ros.node import parameters
from metrabs_ros.node.fusion_settings import FusionSettings
from metrabs_ros.node.settings import Settings

PROJECT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(('name', 'kind'), [('pose', Settings), ('fusion', FusionSettings)])
def test_the_parameter_file_contains_the_defaults(name, kind):
    file = yaml.safe_load((PROJECT / 'config' / f'{name}.yaml').read_text())
    file_values, table = file[f'/**/{name}']['ros__parameters'], dataclasses.asdict(kind())
    table['cameras'] = list(table['cameras'])
    assert file_values == table
    assert list(file_values) == list(table)


@pytest.mark.parametrize(
    'field',
    [*dataclasses.fields(Settings), *dataclasses.fields(FusionSettings)],
    ids=lambda field: field.name,
)
def test_every_parameter_has_a_description_and_a_valid_default(field):
    about = field.metadata
    assert about['description'].endswith('.')
    assert isinstance(field.default, bool | int | float | str | tuple)
    if about['low'] is not None:
        assert about['low'] <= field.default <= about['high']
    if about['choices']:
        assert field.default in about['choices']


def test_booleans_are_converted_to_the_words_true_and_false():
    changed = parameters.with_changes(Settings(), [Parameter('rectified', value=True)])
    assert changed.rectified == 'true'


def test_changes_are_applied_atomically():
    before = Settings()
    good = [Parameter('tf', value='none'), Parameter('num_aug', value=3)]
    assert parameters.with_changes(before, good) == dataclasses.replace(
        before, tf='none', num_aug=3
    )
    with pytest.raises(ValueError, match="tf is 'some'"):
        parameters.with_changes(before, [*good, Parameter('tf', value='some')])
    assert parameters.with_changes(before, [Parameter('use_sim_time', value=True)]) == before


@pytest.mark.parametrize('names', [[], ['a', 'a'], ['', 'a'], ['1st'], ['a b'], ['a', '-']])
def test_invalid_camera_names_are_rejected(names):
    with pytest.raises(ValueError, match='cameras '):
        parameters.with_changes(
            Settings(), [Parameter('cameras', Parameter.Type.STRING_ARRAY, names)]
        )


def test_camera_names_keep_their_order():
    changed = parameters.with_changes(
        Settings(), [Parameter('cameras', value=['front', 'rear/left'])]
    )
    assert changed.cameras == ('front', 'rear/left')
