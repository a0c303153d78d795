"""A resumed run has the results of an uninterrupted run, with every kind of model."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import START_NS, STEP_NS, messages_in, people_in, write_bag

from metrabs_ros.recordings.annotate import UNFINISHED, annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.tracking.tracker import Tracker

FRAMES = 6
CUT = 4
INTERRUPTED_AT_SHARE = 0.7
"""Share of the network calls after which runs are interrupted."""
NETWORK_CALLS = ('find_people', 'pose_people', 'estimate', 'detect')


FAILING_FRAME = 2
"""Index of the frame at which the networks fail."""


class Failure:
    """Makes the networks of a model raise an exception at an image."""

    def __init__(self, monkeypatch, model, image):
        self.image = image
        self.count = 0
        for name in NETWORK_CALLS:
            if hasattr(model, name):
                monkeypatch.setattr(model, name, self._failing(getattr(model, name)))

    def _failing(self, call):
        def failing(images, *args, **kwargs):
            for one in images if isinstance(images, list) else [images]:
                if np.array_equal(one[0] if isinstance(one, tuple) else one, self.image):
                    self.count += 1
                    raise RuntimeError('out of memory \udcff')
            return call(images, *args, **kwargs)

        return failing


class Interruption:
    """Raises KeyboardInterrupt at a call of a model's networks, within a frame."""

    def __init__(self, monkeypatch, model, at_call):
        self.calls = collections.Counter()
        self.at_call = at_call
        for name in NETWORK_CALLS:
            if hasattr(model, name):
                monkeypatch.setattr(model, name, self._counted(name, getattr(model, name)))

    def _counted(self, name, call):
        def counted(*args, **kwargs):
            self.calls[name] += 1
            if sum(self.calls.values()) == self.at_call:
                raise KeyboardInterrupt
            return call(*args, **kwargs)

        return counted


def accept_all(poses, *_):
    """Return the indices of all poses."""
    return np.arange(len(poses.scores))


@pytest.fixture(scope='module')
def frames(street):
    """Return images of a moving street scene with one scene cut."""
    height, width = street.shape[:2]
    part = street[height // 3 :, : width // 2]
    return [np.roll(part, 5 * i + (120 if i >= CUT else 0), axis=1) for i in range(FRAMES)]


@pytest.fixture(scope='module')
def source(tmp_path_factory, frames):
    """Return a bag of these images."""
    return write_bag(tmp_path_factory.mktemp('street') / 'bag', [f[..., ::-1] for f in frames])


@pytest.fixture
def models(request, model):
    """Return a function from names to models."""

    def get(name):
        if name == 'blazepose':
            return model
        if name in ('metrabs', 'nlf'):
            return request.getfixturevalue(f'{name}_model')
        return KnownPeople((-1500, 0, 3000), (-1000, 0, 4000))

    return get


@pytest.mark.slow
@pytest.mark.parametrize('follow', [False, True], ids=['every frame', 'follow'])
@pytest.mark.parametrize('name', ['blazepose', 'metrabs', 'nlf', 'known'])
def test_a_resumed_run_equals_an_uninterrupted_run(
    tmp_path, source, models, monkeypatch, name, follow
):
    model = models(name)
    # Random weights give implausible poses.
    for module in ('metrabs', 'blazepose', 'nlf'):
        monkeypatch.setattr(f'metrabs_ros.{module}.estimator.plausible_poses', accept_all)
    monkeypatch.setattr('known_people.plausible_poses', accept_all)
    options = AnnotateOptions(follow=follow, batch=0 if follow else 2)

    def run(output):
        return annotate(source, tmp_path / output, options, model, lambda message: None)

    with monkeypatch.context() as patch:
        counter = Interruption(patch, model, at_call=-1)
        run('uninterrupted')
        calls = sum(counter.calls.values())
    with monkeypatch.context() as patch:
        Interruption(patch, model, at_call=round(INTERRUPTED_AT_SHARE * calls))
        with pytest.raises(KeyboardInterrupt):
            run('resumed')
    summary = run('resumed')
    assert 0 < summary.resumed < FRAMES
    assert (summary.frames, summary.processed) == (FRAMES, FRAMES)
    assert not (tmp_path / f'resumed{UNFINISHED}').exists()
    found = people_in(tmp_path / 'resumed')
    assert [stamp for stamp, _ in found] == [START_NS + i * STEP_NS for i in range(FRAMES)]
    assert sum(len(people) for _, people in found) >= FRAMES
    assert messages_in(tmp_path / 'resumed') == messages_in(tmp_path / 'uninterrupted')


@pytest.mark.slow
@pytest.mark.parametrize('follow', [False, True], ids=['every frame', 'follow'])
@pytest.mark.parametrize('name', ['blazepose', 'known'])
def test_a_failed_frame_is_not_processed_again(
    tmp_path, source, frames, models, monkeypatch, name, follow
):
    model = models(name)
    options = AnnotateOptions(follow=follow, batch=0 if follow else 1)

    def run(output):
        return annotate(source, tmp_path / output, options, model, lambda message: None)

    failure = Failure(monkeypatch, model, frames[FAILING_FRAME])
    with monkeypatch.context() as patch:
        counter = Interruption(patch, model, at_call=-1)
        uninterrupted = run('uninterrupted')
        calls = sum(counter.calls.values())
    with monkeypatch.context() as patch:
        Interruption(patch, model, at_call=calls - 1)
        with pytest.raises(KeyboardInterrupt):
            run('resumed')
    failure.count = 0
    resumed = run('resumed')
    assert failure.count == 0
    assert resumed.resumed > FAILING_FRAME + 1
    assert resumed.processed == uninterrupted.processed == FRAMES - 1
    assert resumed.unusable == uninterrupted.unusable
    assert list(uninterrupted.unusable) == ['failed: RuntimeError']
    assert messages_in(tmp_path / 'resumed') == messages_in(tmp_path / 'uninterrupted')


@pytest.mark.parametrize('name', ['blazepose', 'known'])
def test_attempts_of_a_resumed_run_equal_those_of_an_uninterrupted_run(
    tmp_path, source, models, monkeypatch, name
):
    model = models(name)
    recorded = []
    update = Tracker.update

    def recording_update(self, *arguments):
        recorded.append(arguments[4])
        return update(self, *arguments)

    def run(output):
        """Annotate; return the attempted and the followed ids of each frame."""
        recorded.clear()
        annotate(
            source, tmp_path / output, AnnotateOptions(follow=True), model, lambda message: None
        )
        return [
            (None if a.ids is None else a.ids.tolist(), a.followed_ids.tolist()) for a in recorded
        ]

    monkeypatch.setattr(Tracker, 'update', recording_update)
    with monkeypatch.context() as patch:
        counter = Interruption(patch, model, at_call=-1)
        uninterrupted = run('uninterrupted')
        calls = sum(counter.calls.values())
    assert len(uninterrupted) == FRAMES
    assert any(ids is not None for ids, _ in uninterrupted)
    with monkeypatch.context() as patch:
        Interruption(patch, model, at_call=calls - 1)
        with pytest.raises(KeyboardInterrupt):
            run('resumed')
    assert run('resumed') == uninterrupted
