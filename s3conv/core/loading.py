"""Load one conversation, or many. One GET each; only a 404 or a tombstone is "not there"."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from s3conv.bridge import ordered_map
from s3conv.core.context import Context
from s3conv.core.known import known_of_document, remember
from s3conv.errors import CorruptError, InvalidInputError
from s3conv.format.document import Document, decode_document
from s3conv.format.keys import document_key
from s3conv.model.state import ConversationState
from s3conv.store.base import StoredObject


async def load(context: Context, conversation_id: str) -> ConversationState | None:
    """Fetch a conversation; see `Archive.load`."""
    key = document_key(conversation_id)
    found = await context.beside_descriptor(context.store.get, key)
    return await _loaded(context, conversation_id, found)


async def load_many(
    context: Context, conversation_ids: Iterable[str]
) -> AsyncGenerator[ConversationState | None, None]:
    """Fetch many conversations, in the order of their ids; see `Archive.load_many`."""
    if isinstance(conversation_ids, str):
        raise InvalidInputError(f"conversation_ids is the string {conversation_ids[:60]!r}: expected a list of ids")
    await context.descriptor()

    async def load_one(conversation_id: str) -> ConversationState | None:
        return await _loaded(context, conversation_id, await context.store.get(document_key(conversation_id)))

    async with aclosing(ordered_map(context.runner, load_one, conversation_ids, context.store.fan_out)) as states:
        async for state in states:
            yield state


async def fetch_document(context: Context, conversation_id: str) -> Document | None:
    """Fetch a document as it lies there, tombstones included; None if there is none."""
    key = document_key(conversation_id)
    found = await context.store.get(key)
    return None if found is None else decode_document(found.body, conversation_id, context.name(key))


async def _loaded(context: Context, conversation_id: str, found: StoredObject | None) -> ConversationState | None:
    if found is None:
        context.kept.edited.saw_none(conversation_id)
        return None
    document = decode_document(found.body, conversation_id, context.name(document_key(conversation_id)))
    if document.deleted:
        context.kept.edited.saw(conversation_id, document.stamp.revision)
        return None
    state = state_of(context, document)
    wall = context.wall_clock()
    known = known_of_document(await context.descriptor(), document, found.etag, found.body, found.date, wall)
    context.kept.edited.keep(known)
    remember(state, known)
    return state


def state_of(context: Context, document: Document) -> ConversationState:
    """The conversation of a document.

    Raises:
        CorruptError: what it holds is not one; names the object and the place in it.
        SchemaVersionError: it was written by a newer MAJOR schema version.
    """
    try:
        return document.state()
    except InvalidInputError as error:
        name = context.name(document_key(document.conversation_id))
        raise CorruptError(f"{name} is not a conversation: {error}") from None
