"""Rows of data sets of dialogues: Alpaca's, pairs of a user's and a bot's turn, and lists of who said what.

Law: as for ShareGPT. What a message was made from can be told from it and the table in docs/importing.md; whatever
stands beside it lies under `metadata["source"]` of its node or under its own name in the conversation's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.growing import Draft, grow_list
from s3conv.exchange.values import list_field, object_at
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

ALPACA, TURNS, UTTERANCES = "alpaca", "turns", "utterances"
_PAIR = (("user", "user"), ("bot", "assistant"))
_SPEAKERS = {"agent1": "assistant", "agent2": "user"}
_ANSWERS = ("rejected", "output", "chosen")
"""The last one that there is, is where the conversation stands."""


def is_alpaca(data: Any) -> bool:
    """Whether a JSON value is a row with an instruction and an answer."""
    return (
        isinstance(data, Mapping)
        and isinstance(data.get("instruction"), str)
        and any(isinstance(data.get(name), str) for name in _ANSWERS)
    )


def read_alpaca(data: Any, key: str | None = None) -> ConversationState:
    """A conversation from `instruction`, `input` and `output`, with what was said before in `system` and `history`.

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    row = object_at(data)
    if not is_alpaca(row):
        raise InvalidInputError("expected an instruction and an output, found no such texts")
    own = {"instruction"}
    drafts = []
    if isinstance(row.get("system"), str) and row["system"]:
        own.add("system")
        drafts.append(_draft("system", "system", row["system"], {"column": "system"}))
    if isinstance(row.get("history"), list) and row["history"]:
        own.add("history")
        for number, pair in enumerate(row["history"]):
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise InvalidInputError(f"history[{number}]: expected [question, answer]")
            for side, role in enumerate(("user", "assistant")):
                drafts.append(_draft(f"{number}.{side}", role, pair[side], {"column": "history"}))
    question, source = row["instruction"], {}
    if isinstance(row.get("input"), str) and row["input"]:
        own.add("input")
        question, source = f"{question}\n{row['input']}", {"instruction": question, "input": row["input"]}
    drafts.append(_draft("instruction", "user", question, source))
    names = [name for name in _ANSWERS if isinstance(row.get(name), str) and (row[name] or name == "output")]
    answers = [_draft(name, "assistant", row[name], {} if name == "output" else {"column": name}) for name in names]
    return grow_list(ALPACA, drafts, row, own.union(names), answers)


def is_turns(data: Any) -> bool:
    """Whether a JSON value is an object with pairs of turns in `history`."""
    history = data.get("history") if isinstance(data, Mapping) else None
    return isinstance(history, list) and any(isinstance(pair, Mapping) and "user" in pair for pair in history)


def read_turns(data: Any, key: str | None = None) -> ConversationState:
    """A conversation from `history`, a list of objects with `user` and `bot`.

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    drafts: list[Draft] = []
    for number, pair in enumerate(list_field(object_at(data), "history")):
        left, before = dict(object_at(pair, f"history[{number}].")), len(drafts)
        for name, role in _PAIR:
            if name not in left:
                continue
            if not isinstance(text := left.pop(name), str | None):
                found = type(text).__name__
                raise InvalidInputError(f"history[{number}].{name}: expected a text, found {found}")
            drafts.append(_draft(f"{number}.{name}", role, text, {}))
        if len(drafts) == before:
            raise InvalidInputError(f"history[{number}]: expected user and bot, found neither")
        if left:
            drafts[-1].metadata["source"] = left
    return grow_list(TURNS, drafts, data, ("history",))


def is_utterances(data: Any) -> bool:
    """Whether a JSON value is an object with `utterances`, each a speaker and a text."""
    utterances = data.get("utterances") if isinstance(data, Mapping) else None
    return isinstance(utterances, list) and any(map(_is_utterance, utterances))


def read_utterances(data: Any, key: str | None = None) -> ConversationState:
    """A conversation from `utterances`, a list of [speaker, text].

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    drafts = []
    for number, utterance in enumerate(list_field(object_at(data), "utterances")):
        if not _is_utterance(utterance):
            raise InvalidInputError(f"utterances[{number}]: expected [speaker, text]")
        speaker, text = utterance
        draft = _draft(str(number), _SPEAKERS.get(speaker, speaker), text, {})
        assert draft.message is not None  # _draft gives it one
        draft.message.name = speaker
        drafts.append(draft)
    return grow_list(UTTERANCES, drafts, data, ("utterances",))


def _is_utterance(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value) and value[0] != ""


def _draft(name: str, role: str, text: str | None, source: dict[str, Any]) -> Draft:
    return Draft(name, LLMMessage(role, text), metadata={"source": source} if source else {}, named=False)
