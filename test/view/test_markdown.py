"""Untrusted text is displayed literally, and cannot load or link resources."""

from __future__ import annotations

import html
import re

import hypothesis
import hypothesis.strategies as st
import pytest

from metrabs_ros.foreign_text import printable
from metrabs_ros.view.entities import MAX_PATH_CHARS, entity_paths
from metrabs_ros.view.markdown import escape_markdown

MARKUP = set('\\`*_{}[]<>#!|~&$\n\r\t')


@pytest.mark.parametrize(
    'text',
    [
        '![](http://evil.example/x.png)',
        '[click](http://evil.example)',
        '<img src=x onerror=alert(1)>',
        '<http://evil.example>',
        'a | b |',
        'a\n\n# heading\n- list',
        '&lt;b&gt;',
        '`code` **bold** _it_ ~~no~~ $x$',
        '\u202e\x1b[31m\x00',
    ],
)
def test_markup_in_untrusted_text_is_escaped(text):
    shown = escape_markdown(text)
    assert not MARKUP & set(without_entities(shown))
    assert html.unescape(shown) == printable(text)


def without_entities(text):
    """Return a text without numeric entities."""
    return re.sub(r'&#\d+;', '', text)


@hypothesis.given(st.text(max_size=300))
def test_any_text_is_escaped(text):
    shown = escape_markdown(text)
    assert not MARKUP & set(without_entities(shown))
    assert html.unescape(shown) == printable(text)
    assert len(html.unescape(shown)) <= 80


@hypothesis.given(st.lists(st.text(max_size=30), unique=True, max_size=20))
def test_entity_paths_are_unique_and_have_plain_characters(names):
    paths = entity_paths(names)
    assert list(paths) == names
    assert len(set(paths.values())) == len(names)
    for path in paths.values():
        assert len(path) <= MAX_PATH_CHARS + 4
        assert all(
            part.isidentifier() or part.replace('_', 'a').isalnum()
            for part in path.split('/')
            if part
        )


def test_namespaces_are_kept_and_other_characters_replaced():
    names = ['rear/left', '/front/', '../../world', 'tf', 'a b', 'a_b', '', 'x' * 1000]
    assert list(entity_paths(names).values()) == [
        *('rear/left', 'front', '__/__/world', 'tf_2', 'a_b', 'a_b_2', '', 'x' * MAX_PATH_CHARS)
    ]
