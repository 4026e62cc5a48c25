"""`ConversationStorage`, the interface of dataknobs' conversation storage, and `S3ConversationStorage`, which keeps it.

Law: code that was written for dataknobs' storage runs on it unchanged, with its own state class if it has one
(anything with `to_dict` and `from_dict`); and what two writers save at once is merged instead of lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Generic, Protocol, Self, TypeVar, cast, overload

import msgspec

from s3conv.archive import Archive, AsyncArchive
from s3conv.core.known import hand_over
from s3conv.errors import InvalidInputError, StorageError
from s3conv.format.entry import Entry, entry_of
from s3conv.format.filters import DEFAULT_ORDER, parse_where
from s3conv.model.state import ConversationState


class StateLike(Protocol):
    """What a state class must offer: the exchange form, out and in."""

    conversation_id: str

    def to_dict(self) -> dict[str, Any]:
        """The exchange form."""
        ...

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the exchange form."""
        ...


S = TypeVar("S", bound=StateLike)

Metadata = dict[str, Any]

ACTIVITY_WINDOW = 60.0
"""Seconds for which an intent speaks for the saves that follow it through the storage (DESIGN.md, section 6)."""


class ConversationStorage(ABC, Generic[S]):
    """Where conversations are kept: dataknobs' abstract interface. Filters on metadata are exact."""

    @classmethod
    @abstractmethod
    async def create(cls, config: dict[str, Any]) -> ConversationStorage[Any]:
        """Make a storage from a configuration."""

    async def close(self) -> None:  # a storage that holds nothing has nothing to do here
        """Release connections."""

    @abstractmethod
    async def save_conversation(self, state: S) -> None:
        """Save a conversation, new or not."""

    @abstractmethod
    async def load_conversation(self, conversation_id: str) -> S | None:
        """Load a conversation; None if there is none."""

    @abstractmethod
    async def delete_conversation(self, conversation_id: str) -> bool:
        """Delete a conversation; False if there is none."""

    @abstractmethod
    async def list_conversations(
        self,
        filter_metadata: Metadata | None = None,
        limit: int = 100,
        offset: int = 0,
        sort_by: str | None = None,
        sort_order: str = "desc",
    ) -> list[S]:
        """The conversations with this metadata."""

    @abstractmethod
    async def search_conversations(
        self,
        content_contains: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        filter_metadata: Metadata | None = None,
        limit: int = 100,
        offset: int = 0,
        sort_by: str = "updated_at",
        sort_order: str = "desc",
    ) -> list[S]:
        """The conversations that meet all that is given."""

    @abstractmethod
    async def delete_conversations(
        self,
        content_contains: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        filter_metadata: Metadata | None = None,
    ) -> list[str]:
        """Delete the conversations that meet all that is given; their ids."""

    @abstractmethod
    async def update_metadata(self, conversation_id: str, metadata: Metadata) -> None:
        """Put this metadata in the place of a conversation's."""

    async def count_conversations(self, filter_metadata: Metadata | None = None) -> int:
        """How many conversations have this metadata; no more than 100,000 are counted, as in dataknobs."""
        return len(await self.list_conversations(filter_metadata, limit=100_000))


class S3ConversationStorage(ConversationStorage[S]):
    """Conversations in an s3conv archive. Takes the place of dataknobs' `DataknobsConversationStorage`.

    Args:
        archive: an open `AsyncArchive`. An `Archive` works too, but blocks the event loop during its requests.
        state_type: the class of the states that are saved and returned: `ConversationState`, or any other with
            `to_dict()` and `from_dict()` of the exchange form, such as dataknobs' own.
        activity_window: as for `Archive.open`, for what is saved through this storage. Such callers save after every
            message; with 0, each of these saves is 2 requests instead of 1, and lists are never behind.

    What the archive knows of a state (which version it is) is noted on the state, so that a save of a loaded state
    costs two requests, and one that meets another writer's is merged with it; the state then holds what came of it.
    """

    @overload
    def __init__(
        self: S3ConversationStorage[ConversationState],
        archive: AsyncArchive | Archive,
        *,
        activity_window: float = ACTIVITY_WINDOW,
    ) -> None: ...

    @overload
    def __init__(
        self, archive: AsyncArchive | Archive, state_type: type[S], activity_window: float = ACTIVITY_WINDOW
    ) -> None: ...

    def __init__(
        self,
        archive: AsyncArchive | Archive,
        state_type: type[Any] = ConversationState,
        activity_window: float = ACTIVITY_WINDOW,
    ) -> None:
        self._archive = archive._asynchronous(activity_window)
        self._state_type: type[S] = state_type

    @overload
    @classmethod
    async def create(cls, config: dict[str, Any]) -> S3ConversationStorage[ConversationState]: ...

    @overload
    @classmethod
    async def create(cls, config: dict[str, Any], state_type: type[S]) -> S3ConversationStorage[S]: ...

    @classmethod
    async def create(
        cls, config: dict[str, Any], state_type: type[Any] = ConversationState
    ) -> S3ConversationStorage[Any]:
        """Open the archive that `config` names, or make it if there is none.

        Args:
            config: `url`; `partition_by`, which an archive that is there already must have, if it is given;
                `activity_window`; and, for `s3://`, the options of `Archive.open`.
            state_type: see the class.

        Raises:
            InvalidInputError: there is no `url`, or an option is not known.
            AlreadyExistsError: the archive that is there has another `partition_by`.
        """
        options = {"exist_ok": True, **config}
        url, partition_by = options.pop("url", None), options.pop("partition_by", None)
        window = options.pop("activity_window", ACTIVITY_WINDOW)
        if not isinstance(url, str):
            raise InvalidInputError("config: expected a 'url', such as 's3://bucket/prefix' or 'file:///folder'")
        return cls(await AsyncArchive.create(url, partition_by=partition_by, **options), state_type, window)

    async def close(self) -> None:
        """Release connections."""
        await self._archive.close()

    async def save_conversation(self, state: S) -> None:
        """Save a conversation, new or not; merged with what another writer saved meanwhile.

        Raises:
            ConflictError: it cannot be merged: it was deleted, or another conversation with this id begins differently.
            StorageError: as for `Archive.save`.
        """
        if isinstance(state, ConversationState):
            await self._archive.save(state, "merge")
            return
        before = state.to_dict()
        ours = ConversationState.from_dict(before)
        hand_over(state, ours)
        try:
            await self._archive.save(ours, "merge")
        finally:
            # Also after an error: a merge may have been made before it, and its outcome may be unknown.
            self._bring_up_to_date(state, before, ours)

    def _bring_up_to_date(self, state: S, before: dict[str, Any], ours: ConversationState) -> None:
        """Let a foreign state hold what a merge made of it, and the note of what it now is.

        Only what the merge changed is set; whatever else its class keeps on it stays.
        """
        after = ours.to_dict()
        if after != ConversationState.from_dict(before).to_dict():
            unmerged, merged = vars(self._read(before)), vars(self._read(after))
            for name, value in merged.items():
                if name not in unmerged or unmerged[name] != value:
                    setattr(state, name, value)
        hand_over(ours, state)

    def _read(self, exchange: dict[str, Any]) -> S:
        try:
            return self._state_type.from_dict(exchange)
        except StorageError:
            raise
        except Exception as error:
            raise StorageError(
                f"conversation {exchange.get('conversation_id')!r} cannot be read by "
                f"{self._state_type.__name__}.from_dict: {type(error).__name__}: {error}"
            ) from error

    def _out(self, state: ConversationState) -> S:
        """A loaded state in the caller's class."""
        if issubclass(self._state_type, ConversationState):
            return cast(S, state)
        foreign = self._read(state.to_dict())
        hand_over(state, foreign)
        return foreign

    async def load_conversation(self, conversation_id: str) -> S | None:
        """Load a conversation; None if there is none."""
        state = await self._archive.load(conversation_id)
        return None if state is None else self._out(state)

    async def delete_conversation(self, conversation_id: str) -> bool:
        """Delete a conversation; False if there is none."""
        return await self._archive.delete(conversation_id)

    async def list_conversations(
        self,
        filter_metadata: Metadata | None = None,
        limit: int = 100,
        offset: int = 0,
        sort_by: str | None = None,
        sort_order: str = "desc",
    ) -> list[S]:
        """The conversations with this metadata. Each meets it as it is given, whatever the index says of it.

        Args:
            filter_metadata: values by key; a key matches exactly first, then as a dotted path.
            limit, offset: which part of the list. Fewer are given where some have changed or gone since it was made.
            sort_by: a field of the index, such as "created_at" or "metadata.title"; "updated_at" if not given.
            sort_order: "asc" or "desc".
        """
        if limit <= 0:
            return []
        where = _where(filter_metadata)
        page = await self._archive.list(where, _order(sort_by, sort_order), limit, offset)
        async with aclosing(self._states(page.items, _wanted(where))) as states:
            return [self._out(state) async for state in states]

    async def count_conversations(self, filter_metadata: Metadata | None = None) -> int:
        """How many conversations have this metadata; opens none."""
        return await self._archive.count(_where(filter_metadata))

    async def search_conversations(
        self,
        content_contains: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        filter_metadata: Metadata | None = None,
        limit: int = 100,
        offset: int = 0,
        sort_by: str = "updated_at",
        sort_order: str = "desc",
    ) -> list[S]:
        """The conversations that meet all that is given, each as it is given.

        Args:
            content_contains: text in any message of any branch, whatever its case; opens the conversations that meet
                the rest, one after the other, until there are enough.
            created_after, created_before: both included; naive ones are read as UTC.
            filter_metadata, limit, offset, sort_by, sort_order: as for `list_conversations`.
        """
        where, order = _where(filter_metadata, created_after, created_before), _order(sort_by, sort_order)
        if limit <= 0:
            return []
        wanted = _wanted(where, content_contains)
        if content_contains is None:
            page = await self._archive.list(where, order, limit, offset)
            async with aclosing(self._states(page.items, wanted)) as states:
                return [self._out(state) async for state in states]
        found: list[S] = []
        entries = [entry async for entry in self._archive.iterate(where, order)]
        async with aclosing(self._states(entries, wanted)) as states:
            async for state in states:
                if offset > 0:
                    offset -= 1
                    continue
                found.append(self._out(state))
                if len(found) == limit:
                    break
        return found

    async def delete_conversations(
        self,
        content_contains: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        filter_metadata: Metadata | None = None,
    ) -> list[str]:
        """Delete the conversations that meet all that is given; returns the ids of those that it deleted.

        Each is looked at before it goes, and stays if it does not meet all of it as it is then.

        Raises:
            InvalidInputError: a `ValueError`: nothing is given, which would mean all of them.
        """
        if not any((content_contains, created_after, created_before, filter_metadata)):
            raise InvalidInputError(
                "delete_conversations: expected at least one filter; without one it would delete every conversation"
            )
        where = _where(filter_metadata, created_after, created_before)
        wanted = _wanted(where, content_contains or None)
        entries = [entry async for entry in self._archive.iterate(where)]
        ids = [entry.conversation_id for entry in entries]
        if content_contains:
            async with aclosing(self._states(entries, wanted)) as states:
                ids = [state.conversation_id async for state in states]
        return [
            conversation_id for conversation_id in ids if await self._archive.delete(conversation_id, only_if=wanted)
        ]

    async def update_metadata(self, conversation_id: str, metadata: Metadata) -> None:
        """Put this metadata in the place of a conversation's.

        Raises:
            NotFoundError: there is no such conversation.
        """
        async with self._archive.edit(conversation_id, fresh=True) as state:
            state.metadata = dict(metadata)

    async def _states(
        self, entries: list[Entry], wanted: Callable[[ConversationState], bool]
    ) -> AsyncGenerator[ConversationState, None]:
        """The conversations of some entries; without those that are not there, or not wanted as they are."""
        async with aclosing(self._archive.load_many(entry.conversation_id for entry in entries)) as states:
            async for state in states:
                if state is not None and wanted(state):
                    yield state


def _where(
    metadata: Mapping[str, Any] | None, created_after: datetime | None = None, created_before: datetime | None = None
) -> dict[str, Any]:
    where: dict[str, Any] = {f"metadata.{name}": {"eq": value} for name, value in (metadata or {}).items()}
    created = {"gte": created_after, "lte": created_before}
    if given := {op: time for op, time in created.items() if time is not None}:
        where["created_at"] = given
    return where


def _wanted(where: dict[str, Any], text: str | None = None) -> Callable[[ConversationState], bool]:
    """Whether a conversation, as it is, meets the conditions of `_where` and has the text in it, if one is given."""
    conditions = parse_where(where)

    def wanted(state: ConversationState) -> bool:
        entry = entry_of(state, 1, 0, None)  # neither revision nor size is asked for
        whole = msgspec.structs.replace(entry, metadata=state.metadata, metadata_truncated=False)
        return conditions.matches(whole) is True and (text is None or _contains_text(state, text))

    return wanted


def _order(sort_by: str | None, sort_order: str) -> str:
    if sort_order not in ("asc", "desc"):
        raise InvalidInputError(f"sort_order {sort_order!r}: expected 'asc' or 'desc'")
    field = sort_by if sort_by is not None else DEFAULT_ORDER.removeprefix("-")
    return f"-{field}" if sort_order == "desc" else field


def _contains_text(state: ConversationState, text: str) -> bool:
    needle = text.lower()
    return any(
        needle in said.lower() for place in state.message_tree.walk() for said in _texts(place.data.message.content)
    )


def _texts(content: str | list[Any] | None) -> list[str]:
    """What is said in words in a message: its text, or the texts among its parts."""
    if not isinstance(content, list):
        return [content] if content else []
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    return [part for part in parts if isinstance(part, str)]
