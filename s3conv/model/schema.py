"""Schema versions of a conversation, and the steps that lift an older one to today's.

Law: versions are MAJOR.MINOR.PATCH and compare as number triples. What is older is migrated step by step; a newer
MINOR or PATCH is kept as it is, version included, since it only adds; a newer MAJOR is refused. A migration never
changes the dict that it is given. Migrations touch only what the exchange form and the stored form have in common.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from s3conv.errors import InvalidInputError, SchemaVersionError

SCHEMA_VERSION = "1.1.0"
"""The version that s3conv writes."""

UNVERSIONED = "0.0.0"
"""What a conversation without the field `schema_version` is taken for."""

Version = tuple[int, int, int]
Migration = Callable[[dict[str, Any]], dict[str, Any]]

_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")
_MIGRATIONS: dict[Version, tuple[Version, Migration]] = {}


def shown(value: object) -> str:
    """A value for an error message: a text or number, cut to 60 characters; of anything else the type only.

    The `repr` of a hostile value may be longer than memory, or nested more deeply than the stack allows.
    """
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else f"{value[:59]}…")
    return repr(value)[:60] if value is None or isinstance(value, bool | int | float) else type(value).__name__


def parse_version(text: object) -> Version:
    """Read "MAJOR.MINOR.PATCH".

    Raises:
        SchemaVersionError: it is anything else.
    """
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise SchemaVersionError(
            f"schema_version {shown(text)} is not a version: expected MAJOR.MINOR.PATCH, as in '1.1.0'"
        )
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch)


def check_version(text: object, conversation_id: object) -> Version:
    """The version of a conversation, if this s3conv can read it.

    Raises:
        SchemaVersionError: it is of a newer MAJOR, or is no version.
    """
    version, (readable, _, _) = parse_version(text), parse_version(SCHEMA_VERSION)
    if version[0] > readable:
        raise SchemaVersionError(
            f"conversation {shown(conversation_id)} has schema_version {text}; this s3conv reads up to {readable}.x: "
            "upgrade s3conv to read it"
        )
    return version


def migration(from_version: str, to_version: str) -> Callable[[Migration], Migration]:
    """Register a function as the step from one version (and all after it, up to the next) to another."""

    def register(step: Migration) -> Migration:
        _MIGRATIONS[parse_version(from_version)] = (parse_version(to_version), step)
        return step

    return register


def migrate(conversation: Mapping[str, Any]) -> dict[str, Any]:
    """A conversation in today's schema: a shallow copy, changed where a step changes it.

    Raises:
        SchemaVersionError: its version is of a newer MAJOR, or is no version.
    """
    result = dict(conversation)
    version = check_version(result.get("schema_version", UNVERSIONED), result.get("conversation_id"))
    current = parse_version(SCHEMA_VERSION)
    if version >= current:
        return result
    for start in sorted(_MIGRATIONS):
        target, step = _MIGRATIONS[start]
        if version < target <= current:
            result = step(result)
    result["schema_version"] = SCHEMA_VERSION
    return result


@migration("0.0.0", "1.0.0")
def _name_the_version(conversation: dict[str, Any]) -> dict[str, Any]:
    return conversation


@migration("1.0.0", "1.1.0")
def _lift_tool_calls(conversation: dict[str, Any]) -> dict[str, Any]:
    """1.0.0 writers dropped tool calls from the message and left a copy in the node's metadata."""
    nodes = conversation.get("nodes")
    if not isinstance(nodes, list):
        raise InvalidInputError(f"nodes: expected a list, found {type(nodes).__name__}")
    conversation["nodes"] = [_lifted(node) for node in nodes]
    return conversation


def _lifted(node: Any) -> Any:
    if not isinstance(node, dict):
        return node  # reported, with its place, by whoever reads the nodes
    message, metadata = node.get("message"), node.get("metadata")
    if not isinstance(message, dict) or not isinstance(metadata, dict):
        return node
    # What is of another type is no backup, but the writer's own, and would make the message unreadable.
    lifted = {
        field: metadata[field]
        for field, kind in (("tool_calls", list), ("function_call", dict))
        if field not in message and isinstance(metadata.get(field), kind)
    }
    return {**node, "message": {**message, **lifted}} if lifted else node
