"""What a message says, as a list of pieces to show: prose, code, thoughts, calls, results, attachments, JSON.

Law: everything that a message holds is in a piece or, if it is not worth a reader's eye, in `beside`; nothing is
dropped. The forms of parts are those of OpenAI, Anthropic, ChatGPT's export, LLaMA-Factory and coding agents; one of
no known form is shown as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.growing import SYNTHETIC
from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState

_TOOL_ROLES = frozenset(("tool", "function", "observation", "toolResult", "tool_result"))
_SHORT = 200
"""Characters up to which an argument of a call takes a line and no block."""
_CODE = frozenset(("code", "execution_output"))
_SPACE = re.compile(r"\s+")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)((?:;[\w.+-]+=[^;,]*)*);base64,", re.ASCII)


@dataclass(frozen=True, slots=True)
class Prose:
    """A text for people, mostly in Markdown."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A text for machines, and its language if it is known."""

    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class Thought:
    """What a model thought before it answered."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool. `arguments` are an object, or the text (or other JSON) that the model gave instead."""

    name: str
    arguments: Any
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool answered; `failed` if it says that it could not do what it was asked."""

    name: str | None
    call_id: str | None
    pieces: tuple[Piece, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or file. `data` is base64, of `media_type`; `url` is where it lies if it is not in the message."""

    kind: str
    name: str = ""
    media_type: str = ""
    data: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """Anything else, and what kind of thing it says that it is."""

    kind: str
    value: Any


Piece = Prose | Code | Thought | Call | Result | Attachment | Value


@dataclass(frozen=True, slots=True)
class Said:
    """A message to show.

    Args:
        pieces: what it says, in its order.
        model: the model that said it, if it is known.
        synthetic: it only holds the tree together, and is no message of the source.
        beside: everything else that the node holds, as an object of JSON values; empty if there is nothing.
    """

    pieces: tuple[Piece, ...]
    model: str | None = None
    synthetic: bool = False
    beside: dict[str, Any] = field(default_factory=dict)


def read_node(node: ConversationNode) -> Said:
    """What a node says. Its role, name, time and branch name are not among it."""
    message = node.message
    metadata = dict(node.metadata)
    left: list[Any] = []
    pieces = _read_content(message.content, left)
    if pieces and _content_type(metadata) in _CODE:
        pieces = [Code(piece.text) if isinstance(piece, Prose) else piece for piece in pieces]
    calls = [_read_call(call, left) for call in message.tool_calls or ()]
    if message.function_call is not None:
        calls.append(_read_call(message.function_call, left))
    from_tool = message.role in _TOOL_ROLES
    if from_tool:
        pieces = [Result(message.name, message.tool_call_id, tuple(pieces))]
    model = metadata.pop("model") if isinstance(metadata.get("model"), str) else None
    synthetic = metadata.get(SYNTHETIC) is True and message.content is None
    beside = {
        "prompt_name": node.prompt_name,
        "tool_call_id": None if from_tool else message.tool_call_id,
        "metadata": metadata,
        "message_metadata": message.metadata,
        "message_fields": message.extra,
        "node_fields": node.extra,
        "content": left,
    }
    return Said((*pieces, *calls), model, synthetic, {name: value for name, value in beside.items() if value})


def title_of(state: ConversationState) -> str:
    """The title of a conversation on one line, or its id."""
    title = state.metadata.get("title")
    return (" ".join(title.split()) if isinstance(title, str) else "") or state.conversation_id


def first_words(state: ConversationState, limit: int) -> str:
    """The beginning of the first thing that a user says (or anybody, if no user does), on one line."""
    if not state.leaves():
        return ""
    begins = ""
    for place in state.message_tree.walk():
        text = line_of(place.data.message, limit)
        if text and place.data.message.role == "user":
            return text
        if text and not begins and place.data.message.role != "system":
            begins = text
    return begins


def line_of(message: LLMMessage, limit: int) -> str:
    """The beginning of what a message says, on one line of at most `limit` characters."""
    parts = message.content if isinstance(message.content, list) else [message.content]
    texts = (part.get("text", part.get("value")) if isinstance(part, dict) else part for part in parts)
    said = " ".join(text[: limit * 4] for text in texts if isinstance(text, str))
    line = " ".join(said[: limit * 4].split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def argument_texts(arguments: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """The arguments of a call, texts as they are and all else as JSON: those of one short line, and the others."""
    texts = {name: value if isinstance(value, str) else as_json(value) for name, value in arguments.items()}
    short = {name: text for name, text in texts.items() if len(text) <= _SHORT and "\n" not in text}
    return short, {name: text for name, text in texts.items() if name not in short}


def is_result(message: LLMMessage) -> bool:
    """Whether a message is what a tool answered, whoever sends it."""
    content = message.content
    first = content[0] if isinstance(content, list) and content else None
    return message.role in _TOOL_ROLES or (isinstance(first, dict) and first.get("type") == "tool_result")


def as_json(value: object) -> str:
    """A JSON value, to read.

    Raises:
        InvalidInputError: it has no JSON form, which no value of a stored conversation is.
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"a value cannot be shown: {error}: it has to be a JSON value") from None


def _read_content(content: Any, left: list[Any]) -> list[Piece]:
    parts = content if isinstance(content, list) else [] if content is None or content == "" else [content]
    return [_read_part(part, left) for part in parts]


def _read_part(part: Any, left: list[Any], nested: bool = False) -> Piece:
    """The piece that a part is; what of the part is not in the piece is added to `left`."""
    piece: Piece
    inner: dict[Any, Any] = {}
    rest: dict[Any, Any] = {}
    match part:
        case str(text):
            piece = Prose(text)
        case {"type": "thinking", "thinking": str(text), **rest}:
            piece = Thought(text)
        case {"type": "reasoning", "text": str(text), **rest} | {"type": "reasoning", "value": str(text), **rest}:
            piece = Thought(text)
        case {"content_type": "reasoning_recap", "content": str(text), **rest}:
            piece = Thought(text)
        case {"content_type": "thoughts", "thoughts": [{"content": str()}, *_] as thoughts, **rest} if all(
            isinstance(one, dict) and isinstance(one.get("content"), str) for one in thoughts
        ):
            piece = Thought("\n\n".join(_thought(one) for one in thoughts))
            left += [more for one in thoughts if (more := {k: one[k] for k in one if k not in ("summary", "content")})]
        case {"content_type": "code", "text": str(text), **rest}:
            language = rest.pop("language", "")
            piece = Code(text, language if isinstance(language, str) and language != "unknown" else "")
        case {"type": "tool_use", "name": str(), "input": _} | {"type": "toolCall", "name": str(), "arguments": _}:
            return _read_call(part, left)
        case {"type": "tool_result", "content": content, **rest} if not nested:
            name, call_id, failed = rest.get("name"), rest.get("tool_use_id"), rest.get("is_error") is True
            parts = content if isinstance(content, list) else [] if content is None else [content]
            inner_pieces = tuple(_read_part(one, left, nested=True) for one in parts)
            name, call_id = (one if isinstance(one, str) else None for one in (name, call_id))
            rest = _without(rest, name=name, tool_use_id=call_id, is_error=failed)
            piece = Result(name, call_id, inner_pieces, failed)
        case {"type": "image_url" | "input_image", "image_url": {"url": str(url), **inner}, **rest}:
            piece = _at("image", url)
        case {"type": "image_url" | "input_image", "image_url": str(url), **rest}:
            piece = _at("image", url)
        case {
            "type": "image" | "document" as kind,
            "source": {"type": "base64", "media_type": str(media_type), "data": str(data), **inner},
            **rest,
        }:
            piece = Attachment(_kind(kind), _take_name(rest), media_type, data)
        case {
            "type": "image" | "document" as kind,
            "source": {"type": "url", "url": str(url), **inner},
            **rest,
        }:
            piece = _at(_kind(kind), url, _take_name(rest))
        case {"type": "image" | "audio" as kind, "data": str(data), "mimeType": str(media_type), **rest}:
            piece = Attachment(kind, _take_name(rest), media_type, data)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(form), **inner}, **rest}:
            piece = Attachment("audio", "", f"audio/{form}", data)
        case {"type": "file", "file": {"file_data": str(url), **inner}, **rest}:
            piece = _at("file", url, _take_name(inner))
        case {"content_type": "image_asset_pointer", "asset_pointer": str(url), **rest}:
            piece = Attachment("image", url=url)
        case {"text": str(text), **rest} | {"type": "text", "value": str(text), **rest}:
            rest = _without(rest, type="text")
            piece = Prose(text)
        case {}:
            rest = {}  # a case above may have taken it apart and refused it
            kind = part.get("type", part.get("content_type"))
            piece = Value(kind if isinstance(kind, str) else "part", part)
        case _:
            piece = Value("part", part)
    left += [fields for fields in (rest, inner) if fields]
    return piece


def _read_call(call: Any, left: list[Any]) -> Piece:
    outer: dict[Any, Any] = {}
    inner: dict[Any, Any]
    match call:
        case {"function": {"name": str(name), **inner}, **outer}:
            pass
        case {"name": str(name), **inner}:
            pass
        case _:
            return Value("call", call)
    field_name = next((key for key in ("arguments", "input", "parameters", "args") if key in inner), None)
    arguments = inner.pop(field_name) if field_name is not None else {}
    call_id = outer.get("id", inner.get("id"))
    call_id = call_id if isinstance(call_id, str) else None
    kind = outer.get("type", inner.get("type"))
    kind = kind if kind in ("function", "tool_use", "toolCall") else None
    left += [fields for one in (outer, inner) if (fields := _without(one, id=call_id, type=kind))]
    return Call(name, _parsed(arguments), call_id)


def _parsed(arguments: Any) -> Any:
    """The object that a text of arguments says, if it would be written so again; else the text."""
    if not isinstance(arguments, str) or not arguments.lstrip().startswith("{"):
        return arguments
    try:
        value = json.loads(arguments)
        ways = {_SPACE.sub("", json.dumps(value, ensure_ascii=ascii_only)) for ascii_only in (False, True)}
    except (ValueError, RecursionError):
        return arguments
    return value if _SPACE.sub("", arguments) in ways else arguments


def _thought(one: dict[str, Any]) -> str:
    summary, content = one.get("summary"), str(one["content"])
    return f"**{summary}**\n\n{content}" if summary else content


def _content_type(metadata: Mapping[str, Any]) -> str | None:
    """What ChatGPT's export calls the message's content, as the importer has kept it."""
    match metadata.get("source"):
        case {"content": {"content_type": str(kind)}}:
            return kind
    return None


def _at(kind: str, url: str, name: str = "") -> Attachment:
    if found := _DATA_URL.match(url):
        return Attachment(kind, name, found[1], url[found.end() :])
    return Attachment(kind, name, url=url)


def _kind(kind: str) -> str:
    return "image" if kind == "image" else "file"


def _take_name(fields: dict[Any, Any]) -> str:
    """The name of a file, on one line; taken out of the part's fields if it is shown as it is."""
    for key in ("filename", "name", "title"):
        if isinstance(name := fields.get(key), str):
            shown = " ".join(name.split())
            if shown == name:
                del fields[key]
            return shown
    return ""


def _without(rest: Mapping[Any, Any], **known: Any) -> dict[str, Any]:
    """What is left but for fields that have the value that is shown, or that says nothing."""
    return {name: value for name, value in rest.items() if name not in known or value != known[name]}
