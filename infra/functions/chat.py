"""The chat function: HTTP in front of an archive. What it takes and answers is in docs/serverless-http.md.

    POST   /conversations/{id}/messages   append messages, beginning the conversation if there is none
    GET    /conversations/{id}            ?branch= ?last=
    GET    /conversations                 ?user_id= ?cursor= ?limit=
    DELETE /conversations/{id}

Law: whose conversations these are is told by `tenants`, and every id that the archive is asked for is made there. An
invocation may end anywhere, be frozen and be repeated: what it keeps is one archive and its connections, and what a
message may not be twice has a key. What a conversation says is never logged.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import runtime
from events import Refused, Request, answer, read_request, refusal
from s3conv import (
    Archive,
    ConflictError,
    ConversationState,
    DeadlineExceededError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    StorageError,
    UnavailableError,
)
from tenants import MAX_ID, OWNER, Tenant, UnknownCallerError, tenant_of
from turns import ParentMissing, read_turn, shown_messages, shown_metadata

ATTEMPTS = 4
"""Edits of one conversation that others delete, or begin with another message, meanwhile."""

PAGE, LONGEST_PAGE = 20, 100
"""Conversations on a page, unless told, and at most."""

_log = logging.getLogger("s3conv")

Answer = dict[str, Any]
Left = Callable[[], float]
"""Gives the seconds that the invocation may still use."""

ARCHIVE = runtime.open_archive(runtime.store_options(), activity_window=runtime.activity_window())


def handler(event: Mapping[str, Any], context: runtime.LambdaContext) -> Answer:
    """Answer one HTTP request."""
    try:
        request = read_request(event)
        tenant = tenant_of(event.get("requestContext"))
        return _route(request)(ARCHIVE, tenant, request, lambda: runtime.time_left(context))
    except UnknownCallerError as error:
        return refusal(Refused(403, str(error)))
    except Refused as refused:
        return refusal(refused)
    except StorageError as error:
        return refusal(_refused_by_storage(error))
    except Exception as error:
        # Where it was, but neither message nor values: they may hold what a conversation says.
        place = traceback.extract_tb(error.__traceback__)[-1]
        _log.error("a bug: %s in %s:%s", type(error).__name__, place.filename, place.lineno)
        return refusal(Refused(500, "internal error"))


def _route(request: Request) -> Callable[[Archive, Tenant, Request, Left], Answer]:
    match request.path:
        case ("conversations",):
            methods = {"GET": list_conversations}
        case ("conversations", _):
            methods = {"GET": show, "DELETE": delete}
        case ("conversations", _, "messages"):
            methods = {"POST": append}
        case _:
            raise Refused(404, "there is nothing here: expected /conversations, /conversations/{id} or .../messages")
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise Refused(405, f"expected {allowed}", allow=allowed)
    return methods[request.method]


# --- what can be asked for -----------------------------------------------------------------------------------------


def append(archive: Archive, tenant: Tenant, request: Request, left: Left) -> Answer:
    """Append messages to a conversation, or begin it with them. A repeat changes nothing."""
    request.parameters(())
    conversation_id = _conversation_id(request)
    turn = read_turn(request.json())
    key = request.idempotency_key()
    stored_id = tenant.stored_id(conversation_id)

    def begin() -> ConversationState:
        return ConversationState(stored_id, metadata={**turn.metadata, OWNER: tenant.owner})

    for attempt in range(1, ATTEMPTS + 1):
        # Without a parent it is what is found that says where messages go, and what this process has kept may lack what
        # others have added since.
        fresh = turn.parent is None or attempt > 1
        try:
            with archive.edit(stored_id, begin, fresh=fresh, timeout=left) as state:
                _check_owner(state, tenant)
                appended = turn.append_to(state, key)
            if appended.is_new or (appended.times is None and fresh):
                break
            # A repeat, by what this process has kept or the save has met: the next edit says so of what is stored.
        except ConflictError:
            # Deleted, or begun with another message, by others meanwhile: the next edit finds what they left.
            if attempt == ATTEMPTS:
                raise
        except ParentMissing:
            if fresh:
                raise
    turn.check_said(appended.nodes)
    answered = {"conversation_id": conversation_id, "node_id": appended.nodes[-1].node_id, "appended": appended.is_new}
    return answer(201 if appended.is_new else 200, answered)


def show(archive: Archive, tenant: Tenant, request: Request, left: Left) -> Answer:
    """A conversation, and the messages on the way to one place in it."""
    asked = request.parameters(("branch", "last"))
    last = _number(asked, "last", 10_000)
    conversation_id = _conversation_id(request)
    state = _check_owner(archive.load(tenant.stored_id(conversation_id), timeout=left()), tenant)
    path = shown_messages(state, asked.get("branch"))
    return answer(
        200,
        {
            "conversation_id": conversation_id,
            "created_at": state.created_at.isoformat(),
            "updated_at": state.updated_at.isoformat(),
            "metadata": shown_metadata(state.metadata),
            "current_node_id": state.current_node_id,
            "leaves": [leaf.node_id for leaf in state.leaves()],
            "node_id": path.node_id,
            "message_count": len(path.messages),
            "messages": path.messages[-last:] if last else path.messages,
        },
    )


def list_conversations(archive: Archive, tenant: Tenant, request: Request, left: Left) -> Answer:
    """A page of the tenant's conversations, those first that were changed last."""
    asked = request.parameters(("user_id", "cursor", "limit"))
    where: dict[str, Any] = {runtime.PARTITION_BY: tenant.owner}
    if "user_id" in asked:
        where["metadata.user_id"] = asked["user_id"]
    limit = _number(asked, "limit", LONGEST_PAGE) or PAGE
    try:
        page = archive.list(where, limit=limit, after=asked.get("cursor"), timeout=left())
    except InvalidInputError:
        raise Refused(400, "cursor: expected that of an earlier page of the same list") from None
    items = [
        {
            "conversation_id": entry.conversation_id.removeprefix(tenant.prefix),
            "created_at": entry.created,
            "updated_at": entry.updated,
            "message_count": entry.message_count,
            "metadata": shown_metadata(entry.metadata),
            **({"metadata_truncated": True} if entry.metadata_truncated else {}),
        }
        for entry in page.items
        if entry.conversation_id.startswith(tenant.prefix)  # who writes past this function may name any owner
    ]
    return answer(200, {"conversations": items, "cursor": page.next})


def delete(archive: Archive, tenant: Tenant, request: Request, left: Left) -> Answer:
    """Delete a conversation."""
    request.parameters(())
    stored_id = tenant.stored_id(_conversation_id(request))
    _check_owner(archive.load(stored_id, timeout=left()), tenant)
    if not archive.delete(stored_id, timeout=left()):
        raise _no_conversation()
    return answer(204)


# --- what all of them need -----------------------------------------------------------------------------------------


def _conversation_id(request: Request) -> str:
    conversation_id = request.path[1]
    if not 0 < len(conversation_id.encode()) <= MAX_ID:
        raise Refused(400, f"expected an id of 1 to {MAX_ID} bytes, found {len(conversation_id.encode()):,}")
    return conversation_id


def _check_owner(state: ConversationState | None, tenant: Tenant) -> ConversationState:
    """The stored id is the tenant's; that the metadata says the same is the second lock."""
    if state is None or state.metadata.get(OWNER) != tenant.owner:
        raise _no_conversation()
    return state


def _no_conversation() -> Refused:
    return Refused(404, "there is no such conversation")


def _number(asked: Mapping[str, str], name: str, most: int) -> int | None:
    text = asked.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= most:
        raise Refused(400, f"{name}: expected a whole number from 1 to {most:,}")
    return int(text)


def _refused_by_storage(error: StorageError) -> Refused:
    """What a caller is told of an error of the library: what to do, but nothing of the bucket."""
    if isinstance(error, InvalidInputError):
        return Refused(
            400, "expected what JSON can hold: finite numbers, whole characters, values at most 200 levels deep"
        )
    if isinstance(error, ConflictError):
        return Refused(409, "others changed this conversation again and again: send the same request once more")
    _log.error("%s: %s", type(error).__name__, error)
    if isinstance(error, UnavailableError | DeadlineExceededError | OutcomeUnknownError | NotFoundError):
        # NotFoundError: the archive itself, which the maintenance function makes when it runs for the first time.
        return Refused(
            503,
            "the store did not answer in time: send the same request again, with the same Idempotency-Key",
            retry_after="1",
        )
    return Refused(500, "the conversation could not be read or written")
