"""Keys: exact forms, no two ids under one key, no way out of the root."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import InvalidInputError
from s3conv.format.keys import (
    CONVERSATIONS,
    DESCRIPTOR,
    LOG,
    MANIFEST,
    PROBE,
    LogName,
    batch_key,
    check_id,
    document_key,
    encode_id,
    id_hash,
    intent_key,
    log_prefix,
    parse_log_key,
)
from s3conv.store.base import check_key, check_prefix
from tests.strategies import HOSTILE_IDS, hostile_ids

LONG = "a/" * 200


@pytest.mark.parametrize(
    ("conversation_id", "key"),
    [
        ("conv-123", "conversations/17/conv-123.json.zst"),
        ("A_z-9", "conversations/3a/A_z-9.json.zst"),
        ("..", "conversations/5e/%2E%2E.json.zst"),
        (".", "conversations/cd/%2E.json.zst"),
        ("a/b", "conversations/c1/a%2Fb.json.zst"),
        ("ü", "conversations/60/%C3%BC.json.zst"),
        ("~", "conversations/7a/%7E.json.zst"),
        ("%2F", "conversations/40/%252F.json.zst"),
        ("a b\n", "conversations/01/a%20b%0A.json.zst"),
        ("🌳", "conversations/5a/%F0%9F%8C%B3.json.zst"),
        (
            LONG,
            "conversations/3e/" + ("a%2F" * 25) + "~"
            "3ee7e5f5217601182862146e334597772cc81e58c4c3ffce4ab5609b148f1833.json.zst",
        ),
    ],
)
def test_the_key_of_a_document_is(conversation_id: str, key: str) -> None:
    assert document_key(conversation_id) == key


def test_other_keys_are() -> None:
    assert (DESCRIPTOR, MANIFEST) == ("s3conv.json", "index/manifest.json")
    assert log_prefix("null") == "index/log/7423/"
    assert log_prefix('"alice"') == "index/log/0a50/"
    assert id_hash("conv-123") == "1723376043e8a9d0090025f147440b99"
    prefix = log_prefix("null")
    assert (
        intent_key(prefix, "conv-123", 7, "0a1b") == "index/log/7423/1723376043e8a9d0090025f147440b99.7.0a1b.json.zst"
    )
    assert batch_key(prefix, "0a1b") == "index/log/7423/batch.0a1b.json.zst"


@pytest.mark.parametrize(("length", "cut"), [(180, False), (181, True)])
def test_an_encoded_id_over_180_bytes_is_cut_to_100_and_marked_by_its_hash(length: int, cut: bool) -> None:
    conversation_id = "x" * length
    hashed = hashlib.sha256(conversation_id.encode()).hexdigest()
    assert encode_id(conversation_id) == (f"{'x' * 100}~{hashed}" if cut else conversation_id)


def test_what_counts_is_the_length_of_the_encoded_id() -> None:
    assert encode_id("/" * 60) == "%2F" * 60
    assert encode_id("/" * 61).startswith("%2F" * 33 + "%~")


@given(hostile_ids, hostile_ids)
def test_two_ids_never_share_a_key(one: str, other: str) -> None:
    assert (document_key(one) == document_key(other)) == (one == other)


@given(st.text(st.sampled_from("aA%.~/25E7\\"), min_size=1, max_size=6))
def test_an_id_can_be_read_from_its_key(conversation_id: str) -> None:
    assert unquote(encode_id(conversation_id)) == conversation_id


def test_no_hostile_id_shares_a_key_with_another() -> None:
    lookalikes = [
        *HOSTILE_IDS, "a", "A", "a%2Fb", "%61", "%C3%BC", "%c3%bc", "A" * 181, encode_id("a" * 181), f"{'a' * 180}b",
        encode_id(encode_id("a/b")),
    ]  # fmt: skip
    distinct = set(lookalikes)
    assert len({document_key(one) for one in distinct}) == len(distinct)
    assert len({id_hash(one) for one in distinct}) == len(distinct)


@given(hostile_ids, st.text(), st.integers(1, 10**18 - 1), st.text("0123456789abcdef", min_size=1, max_size=64))
def test_every_key_is_one_that_a_store_takes_and_the_log_reads_back_its_own(
    conversation_id: str, partition: str, revision: int, write: str
) -> None:
    key = document_key(conversation_id)
    check_key(key)
    assert key.startswith(CONVERSATIONS)
    assert key.count("/") == 2
    assert all(len(part) <= 255 for part in key.split("/"))
    prefix = log_prefix(partition.encode(errors="replace").decode())
    check_prefix(prefix)
    assert prefix.startswith(LOG)
    intent = intent_key(prefix, conversation_id, revision, write)
    batch = batch_key(prefix, write)
    assert check_key(intent) == intent
    assert check_key(batch) == batch
    assert parse_log_key(intent) == LogName(intent, write, id_hash(conversation_id), revision)
    assert parse_log_key(batch) == LogName(batch, write)


@pytest.mark.parametrize("key", [DESCRIPTOR, MANIFEST, CONVERSATIONS[:-1], LOG[:-1], PROBE[:-1]])
def test_fixed_keys_are_ones_that_a_store_takes(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    "key",
    [
        "", "index/log/", "index/log/7423/", "index/manifest.json", "index/log/7423/batch.json.zst",
        "index/log/7423/batch.xyz.json.zst", "index/log/742/batch.0a.json.zst", "index/log/742G/batch.0a.json.zst",
        f"index/log/7423/{'0' * 32}.0.0a.json.zst", f"index/log/7423/{'0' * 32}.01.0a.json.zst",
        f"index/log/7423/{'0' * 31}.1.0a.json.zst", f"index/log/7423/{'0' * 32}.1.json.zst",
        f"index/log/7423/{'0' * 32}.1.0a.json", f"index/log/7423/{'0' * 32}.1.0a.json.zst\n",
        f"x/index/log/7423/{'0' * 32}.1.0a.json.zst", f"index/log/7423/{'0' * 32}.١.0a.json.zst",
    ],
)  # fmt: skip
def test_what_is_no_key_of_the_log_is_none(key: str) -> None:
    assert parse_log_key(key) is None


@pytest.mark.parametrize("conversation_id", ["", "a" * 1025, "ü" * 513, "🌳" * 257])
def test_an_id_that_is_empty_or_over_1024_bytes_is_refused(conversation_id: str) -> None:
    for use in (check_id, encode_id, document_key):
        with pytest.raises(InvalidInputError, match="expected 1 to 1024"):
            use(conversation_id)


@pytest.mark.parametrize("conversation_id", ["\ud800", "a\udfff", "\ud83c\udf33"])
def test_an_id_with_a_lone_surrogate_is_refused(conversation_id: str) -> None:
    with pytest.raises(InvalidInputError, match="surrogate") as refused:
        document_key(conversation_id)
    str(refused.value).encode()  # the message itself can be printed


@pytest.mark.parametrize("conversation_id", [None, 5, b"c", ["c"], True])
def test_an_id_that_is_no_text_is_refused(conversation_id: Any) -> None:
    with pytest.raises(InvalidInputError, match=type(conversation_id).__name__):
        document_key(conversation_id)
