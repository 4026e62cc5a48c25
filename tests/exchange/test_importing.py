"""Files go into an archive: what is new, updated, unchanged, renamed and a problem, and what the archive refuses."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3conv import (
    AccessDeniedError,
    Archive,
    ConversationState,
    CorruptError,
    InvalidInputError,
    NotFoundError,
    PartialSaveError,
    StoreError,
)
from s3conv.exchange import importing
from s3conv.exchange.found import Ignored
from s3conv.exchange.importing import ImportOptions, ImportReport, import_files
from s3conv.format.keys import document_key
from s3conv.store.counting import CountingStore
from s3conv.store.memory import MemoryStore
from tests.exchange.chats import branching, chat, place, said
from tests.exchange.every_format import CLAUDE_CODE
from tests.exchange.shared import real_file
from tests.exchange.test_formats import shape


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(f"memory://{tmp_path.name}") as made:
        yield made


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(*conversations: Any, name: str = "export.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(conversations), encoding="utf-8")
        return path

    return write


def counts(report: ImportReport) -> tuple[int, int, int, int, int]:
    return report.new, report.updated, report.unchanged, len(report.renamed), len(report.problems)


def loaded(archive: Archive, conversation_id: str) -> ConversationState:
    state = archive.load(conversation_id)
    assert state is not None
    return state


def test_a_newer_export_of_a_real_account(archive: Archive, tmp_path: Path) -> None:
    full = json.loads(real_file("chatgpt/librechat_chatgpt-export.json").read_text(encoding="utf-8"))
    older = json.loads(json.dumps(full))
    for conversation in older:
        *kept, last = _chain(conversation)
        for name in (last, kept.pop()):
            del conversation["mapping"][name]
        conversation["mapping"][kept[-1]]["children"] = []
        conversation["current_node"] = kept[-1]
        conversation["update_time"] -= 100
    del older[0]["mapping"]  # one that cannot be read this time
    files = [tmp_path / "older.json", tmp_path / "full.json"]
    files[0].write_text(json.dumps(older), encoding="utf-8")
    files[1].write_text(json.dumps(full), encoding="utf-8")

    assert counts(import_files(archive, files[:1])) == (1, 0, 0, 0, 1)
    with archive.edit(full[1]["id"]) as state:
        state.metadata["title"] = "renamed here"
        state.add_message("user", "asked here")
    assert counts(import_files(archive, files[1:])) == (1, 1, 0, 0, 0)
    state = loaded(archive, full[1]["id"])
    assert state.metadata["title"] == "renamed here"
    current = state.get_current_node()
    assert current is not None
    assert current.data.message.content == "asked here"
    messages = sum(node["message"] is not None for node in full[1]["mapping"].values())
    assert len(shape(state)) == messages + 1
    assert len(state.leaves()) == 2
    for _ in range(2):
        assert counts(import_files(archive, files[1:])) == (0, 0, 2, 0, 0)
    assert sorted(entry.revision for entry in archive.iterate()) == [1, 3]


def _chain(conversation: Any) -> list[str]:
    names = [conversation["current_node"]]
    while (parent := conversation["mapping"][names[-1]]["parent"]) is not None:
        names.append(parent)
    return names[::-1]


def test_one_id_for_two_conversations(archive: Archive, write: Any) -> None:
    one = chat({"m1": place(None, said("user", "A", 1.0))})
    other = chat({"m1": place(None, said("user", "B", 2.0))})
    report = import_files(archive, [write(one, other)])
    assert counts(report) == (1, 0, 0, 1, 0)
    ((original, new),) = report.renamed
    assert original == "c"
    assert new.startswith("c~")
    assert len(new) == len("c~") + 12
    assert loaded(archive, new).metadata["source_conversation_id"] == "c"
    assert counts(import_files(archive, [write(one, other)])) == (0, 0, 2, 0, 0)
    # Each alone, and the second with a message more, finds its own.
    assert counts(import_files(archive, [write(other)])) == (0, 0, 1, 0, 0)
    longer = chat({**other["mapping"], "m2": place("m1", said("assistant", "C", 3.0))}, update_time=3000.0)
    assert counts(import_files(archive, [write(longer, one)])) == (0, 1, 1, 0, 0)
    assert len(shape(loaded(archive, new))) == 2


def test_versions_in_one_file_are_one_conversation(archive: Archive, write: Any) -> None:
    report = import_files(archive, [write(*(branching(upto=n) for n in (3, 1, 5, 2)))])
    assert (report.read, counts(report)) == (4, (1, 0, 0, 0, 0))
    assert len(shape(loaded(archive, "c"))) == 5
    assert archive.list().items[0].revision == 1


def test_chunks_do_not_matter(archive: Archive, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "CHUNK", 2)
    path = write(*(branching(upto=n, id=name) for n in (1, 4, 3) for name in "abc"))
    import_files(archive, [path])
    before = {entry.conversation_id: entry.revision for entry in archive.iterate()}
    assert sorted(before) == ["a", "b", "c"]
    assert all(len(shape(loaded(archive, name))) == 4 for name in before)
    report = import_files(archive, [path])
    assert (report.new, report.updated) == (0, 0)
    assert {entry.conversation_id: entry.revision for entry in archive.iterate()} == before


def test_a_deleted_conversation_is_made_again(archive: Archive, write: Any) -> None:
    path = write(branching())
    import_files(archive, [path])
    archive.delete("c")
    assert counts(import_files(archive, [path])) == (1, 0, 0, 0, 0)


def test_the_rest_is_imported_and_what_was_ignored_is_named(archive: Archive, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("conversations.json", json.dumps([branching(), chat({"a": place("b", None)}, id="bad")]))
        made.writestr("chat.html", "")
    report = import_files(archive, [tmp_path / "none", tmp_path / "a.zip"])
    assert counts(report) == (1, 0, 0, 0, 2)
    assert [str(problem) for problem in report.problems] == [
        f"{tmp_path}/none: cannot be read: No such file or directory",
        f"{tmp_path}/a.zip: conversations.json: [1]: message 'a': its parent 'b' is missing",
    ]
    assert report.ignored == [Ignored(f"{tmp_path}/a.zip", "chat.html")]


def test_an_id_that_cannot_be_stored_does_not_stop_the_rest(archive: Archive, write: Any) -> None:
    report = import_files(archive, [write(branching(), branching(id="x" * 2000), branching(id="d"))])
    assert counts(report) == (2, 0, 0, 0, 1)
    assert report.problems[0].position == "[1]"
    assert archive.count() == 2


def test_what_fails_for_one_is_a_problem_and_for_all_an_error(
    archive: Archive, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(branching(), branching(id="d"))

    def refuse(error: Exception) -> Any:
        def save_many(*_: Any, **__: Any) -> None:
            raise error

        return save_many

    one = PartialSaveError("1 of 2", saved=["c"], failed={"d": InvalidInputError("too large")})
    monkeypatch.setattr(archive, "save_many", refuse(one))
    report = import_files(archive, [path])
    assert counts(report) == (1, 0, 0, 0, 1)
    assert str(report.problems[0]) == f"{path}: [1]: too large"
    every = PartialSaveError("0 of 2", saved=[], failed={"c": AccessDeniedError("403"), "d": AccessDeniedError("403")})
    for error in (every, AccessDeniedError("403")):
        monkeypatch.setattr(archive, "save_many", refuse(error))
        with pytest.raises(AccessDeniedError):
            import_files(archive, [path])
    monkeypatch.undo()

    def load_many(ids: Any) -> Iterator[None]:
        for name in ids:
            if name == "d":
                raise CorruptError("damaged")
            yield None

    load = archive.load
    monkeypatch.setattr(archive, "load_many", load_many)
    monkeypatch.setattr(
        archive, "load", lambda name: refuse(CorruptError("d is damaged"))() if name == "d" else load(name)
    )
    report = import_files(archive, [path])
    assert counts(report) == (1, 0, 0, 0, 1)
    assert str(report.problems[0]) == f"{path}: [1]: d is damaged"


class _Refusing(CountingStore):
    """Refuses requests of a kind with an error that says nothing of the key, as S3 does where the clock is wrong."""

    refused = ""
    refused_keys: Collection[str] = ()

    def _count(self, kind: str, *keys: str, written: int = 0) -> None:
        super()._count(kind, *keys, written=written)
        if kind == self.refused or (self.refused_keys and set(keys) & set(self.refused_keys)):
            raise StoreError(f"{kind} was answered 403 RequestTimeTooSkewed: set this machine's clock")


@pytest.mark.parametrize(("kind", "before", "most"), [("get", 0, 1), ("get", 1, 100), ("put", 0, 100), ("put", 1, 150)])
def test_a_store_that_refuses_every_conversation_ends_the_import(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch, kind: str, before: int, most: int
) -> None:
    monkeypatch.setattr(importing, "CHUNK", 50)
    store = _Refusing(MemoryStore(tmp_path.name))
    files = [write(*(branching(id=f"{name}{n}") for n in range(50)), name=f"{name}.json") for name in "abcd"]

    def sources() -> Iterator[Path]:
        for number, file in enumerate(files):
            if number == before:
                store.reset()
                store.refused = kind
            yield file

    Archive.create(store)
    if not before:
        store.refused = kind
    with Archive.open(store) as archive:
        store.reset()
        with pytest.raises(StoreError, match="set this machine's clock"):
            import_files(archive, sources())
        assert sum(store.counts.values()) <= most
        store.refused = ""
        assert archive.count() == 50 * before


def test_what_the_store_refuses_of_some_is_a_problem_of_theirs(tmp_path: Path, write: Any) -> None:
    store = _Refusing(MemoryStore(tmp_path.name))
    with Archive.create(store) as archive:
        ids = [f"c{n}" for n in range(30)]
        store.refused_keys = {document_key(name) for name in ids[::2]}
        report = import_files(archive, [write(*(branching(id=name) for name in ids))])
        assert counts(report) == (15, 0, 0, 0, 15)


def test_an_archive_that_is_not_there(tmp_path: Path, write: Any) -> None:
    with Archive.open(f"memory://{tmp_path.name}-none") as none, pytest.raises(NotFoundError):
        import_files(none, [write(branching())])


def test_a_dry_run_says_what_would_be_and_writes_nothing(archive: Archive, write: Any, tmp_path: Path) -> None:
    import_files(archive, [write(branching(upto=3, id="a"), branching(id="b"))])
    before = {entry.conversation_id: entry.revision for entry in archive.iterate()}
    other = chat({"m1": place(None, said("user", "another", 5.0))}, id="b")
    newer = write(branching(id="a"), branching(id="b"), branching(id="c"), other, {"x": 1})
    dry = import_files(archive, [newer], ImportOptions(dry_run=True))
    assert {entry.conversation_id: entry.revision for entry in archive.iterate()} == before
    assert counts(dry) == counts(import_files(archive, [newer])) == (1, 1, 1, 1, 1)
    for url in (f"memory://{tmp_path.name}-none", f"file://{tmp_path}/none"):
        with Archive.open(url) as none:
            assert counts(import_files(none, [newer], ImportOptions(dry_run=True))) == (3, 0, 0, 1, 1)
    assert not (tmp_path / "none").exists()


def test_metadata_that_is_set(archive: Archive, write: Any) -> None:
    path = write(branching(title="T", nested={"a": 1}), branching(id="d", nested="text"))
    settings = {"source": "chatgpt-2026", "nested.b": [1], "title": None}
    report = import_files(archive, [path], ImportOptions(metadata=settings))
    assert counts(report) == (1, 0, 0, 0, 1)
    assert str(report.problems[0]) == (
        f"{path}: [1]: metadata.nested.b cannot be set: 'nested' has a value that is no object"
    )
    metadata = loaded(archive, "c").metadata
    assert (metadata["source"], metadata["nested"], metadata["title"]) == ("chatgpt-2026", {"a": 1, "b": [1]}, None)
    # As if the file said so: again changes nothing, something else is taken over, and what was changed here stays.
    assert counts(import_files(archive, [path], ImportOptions(metadata=settings))) == (0, 0, 1, 0, 1)
    assert counts(import_files(archive, [path], ImportOptions(metadata={**settings, "source": "x"}))) == (0, 1, 0, 0, 1)
    assert loaded(archive, "c").metadata["source"] == "x"
    with archive.edit("c") as state:
        state.metadata["source"] = "changed here"
    import_files(archive, [path], ImportOptions(metadata=settings))
    assert loaded(archive, "c").metadata["source"] == "changed here"


@pytest.mark.parametrize("chunk", [1, 500])
def test_what_is_imported_for_one_user_changes_nothing_of_anothers(
    tmp_path: Path, write: Any, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Ids that are hashes of what a row says meet across users; so do those that a user may choose."""
    monkeypatch.setattr(importing, "CHUNK", chunk)
    archive = Archive.create(f"memory://{tmp_path.name}-users", partition_by="metadata.user")
    row = {"messages": [{"role": "user", "content": "Hi"}]}
    path = write(row, branching(), name="rows.json")

    def of(user: str) -> list[str]:
        return [entry.conversation_id for entry in archive.iterate({"metadata.user": user})]

    def go(user: str) -> ImportReport:
        return import_files(archive, [path], ImportOptions(metadata={"user": user}))

    assert counts(go("ann")) == (2, 0, 0, 0, 0)
    before = [(name, archive.load(name)) for name in of("ann")]
    for user in ("ben", "cid"):
        assert counts(go(user)) == (0, 0, 0, 2, 0)
        assert len(of(user)) == 2
        assert all(loaded(archive, name).metadata["user"] == user for name in of(user))
    assert [(name, archive.load(name)) for name in of("ann")] == before
    for user in ("ann", "ben", "cid"):
        assert counts(go(user)) == (0, 0, 2, 0, 0)
    assert archive.count() == 6
    # A newer export goes to who it is imported for, and what nobody had is whose it is said to be.
    import_files(archive, [write(branching(id="free"))])
    newer = write(branching(id="free", title="new", update_time=9000.0), branching(title="new", update_time=9000.0))
    assert counts(import_files(archive, [newer], ImportOptions(metadata={"user": "ben"}))) == (0, 2, 0, 0, 0)
    assert loaded(archive, "free").metadata["user"] == "ben"
    assert (len(of("ann")), len(of("ben")), loaded(archive, "c").metadata["title"]) == (2, 3, "T")


def test_a_format_that_is_forced(archive: Archive, write: Any) -> None:
    path = write(branching(), {"messages": [{"role": "user", "content": "Hi"}]})
    report = import_files(archive, [path], ImportOptions(format="openai"))
    assert counts(report) == (1, 0, 0, 0, 1)
    assert report.problems[0].reason == "messages: expected a list, found nothing"
    with pytest.raises(InvalidInputError, match="no format 'x'"):
        import_files(archive, [path], ImportOptions(format="x"))


def test_conversations_without_an_id_are_named_by_what_they_say(archive: Archive, write: Any) -> None:
    row, other = ({"messages": [{"role": "user", "content": text}]} for text in ("Hi", "Hello"))
    path = write(row, other, row, name="rows.json")
    assert counts(import_files(archive, [path])) == (3, 0, 0, 0, 0)
    assert counts(import_files(archive, [path])) == (0, 0, 3, 0, 0)
    # In another file one of them is the first again, and the same one.
    assert counts(import_files(archive, [write(row, name="more.json")])) == (0, 0, 1, 0, 0)
    names = sorted(entry.conversation_id for entry in archive.iterate())
    assert len(names) == 3
    assert sum(name.endswith("~2") for name in names) == 1


def test_a_session_that_went_on_adds_what_is_new(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in CLAUDE_CODE[:4]), encoding="utf-8")
    assert counts(import_files(archive, [path])) == (1, 0, 0, 0, 0)
    assert loaded(archive, "session-1").metadata["trailing_lines"] == [CLAUDE_CODE[3]]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in CLAUDE_CODE[4:])
    assert counts(import_files(archive, [path])) == (0, 1, 0, 0, 0)
    assert counts(import_files(archive, [path])) == (0, 0, 1, 0, 0)
    state = loaded(archive, "session-1")
    assert state.metadata["trailing_lines"] == []
    assert sorted(shape(state)[1:]) == sorted(shape(import_once(path))[1:])
    assert state.metadata["title"] == "Looking at the sky"


def import_once(path: Path) -> ConversationState:
    with Archive.create(f"memory://{path.parent.name}-once") as archive:
        import_files(archive, [path])
        return loaded(archive, "session-1")
