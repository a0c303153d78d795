from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from metrabs_ros.foreign_text import printable


@given(st.text(st.characters(), max_size=300), st.integers(3, 200))
def test_the_result_is_printable_and_of_bounded_length(text, max_chars):
    result = printable(text, max_chars)

    assert result.isprintable()
    assert len(result) <= max_chars
    result.encode()


def test_ordinary_text_is_not_changed():
    assert printable('camera_optical_frame') == 'camera_optical_frame'
    assert printable('Kamera für Ärzte, 相机') == 'Kamera für Ärzte, 相机'


def test_control_characters_are_escaped():
    assert printable('a\nb\x1b[2J\u202e\ud800') == 'a\\nb\\x1b[2J\\u202e\\ud800'


def test_long_text_ends_in_an_ellipsis():
    assert printable('x' * 100_000, 20) == 'x' * 17 + '...'


def test_objects_are_converted_with_str():
    assert printable(ValueError('bad\tvalue')) == 'bad\\tvalue'
