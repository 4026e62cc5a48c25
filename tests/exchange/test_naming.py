"""File names for ids: safe, bounded, and unique also where a file system does not tell capitals apart."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv import InvalidInputError
from s3conv.exchange.naming import file_name, link_to
from tests.strategies import HOSTILE_IDS, hostile_ids


@pytest.mark.parametrize(
    ("conversation_id", "name"),
    [
        ("conv-123", "conv-123.html"),
        ("a/b", "a%2Fb.html"),
        ("..", "%2E%2E.html"),
        ("Conv", "Conv~c0bd66cc0c2d8c4e.html"),
        ("aux", "aux~321f68140efca2b3.html"),
        ("index", "index~1bc04b5291c26a46.html"),
    ],
)
def test_what_names_look_like(conversation_id: str, name: str) -> None:
    assert file_name(conversation_id, ".html") == name


@given(st.lists(hostile_ids, max_size=30, unique=True))
def test_no_two_ids_share_a_file_and_none_leaves_the_folder(ids: list[str]) -> None:
    every = list(dict.fromkeys([*ids, *HOSTILE_IDS, *(one.swapcase() for one in HOSTILE_IDS if len(one) < 200)]))
    names = [file_name(one, ".md", branch) for one in every for branch in (None, 1, 20)]
    assert len({name.lower() for name in names}) == len(every) * 3
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_%~-]{1,200}\.md", name)
        assert not re.fullmatch(r"(?i)(index|con|prn|aux|nul|com\d|lpt\d)\.md", name)
        assert unquote(link_to(name)) == name


def test_what_no_archive_can_hold_has_no_file() -> None:
    for conversation_id in ("", "a" * 1025, "\ud800"):
        with pytest.raises(InvalidInputError, match="conversation_id"):
            file_name(conversation_id, ".html")
