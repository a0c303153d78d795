"""The scale of people from observations of their cues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.placement.person_scale import (
    FORGOTTEN_S,
    MAX_FACTOR,
    MIN_FACTOR,
    POPULATION_STD,
    Cue,
    PersonScales,
    ScaleObservations,
)

FRAME_S = 1 / 30


def observations(
    *log_factors: float,
    std: float = 0.03,
    probability: float = 1.0,
    cue: Cue = Cue.DEPTH_IMAGE,
    mean_excess: float = np.inf,
) -> ScaleObservations:
    """Return one observation for each person."""
    shape = (len(log_factors), 1)
    return ScaleObservations(
        cue,
        np.array(log_factors).reshape(shape),
        np.full(shape, std),
        np.full(shape, probability),
        mean_excess,
    )


def scales(count: int = 1) -> PersonScales:
    """Return people without observations."""
    result = PersonScales()
    result.add(count)
    return result


def test_people_without_observations_keep_the_size_of_the_network() -> None:
    people = scales(2)
    people.update([], FRAME_S)
    people.update([observations(np.nan, np.nan)], FRAME_S)
    np.testing.assert_array_equal(people.factors, 1)
    np.testing.assert_array_equal(people.cues, 0)
    assert (people.relative_std >= POPULATION_STD).all()


@pytest.mark.parametrize('log_factor', [-0.4, -0.1, 0.15])
def test_repeated_observations_determine_the_factor(log_factor: float) -> None:
    people = scales()
    for _ in range(60):
        people.update([observations(log_factor)], FRAME_S)
    assert np.log(people.factors[0]) == pytest.approx(log_factor, abs=0.01)
    assert people.relative_std[0] < 0.04
    assert people.cues[0] == Cue.DEPTH_IMAGE


def test_the_first_observation_of_a_child_is_followed_at_once() -> None:
    people = scales()
    people.update([observations(-0.4)], 0.0)
    assert np.log(people.factors[0]) == pytest.approx(-0.4, abs=0.05)


def test_a_single_outlier_changes_little() -> None:
    people = scales()
    for _ in range(60):
        people.update([observations(0.0)], FRAME_S)
    people.update([observations(-0.4)], FRAME_S)
    assert np.log(people.factors[0]) == pytest.approx(0, abs=0.02)


def test_lifted_feet_do_not_make_a_person_larger() -> None:
    people = scales()
    for i in range(120):
        lifted = i % 15 < 6
        own = observations(
            0.2 if lifted else 0.0,
            probability=0.7,
            cue=Cue.GROUND_PLANE,
            mean_excess=0.15,
        )
        people.update([own], FRAME_S)
    assert np.log(people.factors[0]) == pytest.approx(0, abs=0.03)


def test_a_wrong_first_contact_is_corrected() -> None:
    # The person stands on a step at first, and then on the floor.
    people = scales()
    options = {'probability': 0.7, 'cue': Cue.GROUND_PLANE, 'mean_excess': 0.15}
    for _ in range(60):
        people.update([observations(0.12, **options)], FRAME_S)
    for _ in range(90):
        people.update([observations(0.0, **options)], FRAME_S)
    assert np.log(people.factors[0]) == pytest.approx(0, abs=0.03)


def test_a_person_that_climbs_a_step_later_keeps_the_size() -> None:
    people = scales()
    options = {'probability': 0.7, 'cue': Cue.GROUND_PLANE, 'mean_excess': 0.15}
    for _ in range(90):
        people.update([observations(0.0, **options)], FRAME_S)
    for _ in range(60):
        people.update([observations(0.15, **options)], FRAME_S)
    assert np.log(people.factors[0]) == pytest.approx(0, abs=0.05)


def test_the_factor_is_remembered_without_observations() -> None:
    people = scales()
    for _ in range(60):
        people.update([observations(-0.3)], FRAME_S)
    for _ in range(150):
        people.update([], FRAME_S)
    assert np.log(people.factors[0]) == pytest.approx(-0.3, abs=0.02)


def test_a_merged_track_takes_over_what_was_known() -> None:
    people = scales(3)
    for _ in range(60):
        people.update([observations(-0.3, np.nan, 0.1)], FRAME_S)
    people.merge(np.array([0]), np.array([1]))
    people.keep(np.array([1, 2]))
    np.testing.assert_allclose(np.log(people.factors), [-0.3, 0.1], atol=0.02)
    np.testing.assert_array_equal(people.cues, Cue.DEPTH_IMAGE)


def test_cues_are_combined() -> None:
    one, both = scales(), scales()
    depth = observations(-0.1, cue=Cue.DEPTH_IMAGE)
    for _ in range(30):
        one.update([depth], FRAME_S)
        both.update([depth, observations(-0.16, cue=Cue.STATURE)], FRAME_S)
    assert both.cues[0] == Cue.DEPTH_IMAGE | Cue.STATURE
    assert np.log(both.factors[0]) == pytest.approx(-0.13, abs=0.015)
    assert both.relative_std[0] < one.relative_std[0]


def test_a_wrong_contact_of_a_minute_is_corrected_within_seconds() -> None:
    people = scales()
    options = {'probability': 0.7, 'cue': Cue.GROUND_PLANE, 'mean_excess': 0.15}
    for log_factor, seconds in ((0.12, 60), (0.0, 8)):
        for _ in range(seconds * 10):
            people.update([observations(log_factor, **options)], 0.1)
    assert np.log(people.factors[0]) == pytest.approx(0, abs=0.05)


def test_cues_are_forgotten() -> None:
    people = scales()
    people.update([observations(-0.3)], FRAME_S)
    people.update([], FORGOTTEN_S + 1)
    assert people.cues[0] == 0
    assert people.factors[0] == 1


def test_the_rate_of_the_frames_does_not_change_the_certainty() -> None:
    spreads = []
    for rate_hz in (5, 60):
        people = scales()
        for _ in range(2 * rate_hz):
            people.update([observations(0.1)], 1 / rate_hz)
        spreads.append(people.relative_std[0])
    assert spreads[0] == pytest.approx(spreads[1], rel=0.2)


def test_statures_are_the_implied_ones_times_the_factor() -> None:
    people = scales(2)
    for _ in range(60):
        people.update_statures(np.array([1700.0, np.nan]), np.array([True, False]), FRAME_S)
        people.update([observations(-0.2, -0.2)], FRAME_S)
    assert people.statures_mm[0] == pytest.approx(1700 * np.exp(-0.2), rel=0.02)
    assert np.isnan(people.statures_mm[1])


@given(
    st.lists(
        st.tuples(
            st.floats(-1e3, 1e3) | st.just(np.nan),
            st.floats(1e-4, 1e3),
            st.floats(0, 1),
            st.floats(0, 1e6),
        ),
        max_size=30,
    )
)
def test_any_observations_yield_a_factor_in_range(
    frames: list[tuple[float, float, float, float]],
) -> None:
    people = scales()
    for log_factor, std, probability, step_s in frames:
        own = observations(
            log_factor,
            std=std,
            probability=probability,
            cue=Cue.GROUND_PLANE,
            mean_excess=0.1,
        )
        people.update([own], step_s)
        assert 0.8 * MIN_FACTOR < people.factors[0] < 1.25 * MAX_FACTOR
        assert 0 < people.relative_std[0] < 1
