"""One conversation as a Markdown file: for people, with any editor.

Law: every branch is there, once, and each message stays whole and its own: a text that would swallow what comes after
it (an open fence, an open comment) is put into a fence, which no text in it can close. What is left out is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from markdown_it import MarkdownIt

from s3conv.exchange.pieces import (
    Attachment,
    Call,
    Code,
    Piece,
    Prose,
    Result,
    Thought,
    argument_texts,
    as_json,
    read_node,
    title_of,
)
from s3conv.exchange.prose import is_readable, printable
from s3conv.exchange.stretches import Stretch, stretches
from s3conv.exchange.values import is_told
from s3conv.model.message import ConversationNode
from s3conv.model.state import ConversationState

_ROLES = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool"}
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~&!$]")
_RUNS = re.compile(r"`+")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,100}")
_YAML_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_MAY_STAY_OPEN = re.compile("```|~~~|<")
_END = "End of the text"


def conversation_markdown(state: ConversationState, *, details: bool = False) -> str:
    """A conversation as one Markdown file.

    Args:
        state: the conversation.
        details: with the metadata of each message, and the fields that have no other place; else the front matter
            says how many messages have some.

    Returns:
        YAML front matter, then the messages: the current branch first, the others after it, linked where they begin.

    Raises:
        InvalidInputError: a value in it is no JSON value, which cannot happen to one that was loaded.
    """
    found = stretches(state)
    blocks = [block for stretch in found for block in _stretch(stretch, details)]
    text = "\n\n".join([_front_matter(state, found, details), f"# {_escaped(title_of(state))}", *blocks])
    return printable(text) + "\n"


def _front_matter(state: ConversationState, found: list[Stretch], details: bool) -> str:
    facts: dict[str, Any] = {
        "conversation_id": state.conversation_id,
        "created_at": state.created_at.isoformat(),
        "updated_at": state.updated_at.isoformat(),
        "messages": found[-1].last_message if found else 0,
        "branches": sum(not stretch.below for stretch in found),
    }
    left = sum(bool(read_node(place.data).beside) for stretch in found for place in stretch.nodes)
    if left and not details:
        facts["not_shown"] = f"metadata of {left} message{'s' * (left != 1)}"
    lines = ["---", *(f"{name}: {_yaml(value)}" for name, value in facts.items())]
    for name, values in (("metadata", state.metadata), ("more", state.extra)):
        if values:
            lines += [f"{name}:", *(f"  {_yaml_key(key)}: {_yaml(value)}" for key, value in values.items())]
    return "\n".join([*lines, "---"])


def _yaml(value: Any) -> str:
    """A JSON value on one line; YAML's flow style is JSON, but for characters that YAML wants escaped."""
    as_json(value)  # refuses, by name, what is no JSON value
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(value, ensure_ascii=False))


def _yaml_key(key: str) -> str:
    if _PLAIN_KEY.fullmatch(key) and key.lower() not in _YAML_WORDS:
        return key
    return f"? {_yaml(key)}\n  " if len(key) > 100 else _yaml(key)


def _stretch(stretch: Stretch, details: bool) -> Iterator[str]:
    above = stretch.above
    if above is not None:
        yield (
            f'---\n\n<a id="part-{stretch.number}"></a>**Branch {stretch.position + 1} of {len(above.below)}** '
            f"after [message {above.last_message}](#message-{above.last_message})"
        )
    for place in stretch.nodes:
        anchor = f'<a id="message-{stretch.last_message}"></a>' if place.children and place is stretch.nodes[-1] else ""
        yield from _message(place.data, anchor, details)
    if stretch.below:
        links = ", ".join(f"[{_branch_name(below)}](#part-{below.number})" for below in stretch.below)
        yield f"*Here the conversation branches: {links}.*"


def _branch_name(stretch: Stretch) -> str:
    name = stretch.nodes[0].data.branch_name
    return f"{stretch.position + 1}{f' {_escaped(name)}' if name else ''}{' (current)' if stretch.on_show else ''}"


def _message(node: ConversationNode, anchor: str, details: bool) -> Iterator[str]:
    said = read_node(node)
    role = node.message.role
    yield f"## {_ROLES.get(role) or _escaped(role) or 'No role'}"
    facts = [node.timestamp.isoformat(sep=" ")] if is_told(node.timestamp) else []
    told = {piece.name for piece in said.pieces if isinstance(piece, Result)}
    facts += [_escaped(text) for text in (node.message.name, said.model) if text and text not in told]
    if node.branch_name:
        facts.append(f"branch {_escaped(node.branch_name)}")
    if anchor or facts:
        yield f"{anchor}*{' · '.join(facts)}*" if facts else anchor
    blocks = [block for piece in said.pieces for block in _piece(piece)]
    yield from blocks or ["*A place without a message*" if said.synthetic else "*No text*"]
    if details and said.beside:
        yield f"<details><summary>Details</summary>\n\n{_fenced(as_json(said.beside), 'json')}\n\n</details>"


def _piece(piece: Piece) -> Iterator[str]:
    match piece:
        case Prose(text):
            if text := printable(text).strip("\n"):
                yield text if _ends(text) else _fenced(text)
        case Code(text, language):
            yield _fenced(text, language)
        case Thought(text):
            yield "\n".join(f"> {line}".rstrip() for line in ["**Thoughts**", "", *printable(text).split("\n")])
        case Call(name, arguments, call_id):
            yield f"**Calls {_code(name)}**{_call_id(call_id)}"
            yield from _arguments(arguments)
        case Result(name, call_id, pieces, failed):
            what = "Failed result" if failed else "Result"
            yield f"**{what}{f' of {_code(name)}' if name else ''}**{_call_id(call_id)}"
            for one in pieces:
                yield from [_fenced(one.text)] if isinstance(one, Prose) else _piece(one)
        case Attachment():
            yield _attachment(piece)
        case _:
            yield f"**{_escaped(piece.kind)}**"
            yield _fenced(as_json(piece.value), "json")


def _arguments(arguments: Any) -> Iterator[str]:
    if not isinstance(arguments, dict):
        yield _fenced(arguments) if isinstance(arguments, str) else _fenced(as_json(arguments), "json")
        return
    short, long = argument_texts(arguments)
    if short:
        yield "\n".join(f"- {_code(name)}: {_code(text)}" for name, text in short.items())
    for name, text in long.items():
        yield f"{_code(name)}:"
        yield _fenced(text)


def _call_id(call_id: str | None) -> str:
    return f" · call {_code(call_id)}" if call_id else ""


def _attachment(attachment: Attachment) -> str:
    facts = [f"**{_escaped(attachment.kind.capitalize())}**"]
    facts += [_code(text) for text in (attachment.name, attachment.media_type) if text]
    if attachment.data is not None:
        facts.append(f"{len(attachment.data) * 3 // 4:,} bytes, which are in the archive and not in this file")
    elif attachment.url is not None:
        facts.append(_code(attachment.url))
    return " · ".join(facts)


def _escaped(text: str) -> str:
    """A text as itself, on one line of Markdown."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _code(text: str) -> str:
    """A text in a fixed pitch, on one line."""
    text = " ".join(printable(text).splitlines()) if text.strip() else repr(text)
    ticks = "`" * (1 + max(map(len, _RUNS.findall(text)), default=0))
    return f"{ticks} {text} {ticks}" if text[0] in "` " or text[-1] in "` " else f"{ticks}{text}{ticks}"


def _fenced(text: str, language: str = "") -> str:
    """A text in a fence that is longer than any in it."""
    text = printable(text)
    ticks = "`" * max(3, 1 + max(map(len, _RUNS.findall(text)), default=0))
    info = " ".join(language.replace("`", "").split())
    return f"{ticks}{info}\n{text}\n{ticks}"


@cache
def _commonmark() -> MarkdownIt:
    return MarkdownIt("commonmark").disable("inline")


def _ends(text: str) -> bool:
    """Whether a heading after this text, and a blank line, is read as one."""
    if not _MAY_STAY_OPEN.search(text):
        return True
    if not is_readable(text):
        return False
    tokens = _commonmark().parse(f"{text}\n\n# {_END}")
    return (
        len(tokens) >= 3 and tokens[-3].type == "heading_open" and tokens[-2].content == _END and not tokens[-3].level
    )
