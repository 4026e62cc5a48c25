"""Scanning: reading every document, many at a time, and saying of each what it says or why it cannot be read.

Law: documents are read here and never written. One that cannot be read is a difference, not the end of the scan.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import NamedTuple

from s3conv.bridge import ordered_map
from s3conv.core.comparing import Difference, Said, difference, said_by
from s3conv.core.context import Context
from s3conv.core.inspecting import Part
from s3conv.core.log import pages
from s3conv.errors import CorruptError, InvalidInputError, SchemaVersionError, UnsupportedFormatError
from s3conv.format.document import decode_document
from s3conv.format.keys import CONVERSATIONS, MAX_ENCODED_ID, document_key
from s3conv.model.schema import shown

_NAME = re.compile(rf"conversations/[0-9a-f]{{2}}/[A-Za-z0-9_%~-]{{1,{MAX_ENCODED_ID}}}\.json\.zst")

RESTORE = "restore it from a backup or an older version of the object"


class Scanned(NamedTuple):
    """What lies under a key of `conversations/`: what it says, or what is wrong with it; neither if it is gone."""

    key: str
    said: Said | None = None
    difference: Difference | None = None


async def scan(context: Context, part: Part, partition_by: str | None) -> AsyncGenerator[list[Scanned], None]:
    """All documents of a part of the conversations, in the order of their keys, some hundred at a time."""
    after = f"{CONVERSATIONS}{part.low:02x}/" if part.low else ""
    end = f"{CONVERSATIONS}{part.high:02x}/" if part.high < 256 else None
    async with aclosing(pages(context, CONVERSATIONS, after)) as listed:
        async for page in listed:
            keys = [one.key for one in page.objects if end is None or one.key < end]
            yield await read_documents(context, keys, partition_by)
            if len(keys) < len(page.objects):
                return


async def read_documents(context: Context, keys: Iterable[str], partition_by: str | None) -> list[Scanned]:
    """What lies under some keys, in their order."""

    async def read(key: str) -> Scanned:
        return await read_document(context, key, partition_by)

    async with aclosing(ordered_map(context.runner, read, keys, context.store.fan_out)) as answers:
        return [scanned async for scanned in answers]


async def read_document(context: Context, key: str, partition_by: str | None) -> Scanned:
    """What lies under one key. Every part of it is decoded."""
    name = context.name(key)
    if not _NAME.fullmatch(key):
        return Scanned(key, difference=difference("stray-object", name, "no document has such a name; remove it"))
    found = await context.store.get(key)
    if found is None:
        return Scanned(key)
    conversation_id = None
    try:
        document = decode_document(found.body, None, name)
        conversation_id = document.conversation_id
        if (right := document_key(conversation_id)) != key:
            what = f"it holds conversation {shown(conversation_id)}, whose document belongs at {right}; {RESTORE}"
            return Scanned(key, difference=difference("misplaced-document", name, what))
        return Scanned(key, said_by(document, partition_by, found.date))
    except (UnsupportedFormatError, SchemaVersionError) as error:
        return Scanned(key, difference=difference("newer-format", name, error, conversation_id))
    except (CorruptError, InvalidInputError) as error:
        what = f"{str(error).removeprefix(name).lstrip(' :')}; {RESTORE}"
        return Scanned(key, difference=difference("damaged-document", name, what, conversation_id))
