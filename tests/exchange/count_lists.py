"""What the files of ../shared/data in lists, blocks and sessions hold, counted from the raw JSON alone.

Law: as for `independent_count`: nothing of s3conv is imported here, and a conversation is a bag of paths. What is said
at one place is its role, texts, other parts and calls, so that calls are accounted for by name and arguments. A path is
a hash of all that is said down to its end: those of a long session, spelled out, are a gigabyte.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Said = tuple[str, list[Any], list[Any]]
"""The role, the parts and the calls of a message."""


@dataclass
class Talk:
    """A conversation: the hashes of its paths, and how many calls it makes."""

    paths: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def add(self, above: str, said: Said) -> str:
        """Add a message below the one that ends the path `above`; return its own."""
        role, parts, calls = said
        text = json.dumps([above, role, [_text(part) for part in parts], calls], sort_keys=True, ensure_ascii=False)
        path = hashlib.sha256(text.encode()).hexdigest()
        self.paths[path] += 1
        self.calls += len(calls)
        return path

    def key(self) -> str:
        """The same for equal conversations."""
        return repr((sorted(self.paths.items()), self.calls))


FOLDERS = ("agent", "claude", "sharegpt")
_CLAUDE_ROLES = {"human": "user"}
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
_SMILE_ROLES = {"client": "user", "counselor": "assistant"}
_SPEAKERS = {"agent1": "assistant", "agent2": "user"}


def count_list_file(path: Path) -> list[tuple[str | None, Talk]]:
    """The conversations of a file of agent/, claude/ or sharegpt/: their ids in the source, where they have any."""
    if path.name.endswith(".tar.gz"):
        with tarfile.open(path) as archive:
            bodies = [archive.extractfile(member) for member in archive.getmembers() if member.isfile()]
            talks = [json.loads(body.read()) for body in bodies if body is not None]
        return [(None, _chain((_SMILE_ROLES[turn["role"]], [turn["content"]], []) for turn in talk)) for talk in talks]
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    if path.name.startswith("pi_"):
        return [_count_pi([json.loads(line) for line in text.splitlines()])]
    values = [json.loads(line) for line in text.splitlines() if line] if ".jsonl" in path.name else json.loads(text)
    if isinstance(values, dict):
        values = values.get("conversations", [values])
    return [_count(value) for value in values]


def count_list_export(lines: list[str]) -> list[tuple[str, Talk]]:
    """The same of s3conv's JSON lines."""
    counted = []
    for line in lines:
        document = json.loads(line)
        paths: list[str] = []
        talk = Talk()
        for node in document["nodes"]:
            above = paths[node["parent"]] if node.get("parent") is not None else ""
            if node["metadata"].get("synthetic") is True:
                paths.append(above)
                continue
            message = node["message"]
            content = message.get("content")
            said = content if isinstance(content, list) else [] if content is None else [content]
            calls = [call["function"] for call in message.get("tool_calls") or ()]
            known = [[call["name"], json.loads(call["arguments"])] for call in calls]
            paths.append(talk.add(above, (message["role"], said, known)))
        counted.append((document["conversation_id"], talk))
    return counted


def _text(part: Any) -> Any:
    """The text of a part that is only a text, in the forms of Anthropic and of LLaMA-Factory."""
    if isinstance(part, dict) and part.get("type") == "text" and len(part) == 2:
        return next((part[name] for name in ("text", "value") if isinstance(part.get(name), str)), part)
    return part


def _chain(messages: Iterable[Said]) -> Talk:
    talk, path = Talk(), ""
    for said in messages:
        path = talk.add(path, said)
    return talk


def _count(value: Any) -> tuple[str | None, Talk]:
    if "chat_messages" in value:
        return value["uuid"], _chain(map(_claude, value["chat_messages"]))
    if "conversations" in value:
        return value.get("id"), _chain(map(_sharegpt, value["conversations"]))
    if "history" in value:
        turns = [
            (role, pair[name]) for pair in value["history"] for name, role in (("user", "user"), ("bot", "assistant"))
        ]
        return None, _chain((role, [text], []) for role, text in turns)
    if "utterances" in value:
        return None, _chain((_SPEAKERS[speaker], [text], []) for speaker, text in value["utterances"])
    return None, _chain(map(_openai, value["traj"] if "traj" in value else value["messages"]))


def _claude(message: Any) -> Said:
    content = message.get("content") or message["text"]
    blocks = [content] if isinstance(content, str) else content
    calls = [
        [block["name"], block["input"]] for block in blocks if isinstance(block, dict) and block["type"] == "tool_use"
    ]
    said = [block for block in blocks if isinstance(block, str) or block["type"] != "tool_use"]
    return _CLAUDE_ROLES.get(message["sender"], message["sender"]), said, calls


def _sharegpt(turn: Any) -> Said:
    role = _SHAREGPT_ROLES[turn["from"]]
    if turn["from"] == "function_call":
        call = json.loads(turn["value"])
        arguments = call["arguments"]
        return role, [], [[call["name"], json.loads(arguments) if isinstance(arguments, str) else arguments]]
    return role, [turn["value"]], []


def _openai(message: Any) -> Said:
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [content]
    inline = [json.loads(part["value"]) for part in parts if isinstance(part, dict) and part["type"] == "tool_call"]
    said = [part for part in parts if not (isinstance(part, dict) and part["type"] == "tool_call")]
    calls = [
        [call["function"]["name"], json.loads(call["function"]["arguments"])] for call in message.get("tool_calls", ())
    ]
    return message["role"], said, [*calls, *([call["name"], call["arguments"]] for call in inline)]


def _count_pi(entries: list[Any]) -> tuple[str | None, Talk]:
    header, *rest = entries
    return header["id"], _chain(_pi(entry["message"]) for entry in rest if entry["type"] == "message")


def _pi(message: Any) -> Said:
    if message["role"] == "bashExecution":
        return message["role"], [message["output"]], []
    calls = [[block["name"], block["arguments"]] for block in message["content"] if block["type"] == "toolCall"]
    said = [block for block in message["content"] if block["type"] != "toolCall"]
    return message["role"].replace("toolResult", "tool"), said, calls
