"""`s3conv show`: a conversation as lines of text, its branches drawn.

Law: one pass without recursion, and output that grows with the text: a linear chat is not indented however long it
is, indentation stops growing at some depth, and only ids that are short are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from s3conv.cli.output import crop, printable, short_time, title_of
from s3conv.exchange.values import is_told
from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState
from s3conv.model.tree import Tree

_LINES = 6
_WIDTH = 160
_LEVELS = 24
"""Levels of branches that are indented; deeper ones stay at this indentation."""
_LONGEST_ID = 60

_ROLES = {"user": "bold cyan", "assistant": "bold green", "system": "bold magenta", "tool": "bold yellow"}

Node = Tree[ConversationNode]


def conversation_lines(state: ConversationState, full: bool = False) -> Iterator[Text]:
    """The lines that show a conversation: what it is, then its messages, the branches of one below another.

    Args:
        state: the conversation.
        full: whole contents, instead of their first lines.
    """
    yield from _head(state)
    current = state.get_current_node()
    on_path = {id(node) for node in current.get_path()} if current is not None else set()
    waiting: list[tuple[Node, str, str, str | None, int]] = [(state.message_tree, "", "", "", 0)]
    while waiting:
        node, first, rest, node_id, level = waiting.pop()
        yield Text((rest if first == rest else f"{first[:-3]}│").rstrip())
        begins_branch = node.parent is not None and len(node.parent.children) > 1
        yield _headline(node, first, node_id if begins_branch else None, node is current, id(node) in on_path)
        for text, style in _body(node.data.message, full):
            yield Text.assemble(rest, "  ", (text, style))
        children = node.children
        branching = len(children) > 1
        for position in range(len(children) - 1, -1, -1):
            ours, below = rest, rest
            if branching and level < _LEVELS:
                last = position == len(children) - 1
                ours, below = rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  ")
            child_id = None if node_id is None else f"{node_id}.{position}".removeprefix(".")
            if child_id is not None and len(child_id) > _LONGEST_ID:
                child_id = None
            waiting.append((children[position], ours, below, child_id, level + branching))


def _head(state: ConversationState) -> Iterator[Text]:
    messages = leaves = 0
    for node in state.message_tree.walk():
        messages += 1
        leaves += not node.children
    yield Text.assemble((printable(state.conversation_id), "bold"))
    if title := title_of(state.metadata):
        yield Text(f"title     {crop(title, _WIDTH)}")
    if isinstance(model := state.metadata.get("model"), str):
        yield Text(f"model     {crop(printable(model), _WIDTH)}")
    for what, time in (("created", state.created_at), ("updated", state.updated_at)):
        yield Text(f"{what}   {f'{short_time(time)} UTC' if is_told(time) else 'not known'}")
    yield Text(f"messages  {messages:,} in {leaves:,} branch{'es' * (leaves != 1)}")


def _headline(node: Node, first: str, node_id: str | None, is_current: bool, on_path: bool) -> Text:
    data = node.data
    line = Text.assemble(
        first, "* " if on_path else "  ", (printable(data.message.role), _ROLES.get(data.message.role, "bold"))
    )
    if data.message.name:
        line.append(f" {crop(printable(data.message.name), 60)}")
    if is_told(data.timestamp):
        line.append(f"  {short_time(data.timestamp)}", "dim")
    if isinstance(model := data.metadata.get("model"), str):
        line.append(f"  {crop(printable(model), 60)}", "dim")
    if data.branch_name:
        line.append(f"  branch {crop(printable(data.branch_name), 60)}", "dim")
    if node_id is not None:
        line.append(f"  [{node_id}]", "dim")
    if data.metadata.get("synthetic") is True:
        line.append("  (synthetic)", "dim")
    if is_current:
        line.append("  <- current", "bold")
    return line


def _body(message: LLMMessage, full: bool) -> Iterator[tuple[str, str]]:
    """The lines of a message with their styles."""
    for part in _parts(message.content):
        yield from _excerpt(part, full, "")
    if message.tool_call_id:
        yield crop(f"answers call {printable(message.tool_call_id)}", _WIDTH), "dim"
    calls: list[Any] = [*(message.tool_calls or ()), *((message.function_call,) if message.function_call else ())]
    for call in calls:
        yield from _excerpt(f"calls {_call(call)}", full, "yellow")


def _excerpt(text: str, full: bool, style: str) -> Iterator[tuple[str, str]]:
    lines = printable(text, lines=True).split("\n")
    for line in lines if full else lines[:_LINES]:
        yield (line if full else crop(line, _WIDTH)), style
    if not full and len(lines) > _LINES:
        more = len(lines) - _LINES
        yield f"… {more:,} more line{'s' * (more != 1)}", "dim"


def _parts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else [] if content in (None, "") else [content]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]
        else:
            kind = part.get("type") or part.get("content_type") if isinstance(part, dict) else None
            yield f"[{kind if isinstance(kind, str) else 'part'}] {json.dumps(part, ensure_ascii=False)}"


def _call(call: Any) -> str:
    inner = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return json.dumps(call, ensure_ascii=False)
    arguments = inner.get("arguments", inner.get("parameters", ""))
    return f"{inner['name']}({arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)})"
