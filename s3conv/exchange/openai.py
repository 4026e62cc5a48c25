"""Lists of messages as OpenAI's interface takes them: fine-tuning rows, runs of tau-bench, plain lists.

Law: the fields of OpenAI's messages are ours, so they go over as they are, null and absent told apart. Whatever else a
message has (weights, annotations) lies verbatim under `metadata["source"]` of its node; whatever stands beside the
list (tools, a task, a reward) under its own name in the conversation's metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.blocks import tool_call
from s3conv.exchange.found import Joined, Row
from s3conv.exchange.growing import Draft, grow_list
from s3conv.exchange.values import list_field, object_at, parse, text_field, time_if_any
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

NAME = "openai"
TAU_BENCH = "tau-bench"
_KINDS: dict[str, type | tuple[type, ...]] = {
    "content": (str, list, NoneType),
    "name": (str, NoneType),
    "tool_calls": (list, NoneType),
    "function_call": (dict, NoneType),
    "tool_call_id": (str, NoneType),
}
_ROLES = {"client": "user", "human": "user", "counselor": "assistant", "bot": "assistant", "ai": "assistant"}
"""How others call the two sides."""


def is_message(data: Any) -> bool:
    """Whether a JSON value is a message."""
    return (
        isinstance(data, Mapping)
        and isinstance(data.get("role"), str)
        and ("content" in data or "tool_calls" in data or "function_call" in data)
    )


def is_conversation(data: Any) -> bool:
    """Whether a JSON value is a list of messages, or an object with one in `messages`."""
    messages = data.get("messages") if isinstance(data, Mapping) else data
    return isinstance(messages, list) and any(map(is_message, messages))


def is_run(data: Any) -> bool:
    """Whether a JSON value is a run of tau-bench."""
    return isinstance(data, Mapping) and isinstance(data.get("traj"), list)


def read(data: Any, key: str | None = None) -> ConversationState:
    """A conversation from a list of messages, or from an object with `messages`.

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    row = {"messages": data} if isinstance(data, list) else object_at(data)
    return grow_list(NAME, read_list(list_field(row, "messages"), "messages"), row, ("messages",))


def read_run(data: Any, key: str | None = None) -> ConversationState:
    """A conversation from a run of tau-bench. Its task and trial name no conversation: every model has the same.

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    return grow_list(TAU_BENCH, read_list(list_field(object_at(data), "traj"), "traj"), data, ("traj",))


def read_messages(rows: Sequence[Row]) -> Joined:
    """The one conversation of a file that is a list of messages; or the reason why it is none."""
    try:
        drafts = [read_message(message, f"{position}: ", str(n)) for n, (position, message) in enumerate(rows)]
        yield rows[0][0], grow_list(NAME, drafts, {}, ())
    except InvalidInputError as error:
        yield rows[0][0], str(error)


def read_list(messages: list[Any], held: str) -> Iterator[Draft]:
    """The messages of a list; `held` names it."""
    return (read_message(message, f"{held}[{number}].", str(number)) for number, message in enumerate(messages))


def read_message(message: Any, where: str, name: str) -> Draft:
    """A message in OpenAI's form; `name` tells it apart from the others of its list.

    Raises:
        InvalidInputError: it cannot be read; `where` says which one.
    """
    left = dict(object_at(message, where))
    said = text_field(left, "role", where)
    if said is None:
        raise InvalidInputError(f"{where}role: expected a string, found nothing")
    if not isinstance(left.get("content"), str | list | None):
        found = type(left["content"]).__name__
        raise InvalidInputError(f"{where}content: expected a text or a list of parts, found {found}")
    role = _ROLES.get(said, said)
    fields: dict[str, Any] = {"role": role}
    fields.update(
        (name, left.pop(name)) for name, kind in _KINDS.items() if name in left and isinstance(left[name], kind)
    )
    if role == said:
        del left["role"]
    if isinstance(content := fields.get("content"), list) and "tool_calls" not in fields:
        calls = [call for part in content for call in _calls(part)]
        if calls:
            left["content"] = content
            fields["content"] = [part for part in content if not _calls(part)] or None
            fields["tool_calls"] = calls
    time = time_if_any(left, "timestamp", "created_at", "create_time")
    draft = Draft(name, LLMMessage.from_dict(fields, where), time, named=False)
    if left:
        draft.metadata["source"] = left
    return draft


def _calls(part: Any) -> list[dict[str, Any]]:
    """The calls that a part of content is, in LLaMA-Factory's form; none for any other part."""
    is_call = isinstance(part, Mapping) and part.get("type") == "tool_call" and isinstance(part.get("value"), str)
    return read_calls(part["value"]) if is_call else []


def read_calls(text: str) -> list[dict[str, Any]]:
    """The calls that a JSON text names, `{"name": …, "arguments": …}` or several; none if it is anything else."""
    try:
        value = parse(text.encode())
    except (InvalidInputError, UnicodeEncodeError):
        return []
    calls = value if isinstance(value, list) else [value]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) and "arguments" in call for call in calls):
        return []
    return [tool_call(call["name"], call["arguments"]) for call in calls]
