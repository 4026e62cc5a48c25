"""A reader of format 1, written from docs/format.md alone, with the standard library and zstandard: no s3conv.

It checks whatever the page says and fails loudly. Where it and s3conv do not agree, one of them or the page is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import zstandard

Json = dict[str, Any]
Get = Callable[[str], bytes | None]
"""The body of an object by its key; None: there is none."""

SKIPPABLE = 0x184D2A5E


def canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def unpack(frame: bytes) -> bytes:
    reader = zstandard.ZstdDecompressor().decompressobj()
    text = reader.decompress(frame)
    assert reader.eof
    assert not reader.unused_data
    assert zstandard.get_frame_parameters(frame).has_checksum
    return text


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lookup(metadata: Json, path: str, missing: object = None) -> Any:
    if path in metadata:
        return metadata[path]
    value: Any = metadata
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return missing
        value = value[name]
    return value


def index_time(text: str) -> str:
    time = datetime.fromisoformat(text)
    time = time.astimezone(UTC) if time.tzinfo else time
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


class Reader:
    """An archive, by what gets its objects and lists their keys. All intents count as older than a minute."""

    def __init__(self, get: Get, keys: Callable[[str], list[str]]) -> None:
        self.get, self.keys = get, keys
        descriptor = json.loads(self.body("s3conv.json"))
        assert (descriptor["format"], descriptor["kind"], descriptor["requires"]) == (1, "archive", [])
        self.partition_by: str | None = descriptor["partition_by"]

    def body(self, key: str) -> bytes:
        found = self.get(key)
        assert found is not None, key
        return found

    # --- documents ---------------------------------------------------------------------------------------------------

    def document_key(self, conversation_id: str) -> str:
        encoded = "".join(
            chr(byte) if re.match(r"[A-Za-z0-9_-]", chr(byte)) else f"%{byte:02X}" for byte in conversation_id.encode()
        )
        if len(encoded) > 180:
            encoded = f"{encoded[:100]}~{sha256(conversation_id)}"
        return f"conversations/{sha256(conversation_id)[:2]}/{encoded}.json.zst"

    def document(self, conversation_id: str) -> Json | None:
        """A document or tombstone, as it lies there; with its stored size under "size"."""
        found = self.get(self.document_key(conversation_id))
        if found is None:
            return None
        document: Json = json.loads(unpack(found))
        part = document["s3conv"]
        assert document["conversation_id"] == conversation_id
        assert (part["format"], part["kind"] in ("document", "tombstone")) == (1, True)
        assert part["lineage"][-1] == part["write"]
        assert len(part["lineage"]) == min(part["revision"], 16)
        return {**document, "size": len(found)}

    def all_documents(self) -> Iterator[Json]:
        for key in self.keys("conversations/"):
            conversation_id = json.loads(unpack(self.body(key)))["conversation_id"]
            assert self.document_key(conversation_id) == key
            assert "~" in key or unquote(key.split("/")[2].removesuffix(".json.zst")) == conversation_id
            document = self.document(conversation_id)
            assert document is not None
            yield document

    def entry_of(self, document: Json) -> Json:
        """The entry that a document stands for."""
        deleted = document["s3conv"]["kind"] == "tombstone"
        nodes = document.get("nodes", [])
        parents = [node["parent"] for node in nodes[1:]]
        assert all(parent < position for position, parent in enumerate(parents, 1))
        entry = {
            "conversation_id": document["conversation_id"],
            "revision": document["s3conv"]["revision"],
            "created_at": index_time(document["created_at"]),
            "updated_at": index_time(document["updated_at"]),
            "schema_version": document["schema_version"],
            "message_count": len(nodes),
            "branch_count": len(nodes) - len(set(parents)),
            "size": document["size"],
            **self.fitting(document["metadata"]),
        }
        return {**entry, "deleted": True} if deleted else entry

    def fitting(self, metadata: Json) -> Json:
        if len(canonical(metadata).encode()) <= 8192:
            return {"metadata": metadata}
        path = (self.partition_by or "").removeprefix("metadata.")
        missing = object()
        value = lookup(metadata, path, missing)
        partition = {} if value is missing else {path: value}
        kept = set(partition)
        room = 8192 - (len(canonical(partition).encode()) if partition else 0)
        for name in sorted(metadata.keys() - kept, key=str.encode):
            size = len(canonical({name: metadata[name]}).encode())
            if size <= room:
                kept.add(name)
                room -= size
        fitting = {**{name: metadata[name] for name in metadata if name in kept}, **partition}
        return {"metadata": fitting, "metadata_truncated": True}

    def partition(self, metadata: Json) -> str:
        return canonical(lookup(metadata, self.partition_by.removeprefix("metadata."))) if self.partition_by else "null"

    def sort_key(self, entry: Json) -> tuple[bytes, bytes, bytes]:
        texts = self.partition(entry["metadata"]), entry["created_at"], entry["conversation_id"]
        return texts[0].encode(), texts[1].encode(), texts[2].encode()

    # --- the index ---------------------------------------------------------------------------------------------------

    def manifest(self) -> Json:
        body = self.body("index/manifest.json")
        assert body[-77:] == b',"sha256":"' + hashlib.sha256(body[:-77]).hexdigest().encode() + b'"}'
        manifest: Json = json.loads(body)
        assert (manifest["format"], manifest["kind"]) == (1, "manifest")
        assert len(manifest["tail"]) <= 1
        return manifest

    def blocks(self, body: bytes, named: Json) -> tuple[Json, list[list[bytes]]]:
        """The fence of a blocks file, and the lines of each block; checked against the manifest and the seek table."""
        end, length = named["end"], named["fence_length"]
        assert len(body) == named["size"]
        magic, size = struct.unpack_from("<II", body, end)
        assert (magic, size) == (SKIPPABLE, length - 8)
        fence: Json = json.loads(unpack(body[end + 8 : end + length]))
        assert (fence.pop("format"), fence.pop("kind")) == (1, "fence")
        blocks, at = [], 0
        for stored, rows in zip(fence["lengths"], fence["rows"], strict=True):
            text = unpack(body[at : at + stored])
            assert text.endswith(b"\n")
            blocks.append(text[:-1].split(b"\n"))
            assert len(blocks[-1]) == rows
            at += stored
        assert at == end
        table = body[end + length :]
        assert struct.unpack_from("<II", table) == (SKIPPABLE, len(table) - 8)
        pairs = list(struct.iter_unpack("<II", table[8:-9]))
        sizes = [sum(len(line) + 1 for line in block) for block in blocks]
        assert pairs == [*zip(fence["lengths"], sizes, strict=True), (length, 0)]
        assert struct.unpack("<IBI", table[-9:]) == (len(pairs), 0, 0x8F92EAB1)
        return fence, blocks

    def rows(self, key: str, named: Json) -> list[Json]:
        """All rows of a segment or of `recent`; everything that is said of them is checked."""
        fence, blocks = self.blocks(self.body(key), named)
        found: list[Json] = []
        below: list[list[bytes]] = [[text.encode() for text in key] for key in fence["keys"]]
        assert below == sorted(below)
        assert fence["keys"][0] == [""]
        for number, lines in enumerate(blocks):
            rows = [json.loads(line) for line in lines]
            assert [canonical(row).encode() for row in rows] == lines
            for row in rows:
                key_of_row = list(self.sort_key(row))
                assert key_of_row >= below[number]
                assert number + 1 == len(below) or key_of_row < below[number + 1]
            times = [seconds(row["updated_at"]) for row in rows]
            assert (math.floor(min(times)), math.ceil(max(times))) == (fence["oldest"][number], fence["newest"][number])
            found += rows
        keys = [self.sort_key(row) for row in found]
        assert keys == sorted(set(keys))
        assert len(found) == named["rows"]
        if "first" in named:
            assert [list(keys[0]), list(keys[-1])] == [[t.encode() for t in named[end]] for end in ("first", "last")]
            updated = [row["updated_at"] for row in found]
            assert (min(updated), max(updated)) == (named["oldest"], named["newest"])
            assert named.get("fence", fence) == fence
        return found

    def runs(self, manifest: Json) -> dict[tuple[bytes, bytes, bytes], Json]:
        """The row that counts at each sort key; those that are gone are among them."""
        winners: dict[tuple[bytes, bytes, bytes], Json] = {}
        for run in ("tail", "mid", "base"):
            last = None
            for segment in manifest[run]:
                assert ("fence" in segment) == (run == "tail")
                for row in self.rows(f"index/segments/{segment['name']}.jsonl.zst", segment):
                    key = self.sort_key(row)
                    assert last is None or last < key
                    last = key
                    if key not in winners or row["revision"] > winners[key]["revision"]:
                        winners[key] = row
        return winners

    def log(self, partition: str | None = None) -> dict[str, Json]:
        """What the log says, by id: the newest intent's entry if the document is that write, else the document's."""
        prefix = "index/log/" if partition is None else f"index/log/{sha256(partition)[:4]}/"
        by_id: dict[str, list[Json]] = {}
        for key in self.keys(prefix):
            content = json.loads(unpack(self.body(key)))
            assert (content["format"], content["kind"]) == (1, "batch" if "/batch." in key else "intent")
            for intent in content.get("intents", [content]):
                entry = intent["entry"]
                if content["kind"] == "intent":
                    name = f"{sha256(entry['conversation_id'])[:32]}.{entry['revision']}.{intent['write']}"
                    assert key.split("/")[3] == f"{name}.json.zst"
                old = intent.get("replaces", {}).get("partition")
                pppp = {sha256(one)[:4] for one in (self.partition(entry["metadata"]), old) if one is not None}
                assert key.split("/")[2] in pppp
                by_id.setdefault(entry["conversation_id"], []).append(intent)
        said = {}
        for conversation_id, intents in by_id.items():
            document = self.document(conversation_id)
            if document is None:
                continue
            written = document["s3conv"]["revision"], document["s3conv"]["write"]
            ours = [one["entry"] for one in intents if (one["entry"]["revision"], one["write"]) == written]
            said[conversation_id] = ours[0] if ours else self.entry_of(document)
        return said

    def list(self, partition: str | None = None) -> dict[str, Json]:
        """The entries of all conversations, or of one partition's, by id."""
        log = self.log(partition)
        best: dict[str, Json] = {}
        for row in self.runs(self.manifest()).values():
            known = best.get(row["conversation_id"])
            # A moved row has the revision of the one that it moved to, and shadows only its own key.
            if known is None or (row["revision"], not row.get("moved")) > (known["revision"], not known.get("moved")):
                best[row["conversation_id"]] = row
        for conversation_id, entry in log.items():
            known = best.get(conversation_id)
            if known is None or entry["revision"] > known["revision"]:
                best[conversation_id] = entry
        return {
            conversation_id: entry
            for conversation_id, entry in best.items()
            if not (entry.get("deleted") or entry.get("moved"))
            and (partition is None or self.partition(entry["metadata"]) == partition)
        }
