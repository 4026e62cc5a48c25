"""ChatGPT conversations made for tests."""

from __future__ import annotations

from typing import Any


def said(role: str, text: str, time: float | None = None, **more: Any) -> dict[str, Any]:
    """A message."""
    return {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}, "create_time": time, **more}


def place(parent: str | None, message: dict[str, Any] | None, children: list[str] | None = None) -> dict[str, Any]:
    """A place in a mapping."""
    made: dict[str, Any] = {"parent": parent, "message": message}
    return made if children is None else {**made, "children": children}


def chat(mapping: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A conversation."""
    return {"id": "c", "title": "T", "create_time": 1000.0, "update_time": 2000.0, "mapping": mapping, **more}


def branching(*, upto: int = 5, **more: Any) -> dict[str, Any]:
    """root → q → a1, a2 → q2 → a3; of its five messages the first `upto`, as an export made earlier would have them."""
    names = ["q", "a1", "a2", "q2", "a3"][:upto]
    parents = {"q": "root", "a1": "q", "a2": "q", "q2": "a2", "a3": "q2"}
    mapping = {"root": place(None, None, ["q"])}
    for number, name in enumerate(names):
        children = [child for child in names if parents[child] == name]
        role = "user" if name.startswith("q") else "assistant"
        mapping[name] = place(parents[name], said(role, f"text of {name}", 1000.0 + number), children)
    return chat(mapping, **{"current_node": names[-1], "update_time": 2000.0 + upto, **more})
