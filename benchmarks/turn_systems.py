"""What `turn.py` compares, each behind the same three methods, and the process that it is asked in.

Law: a system gets what its own documentation shows, and nothing is set that the others do not have: the server's
address and the credentials come from the environment. What is counted is counted by the server. boto3 is imported
beforehand by all, and what a system imports itself too: importing is measured apart (`import_time.py`).

Run by itself it obeys lines of JSON on standard input, and answers each with one: milliseconds, and what was read.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import boto3  # noqa: F401  # who imports it late, as s3conv does, is not to do so in the measured time
import botocore.config  # noqa: F401  # the same

sys.path.insert(0, str(Path(__file__).parents[1]))

from s3conv import Archive, ConversationState

CONVERSATION = "conversation-1"
SYSTEM = "You are a helpful assistant."
WINDOW = 300.0
"""Seconds; long enough that a slow machine does not leave it between two turns."""


class Chat(Protocol):
    """One conversation in the hands of one process."""

    def open(self) -> None:
        """What a function does when it is called: make the client, fetch what is there."""

    def say(self, question: str, answer: str) -> None:
        """One turn: both messages, saved. Right after `open`, on what that fetched; later, as a warm function does."""

    def texts(self) -> list[str]:
        """All messages, fetched anew."""


class LoadAndSave:
    """s3conv, with `load` and `save`."""

    def __init__(self, bucket: str) -> None:
        self._url = f"s3://{bucket}/chats"
        self._state: ConversationState | None = None

    def open(self) -> None:
        """See `Chat`."""
        self._archive = Archive.open(self._url, auto_maintain=False)
        self._state = self._load()

    def say(self, question: str, answer: str) -> None:
        """See `Chat`."""
        state = self._state or self._load()
        state.add_message("user", question)
        state.add_message("assistant", answer)
        self._archive.save(state, on_conflict="merge")
        self._state = None

    def texts(self) -> list[str]:
        """See `Chat`."""
        return _texts(self._load())

    def _load(self) -> ConversationState:
        return self._archive.load(CONVERSATION) or _new()


class Edit:
    """s3conv, with `edit`."""

    window = 0.0

    def __init__(self, bucket: str) -> None:
        self._url = f"s3://{bucket}/chats"
        self._editing: AbstractContextManager[ConversationState] | None = None

    def open(self) -> None:
        """See `Chat`."""
        self._archive = Archive.open(self._url, auto_maintain=False, activity_window=self.window)
        self._begin()

    def say(self, question: str, answer: str) -> None:
        """See `Chat`."""
        if self._editing is None:
            self._begin()
        assert self._editing is not None
        self._state.add_message("user", question)
        self._state.add_message("assistant", answer)
        self._editing.__exit__(None, None, None)
        self._editing = None

    def texts(self) -> list[str]:
        """See `Chat`."""
        return _texts(self._archive.load(CONVERSATION))

    def _begin(self) -> None:
        # By hand, as two writers are to be between the two at once.
        self._editing = self._archive.edit(CONVERSATION, create=_new)
        self._state = self._editing.__enter__()


class EditInWindow(Edit):
    """The same, in an activity window."""

    window = WINDOW


def _new() -> ConversationState:
    return ConversationState.start(CONVERSATION, system=SYSTEM, metadata={"user_id": "alice"})


def _texts(state: ConversationState | None) -> list[str]:
    """What user and assistant said, in all branches."""
    assert state is not None
    assert state.message_tree is not None
    messages = (tree.data.message for tree in state.message_tree.walk())
    return [str(message.content) for message in messages if message.role != "system"]


class _Strands:
    """strands-agents: an agent whose model gives the answers that it is told, and a session manager."""

    def __init__(self, bucket: str) -> None:
        import strands
        import strands.agent.conversation_manager
        import strands.session.s3_session_manager
        import strands.storage

        self._strands, self._bucket, self._model = strands, bucket, _model()

    def manager(self) -> Any:
        """The session manager, as it fetches what it fetches."""
        raise NotImplementedError

    def open(self) -> None:
        """See `Chat`."""
        self._agent = self._strands.Agent(
            model=self._model,
            system_prompt=SYSTEM,
            session_manager=self.manager(),
            agent_id="agent",
            conversation_manager=self._strands.agent.conversation_manager.NullConversationManager(),  # else it loads 40
            callback_handler=None,  # else it prints the answers
        )

    def say(self, question: str, answer: str) -> None:
        """See `Chat`."""
        self._model.answer = answer
        self._agent(question)

    def texts(self) -> list[str]:
        """See `Chat`."""
        self.open()
        return [str(message["content"][0]["text"]) for message in self._agent.messages]


class StrandsSessions(_Strands):
    """An object for each message."""

    def manager(self) -> Any:
        """See `_Strands`."""
        make = self._strands.session.s3_session_manager.S3SessionManager
        return make(session_id=CONVERSATION, bucket=self._bucket, prefix="chats")


class StrandsSnapshots(_Strands):
    """One object, written whole, without a condition."""

    def manager(self) -> Any:
        """See `_Strands`."""
        storage = self._strands.storage.S3Storage(self._bucket, prefix="chats")
        return self._strands.session.SnapshotSessionManager(CONVERSATION, storage=storage)


def _model() -> Any:
    from strands.models import Model

    class Told(Model):  # type: ignore[misc]  # of an environment that mypy does not see
        """A model that says what it was told, at once."""

        answer = ""

        def update_config(self, **_: Any) -> None: ...

        def get_config(self) -> dict[str, Any]:
            return {}

        def structured_output(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

        async def stream(self, *_: Any, **__: Any) -> AsyncGenerator[dict[str, Any], None]:
            yield {"messageStart": {"role": "assistant"}}
            yield {"contentBlockStart": {"start": {}}}
            yield {"contentBlockDelta": {"delta": {"text": self.answer}}}
            yield {"contentBlockStop": {}}
            yield {"messageStop": {"stopReason": "end_turn"}}

    return Told()


OURS: dict[str, Callable[[str], Chat]] = {
    "s3conv, load and save": LoadAndSave,
    "s3conv, edit": Edit,
    "s3conv, edit in an activity window": EditInWindow,
}
PEERS: dict[str, Callable[[str], Chat]] = {
    "strands-agents, S3SessionManager": StrandsSessions,
    "strands-agents, snapshot and S3Storage": StrandsSnapshots,
}


def peers() -> dict[str, Callable[[str], Chat]]:
    """Those that are installed here."""
    return PEERS if importlib.util.find_spec("strands") else {}


def main() -> None:
    name, bucket = sys.argv[1:]
    make = {**OURS, **PEERS}[name]
    chat = make(bucket)
    for line in sys.stdin:
        task, *arguments = json.loads(line)
        if task == "anew":
            chat = make(bucket)
            task = "open"
        began = time.perf_counter()
        said = getattr(chat, task)(*arguments)
        print(json.dumps([(time.perf_counter() - began) * 1000, said]), flush=True)


if __name__ == "__main__":
    main()
