from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.foreign_text import printable


@given(st.text(st.characters(), max_size=300), st.integers(3, 200))
def test_any_text_becomes_one_printable_line_of_bounded_length(text, max_chars):
    shown = printable(text, max_chars)

    assert shown.isprintable()
    assert len(shown) <= max_chars
    shown.encode()


def test_ordinary_text_stays_as_it_is():
    assert printable('camera_optical_frame') == 'camera_optical_frame'
    assert printable('Kamera für Ärzte, 相机') == 'Kamera für Ärzte, 相机'


def test_what_could_disturb_a_terminal_is_escaped():
    assert printable('a\nb\x1b[2J\u202e\ud800') == 'a\\nb\\x1b[2J\\u202e\\ud800'


def test_long_text_ends_in_an_ellipsis():
    assert printable('x' * 100_000, 20) == 'x' * 17 + '...'


def test_objects_are_shown_by_their_text():
    assert printable(ValueError('bad\tvalue')) == 'bad\\tvalue'
