"""Only what a person can be is believed, and everybody only once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_people import people_at

from metrabs_ros.people import People
from metrabs_ros.plausibility import believable, convincing, distinct, needed_confidence
from metrabs_ros.skeleton import BLAZEPOSE_33


def changed(people, **arrays):
    return dataclasses.replace(people, **arrays)


def test_people_in_front_of_the_camera_are_believed():
    assert believable(people_at((0, 0, 2000), (3000, 0, 90_000))).all()


@pytest.mark.parametrize(
    'place_mm', [(0, 0, -3000), (0, 0, 100), (0, 0, 150_000)], ids=['behind', 'in', 'far beyond']
)
def test_people_where_nobody_can_be_seen_are_not(place_mm):
    assert not believable(people_at(place_mm)).any()


@pytest.mark.parametrize('factor', [0.1, 2.0])
def test_giants_and_dwarfs_are_not(factor):
    people = people_at((0, 0, 5000))
    poses_mm = people.positions_mm[:, None] + factor * (
        people.poses3d_mm - people.positions_mm[:, None]
    )
    assert not believable(changed(people, poses3d_mm=poses_mm)).any()


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('name', ['poses3d_mm', 'poses2d_px'])
def test_what_is_not_finite_is_not(name, value):
    people = people_at((0, 0, 3000), (500, 0, 3000))
    array = getattr(people, name).copy()
    array[1, 5, 0] = value
    assert believable(changed(people, **{name: array})).tolist() == [True, False]


def test_who_leans_far_needs_more_confidence():
    upright, lying = needed_confidence(np.array([10.0, 80.0]))
    assert upright < lying
    people = changed(people_at((0, 0, 3000), (0, 0, 3000)), confidence=np.array([0.6, 0.6]))
    assert convincing(people, np.array([10.0, 80.0])).tolist() == [True, False]


def test_who_is_mostly_out_of_view_needs_more_confidence():
    people = changed(people_at((0, 0, 3000), (0, 0, 3000)), confidence=np.array([0.6, 0.6]))
    in_view = people.in_view.copy()
    in_view[1, :30] = False
    people = changed(people, in_view=in_view)
    assert convincing(people, np.zeros(2)).tolist() == [True, False]


def test_of_two_poses_of_one_person_the_preferred_is_kept():
    people = people_at((0, 0, 3000), (30, 0, 3000), (900, 0, 3000))
    assert distinct(people, np.array([1.0, 2.0, 0.5])).tolist() == [False, True, True]


def test_people_side_by_side_are_both_kept():
    people = people_at((0, 0, 3000), (550, 0, 3000))
    assert distinct(people, people.confidence).all()


def test_a_fragment_within_a_person_is_dropped():
    people = people_at((0, 0, 3000), (0, -300, 9000))
    assert distinct(people, np.array([0.5, 0.9])).tolist() == [True, False]


def test_nobody_is_no_trouble():
    nobody = People.nobody(BLAZEPOSE_33)
    assert believable(nobody).shape == distinct(nobody, nobody.confidence).shape == (0,)
    assert convincing(nobody, np.zeros(0)).shape == (0,)
