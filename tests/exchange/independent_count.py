"""What the files of ../shared/data hold, counted from the raw JSON alone.

Law: nothing of s3conv is imported here. Each conversation is a bag of paths: a message's path is what is said from the
first message down to it, so that two conversations with equal bags have the same messages, edges and branches.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Path_ = tuple[tuple[str, str], ...]
"""(role, content as JSON), from the first message down."""


@dataclass
class Counted:
    """The conversations of a file by their id in the source, and the names of those that are malformed."""

    conversations: list[tuple[str | None, Counter[Path_]]] = field(default_factory=list)
    malformed: list[str] = field(default_factory=list)


def count_file(path: Path) -> Counted:
    """What is in a file of oasst/, chatgpt/ or dataknobs/."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read("conversations.json").decode()
    elif path.suffix == ".gz":
        text = gzip.decompress(path.read_bytes()).decode()
    else:
        text = path.read_text(encoding="utf-8")
    if path.parent.name == "dataknobs":
        return _count_dataknobs([json.loads(line) for line in text.splitlines()])
    if path.suffix == ".gz":
        return _count_oasst_trees([json.loads(line) for line in text.splitlines()])
    if path.parent.name == "oasst":
        return _count_oasst_list(json.loads(text))
    return _count_chatgpt(json.loads(text))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _paths(
    messages: dict[str, tuple[str, str]], parents: dict[str, str | None], root: Path_ = ()
) -> Counter[Path_] | None:
    """The bag of paths; None if there is a cycle or a parent that is not there."""
    found: Counter[Path_] = Counter()
    for name in messages:
        path: list[tuple[str, str]] = []
        step: str | None = name
        seen = set()
        while step is not None:
            if step in seen or step not in parents:
                return None
            seen.add(step)
            if step in messages:
                path.append(messages[step])
            step = parents[step]
        found[(*root, *reversed(path))] += 1
    return found


def _chatgpt_content(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    if isinstance(content.get("parts"), list):
        parts = content["parts"]
        is_text = content.get("content_type", "text") == "text" and len(parts) == 1 and isinstance(parts[0], str)
        return parts[0] if is_text else parts
    return content["text"] if isinstance(content.get("text"), str) else [content]


def _count_chatgpt(data: Any) -> Counted:
    counted = Counted()
    if isinstance(data, dict) and "mapping" in data:
        data = [data]
    named = data.items() if isinstance(data, dict) else ((None, one) for one in data)
    for key, conversation in named:
        mapping = conversation["mapping"]
        parents: dict[str, str | None] = {name: node.get("parent") for name, node in mapping.items()}
        messages = {
            name: (node["message"]["author"]["role"], _dump(_chatgpt_content(node["message"]["content"])))
            for name, node in mapping.items()
            if node.get("message")
        }
        paths = _paths(messages, parents)
        if paths is None:
            counted.malformed.append(str(key))
        else:
            name = conversation.get("conversation_id") or conversation.get("id") or key
            counted.conversations.append((name, paths))
    return counted


def _count_oasst_trees(trees: list[Any]) -> Counted:
    counted = Counted()
    for tree in trees:
        found: Counter[Path_] = Counter()

        def visit(message: Any, above: Path_, found: Counter[Path_] = found) -> None:
            path = (*above, (message["role"].replace("prompter", "user"), _dump(message["text"])))
            found[path] += 1
            for reply in message["replies"]:
                visit(reply, path)

        visit(tree["prompt"], ())
        counted.conversations.append((tree["message_tree_id"], found))
    return counted


def _count_oasst_list(rows: list[Any]) -> Counted:
    parents = {row["user_message_id"]: row["parent_message_id"] for row in rows}
    said = {row["user_message_id"]: (row["role"].replace("prompter", "user"), _dump(row["text"])) for row in rows}
    trees: defaultdict[str, list[str]] = defaultdict(list)
    for name in parents:
        top = name
        while parents[top] is not None:
            top = parents[top]
        trees[top].append(name)
    counted = Counted()
    for top, members in trees.items():
        paths = _paths({name: said[name] for name in members}, parents)
        assert paths is not None
        counted.conversations.append((top, paths))
    return counted


def _count_dataknobs(documents: list[Any]) -> Counted:
    """Documents are versions of one conversation if they share id and first message (with its time)."""
    counted = Counted()
    merged: dict[tuple[str, str], Counter[Path_]] = {}
    for document in documents:
        if document.get("schema_version", "0").split(".")[0] not in ("0", "1"):
            counted.malformed.append(document["conversation_id"])
            continue
        parents: dict[str, str | None] = {"": None}
        parents.update((child, parent) for parent, child in document["edges"])
        messages = {}
        for node in document["nodes"]:
            message = node["message"]
            # Writers of 1.0.0 left the calls in the node's metadata; the documented migration lifts them.
            beside = node["metadata"] if document.get("schema_version") == "1.0.0" else {}
            calls = [message.get(name) or beside.get(name) for name in ("tool_calls", "function_call")]
            content = _dump([message.get("content"), node["timestamp"], *calls])
            messages[node["node_id"]] = (message["role"], content)
        paths = _paths(messages, parents)
        assert paths is not None
        first = _dump(messages[""])
        known = merged.setdefault((document["conversation_id"], first), Counter())
        merged[document["conversation_id"], first] = known | paths
    counted.conversations = [(name, paths) for (name, _), paths in merged.items()]
    return counted


def count_export(lines: list[str], *, with_times: bool) -> list[tuple[str, Counter[Path_]]]:
    """The same of s3conv's JSON lines: the id that each conversation came with, and its paths."""
    counted = []
    for line in lines:
        document = json.loads(line)
        parents = {str(n): str(node["parent"]) if n else None for n, node in enumerate(document["nodes"])}
        messages = {}
        for n, node in enumerate(document["nodes"]):
            if node.get("metadata", {}).get("synthetic") is True:
                continue
            message = node["message"]
            content: Any = message.get("content")
            if with_times:
                content = [content, node["timestamp"], message.get("tool_calls"), message.get("function_call")]
            messages[str(n)] = (message["role"], _dump(content))
        paths = _paths(messages, parents)
        assert paths is not None
        counted.append((document["metadata"].get("source_conversation_id", document["conversation_id"]), paths))
    return counted
