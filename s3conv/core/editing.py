"""Edit: load a conversation, let the caller change it, save it merged."""

from __future__ import annotations

from collections.abc import Callable

from s3conv.core.context import Context
from s3conv.core.known import recall
from s3conv.core.loading import load
from s3conv.core.saving import save
from s3conv.errors import InvalidInputError, NotFoundError
from s3conv.format.codec import to_json
from s3conv.format.document import decode_document, state_to_stored
from s3conv.model.state import ConversationState


async def begin(
    context: Context, conversation_id: str, create: ConversationState | Callable[[], ConversationState] | None
) -> ConversationState:
    """The conversation to edit; see `Archive.edit`."""
    state = await load(context, conversation_id)
    if state is not None:
        return state
    if create is None:
        raise NotFoundError(
            f"there is no conversation {conversation_id!r} in {context.store.url}: check the id, or pass create="
        )
    state = create() if callable(create) else create
    if state.conversation_id != conversation_id:
        raise InvalidInputError(
            f"edit of conversation {conversation_id!r}: create gave a state with the id {state.conversation_id!r}"
        )
    return state


async def finish(context: Context, state: ConversationState) -> None:
    """Save it, merged with what others saved meanwhile; no request if nothing was changed."""
    conversation_id = state.conversation_id
    known = recall(state, await context.descriptor(), conversation_id)
    if known is not None and not known.is_new and not known.attempts:
        before = decode_document(known.body, conversation_id, "the version that was loaded").line
        if before == to_json(state_to_stored(state), f"conversation {conversation_id!r}"):
            return
    await save(context, state, "merge")
