"""ShareGPT's form: `conversations`, a list of turns with `from` and `value`; with LLaMA-Factory's columns beside it.

Law: a `function_call` whose value is a call becomes a tool call, and keeps its text under `source`. What stands beside
the turns lies under its own name in the metadata. A `system` column is the first message; `chosen` and `rejected` are
two answers to the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.found import Joined, Row
from s3conv.exchange.growing import Draft, grow_list
from s3conv.exchange.openai import is_message, read_calls, read_message
from s3conv.exchange.values import list_field, object_at, text_field
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

NAME = "sharegpt"
_ROLES = {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"}
"""The usual ones, from which `from` can be told again."""

_MORE_ROLES = {
    "user": "user",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function_response": "tool",
}
_ANSWERS = ("rejected", "chosen")
"""The last one is where the conversation stands."""


def is_turn(data: Any) -> bool:
    """Whether a JSON value is a turn."""
    return isinstance(data, Mapping) and "from" in data and "value" in data


def is_conversation(data: Any) -> bool:
    """Whether a JSON value is a list of turns, or an object with one in `conversations`."""
    turns = data.get("conversations") if isinstance(data, Mapping) else data
    if not isinstance(turns, list):
        return False
    return any(map(is_turn, turns)) or (turns is not data and any(map(is_message, turns)))


def read(data: Any, key: str | None = None) -> ConversationState:
    """A conversation from a list of turns, or from an object with `conversations`.

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    row = {"conversations": data} if isinstance(data, list) else object_at(data)
    own = ["conversations"]
    drafts = []
    if isinstance(row.get("system"), str) and row["system"]:
        own.append("system")
        message = LLMMessage("system", row["system"])
        drafts.append(Draft("system", message, metadata={"source": {"column": "system"}}, named=False))
    turns = list_field(row, "conversations")
    drafts.extend(_read_turn(turn, f"conversations[{number}].", number) for number, turn in enumerate(turns))
    names = [name for name in _ANSWERS if is_turn(row.get(name))]
    answers = [_read_turn(row[name], f"{name}.", name) for name in names]
    return grow_list(NAME, drafts, row, [*own, *names], answers)


def read_turns(rows: Sequence[Row]) -> Joined:
    """The one conversation of a file that is a list of turns; or the reason why it is none."""
    try:
        drafts = [_read_turn(turn, f"{position}: ", number) for number, (position, turn) in enumerate(rows)]
        yield rows[0][0], grow_list(NAME, drafts, {}, ())
    except InvalidInputError as error:
        yield rows[0][0], str(error)


def _read_turn(turn: Any, where: str, name: int | str) -> Draft:
    """A turn; `name` tells it apart from the others, and says which column it is."""
    if is_message(turn):  # LLaMA-Factory's rows may have OpenAI's messages in the same place
        return read_message(turn, where, str(name))
    left = dict(object_at(turn, where))
    said = text_field(left, "from", where)
    value = left.pop("value", None)
    if said is None:
        raise InvalidInputError(f"{where}from: expected a string, found nothing")
    if not isinstance(value, str | list | None):
        raise InvalidInputError(f"{where}value: expected a text, found {type(value).__name__}")
    message = LLMMessage(_ROLES.get(said) or _MORE_ROLES.get(said, said), value)
    if said in _ROLES:
        del left["from"]
    if said == "function_call" and isinstance(value, str) and (calls := read_calls(value)):
        message.content, message.tool_calls = None, calls
        left["value"] = value
    if isinstance(name, str):
        left["column"] = name
    return Draft(str(name), message, metadata={"source": left} if left else {}, named=False)
