"""The commands, run as a user runs them: what they print, where, and with which exit code."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from rich.cells import cell_len

import s3conv
from s3conv import Archive, ConversationState
from tests.exchange.chats import branching, chat, place, said
from tests.servers.place import Place

RUN = [sys.executable, "-W", "error", "-c", "from s3conv.cli import main; main()"]
ROOT = Path(__file__).parents[2]


class Done(subprocess.CompletedProcess[bytes]):
    """What a command printed, as text."""

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3CONV_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "100", **more}


def run(*arguments: str | Path, code: int = 0, **more: Any) -> Done:
    """Run a command in pipes; it must end with `code` and without a traceback."""
    variables = environment(**more.pop("env", {}))
    done = subprocess.run(
        [*RUN, *map(str, arguments)], env=variables, timeout=120, check=False,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )  # fmt: skip
    result = Done(done.args, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in result.err, result.err
    assert result.returncode == code, result.err
    return result


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """An archive with three conversations."""
    folder = tmp_path / "chats"
    with Archive.create(f"file://{folder}", partition_by="metadata.user_id") as archive:
        for name, user, texts in (("one", "alice", 2), ("two", "bob", 3), ("three", "alice", 4)):
            state = ConversationState.start(name, system="Hello", metadata={"user_id": user, "title": f"About {name}"})
            for n in range(texts):
                state.add_message("user", f"text {n}")
            archive.save(state)
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    def export(*conversations: Any) -> Path:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(conversations), encoding="utf-8")
        return path

    return export


def test_the_main_job(tmp_path: Path, export: Callable[..., Path]) -> None:
    url = f"file://{tmp_path}/a"
    assert run("init", url, "--partition-by", "metadata.user_id").out == f"made the archive {url}\n"
    done = run("import", url, export(branching()))
    assert done.out == "1 new, 0 updated, 0 unchanged, 0 under a new id, 0 could not be read\n"
    assert done.err == ""
    listed = run("list", url)
    assert re.search(r"^c +1970-01-01 00:33 +5 +2 .* T *$", listed.out, re.MULTILINE)
    assert "text of a3" in run("show", url, "c").out
    assert len(run("export", url).out.splitlines()) == 1
    assert run("delete", url, "c").out == "deleted c\n"
    assert run("list", url, "--count").out == "0\n"


def test_import_says_what_became_of_it_as_json(tmp_path: Path, export: Callable[..., Path]) -> None:
    run("init", tmp_path / "a")
    file = export(branching(), {"no": "conversation"})
    for options, numbers in (("--dry-run",), (1, 0, 0, True)), ((), (1, 0, 0, False)), ((), (0, 0, 1, False)):
        said = json.loads(run("import", tmp_path / "a", file, "--json", *options, code=1).out)
        assert (said["new"], said["updated"], said["unchanged"], said["dry_run"]) == numbers
        (problem,) = said["problems"]
        assert (problem["file"], problem["position"]) == (str(file), "[1]")
        assert said["renamed"] == said["ignored"] == []


def test_a_plain_path_is_a_folder(tmp_path: Path) -> None:
    assert run("init", "chats here", cwd=tmp_path).out == f"made the archive file://{tmp_path}/chats%20here\n"
    assert (tmp_path / "chats here" / "s3conv.json").exists()
    assert run("list", tmp_path / "chats here", "--count").out == "0\n"


def test_s3_with_options_and_with_the_environment(
    s3_client: Any,
    s3_keys: dict[str, str],
    s3_place: Place,
    export: Callable[..., Path],
) -> None:
    endpoint, region = s3_client.meta.endpoint_url, s3_client.meta.region_name
    url = f"{s3_place.url}/prefix"
    given = ("--endpoint-url", endpoint, "--region", region, "--addressing-style", "path")
    keys = dict(s3_keys)
    run("init", url, *given, env=keys)
    keys |= {"S3CONV_ENDPOINT_URL": endpoint, "S3CONV_REGION": region, "S3CONV_ADDRESSING_STYLE": "path"}
    run("import", url, export(branching()), env=keys)
    assert run("list", url, "--count", env=keys).out == "1\n"
    missing = run("list", "s3://not-there-at-all-7d1e04b6/x", env=keys, code=1)
    assert missing.err.startswith("s3conv: ")
    assert "not-there-at-all-7d1e04b6" in missing.err
    assert "no usable credentials" in run("list", url, *given, env={"AWS_CONFIG_FILE": "/dev/null"}, code=1).err
    assert "profile 'nobody'" in run("list", url, *given, "--profile", "nobody", env=keys, code=1).err


def test_options_for_s3_in_the_environment_do_not_disturb_other_archives(chats: Path) -> None:
    assert run("list", chats, "--count", env={"S3CONV_REGION": "eu-west-1", "S3CONV_PROFILE": "nobody"}).out == "3\n"


def test_list_filters_orders_and_pages(chats: Path) -> None:
    def listed(*options: str) -> list[str]:
        return [json.loads(line)["conversation_id"] for line in run("list", chats, "--json", *options).out.splitlines()]

    assert listed() == ["three", "two", "one"]
    assert listed("--order", "conversation_id") == ["one", "three", "two"]
    assert listed("--where", "metadata.user_id=alice", "--where", "message_count>3") == ["three"]
    assert listed("--where", "metadata.title~=two", "--where", "updated_at>2020-01-01") == ["two"]
    assert listed("--limit", "1", "--offset", "1") == ["two"]
    first = run("list", chats, "--limit", "2", "--json")
    assert first.err.startswith("more: --after ")
    assert listed("--limit", "2", "--after", first.err.split()[-1]) == ["one"]
    assert listed("--limit", "0") == ["three", "two", "one"]
    entry = json.loads(run("list", chats, "--where", "conversation_id=one", "--json").out)
    assert set(entry) == {"conversation_id", "revision", "created_at", "updated_at", "schema_version", "message_count",
                          "branch_count", "size", "metadata"}  # fmt: skip
    nothing = run("list", chats, "--where", "metadata.user_id=carol")
    assert (nothing.out, nothing.err) == ("", "no conversations\n")
    assert run("list", chats, "--count", "--where", "metadata.user_id=alice").out == "2\n"


def test_show_prints_the_stored_form(chats: Path, tmp_path: Path) -> None:
    line = run("show", chats, "one", "--json").out
    (tmp_path / "line").write_text(line, encoding="utf-8")
    assert line in run("export", chats).out
    run("init", tmp_path / "b")
    run("import", tmp_path / "b", tmp_path / "line")
    assert run("export", tmp_path / "b").out == line


def test_import_reports_what_could_not_be_read(tmp_path: Path, export: Callable[..., Path]) -> None:
    run("init", tmp_path / "a")
    path = export(
        branching(),
        chat({"x": place("gone", None)}, id="bad"),
        chat({"m": place(None, said("user", "another"))}),
        {"\x1b[2Jkey": {"mapping": 3}},
    )
    done = run("import", tmp_path / "a", path, tmp_path / "none", code=1)
    assert done.err.splitlines() == [
        f"{path}: [1]: message 'x': its parent 'gone' is missing",
        f"{path}: [3]: \\x1b[2Jkey: mapping: expected an object, found int",
        f"{tmp_path}/none: cannot be read: No such file or directory",
    ]
    renamed, summary = done.out.splitlines()
    assert renamed.startswith("c is another conversation in this archive: imported as c~")
    assert summary == "1 new, 0 updated, 0 unchanged, 1 under a new id, 3 could not be read"


def test_export_is_complete_or_absent(chats: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    done = run("export", chats, "--where", "metadata.user_id=alice", "-o", target)
    assert (done.out, done.err) == ("", f"2 conversations written to {target}\n")
    assert len(target.read_text(encoding="utf-8").splitlines()) == 2
    before = target.read_bytes()
    (document,) = chats.glob("conversations/*/three.json.zst")
    document.rename(tmp_path / "three")
    document.symlink_to(tmp_path / "three")  # which is not followed
    failed = run("export", chats, "-o", target, code=1)
    assert "three" in failed.err
    assert target.read_bytes() == before
    (tmp_path / "three").rename(document)
    assert (
        "interrupted export that differs in where"
        in run("export", chats, "-o", target, "--where", "metadata.user_id=alice", code=1).err
    )
    done = run("export", chats, "-o", target)
    assert done.err == (
        f"went on from an export that was interrupted after 1 conversation\n3 conversations written to {target}\n"
    )
    assert target.read_text(encoding="utf-8") == run("export", chats).out
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert run("export", chats, "-o", "/dev/null", "--where", "conversation_id=one").out == ""
    assert "no-such-folder" in run("export", chats, "-o", tmp_path / "no-such-folder" / "x", code=1).err


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("chats/s3conv.json", ()),
        ("file.jsonl", ()),
        ("link/new", ("--shards", "2")),
        ("chats/new", ("-f", "html")),
    ],
)
def test_export_does_not_write_into_its_archive(chats: Path, place: str, options: tuple[str, ...]) -> None:
    (chats.parent / "link").symlink_to("chats")
    (chats.parent / "file.jsonl").symlink_to("chats/s3conv.json")
    before = set(chats.rglob("*"))
    assert "is in the archive" in run("export", "chats", "-o", place, *options, cwd=chats.parent, code=2).err
    assert set(chats.rglob("*")) == before
    assert run("list", chats, "--count").out == "3\n"


def test_what_cannot_be_written_is_named(chats: Path, tmp_path: Path) -> None:
    missing = run("export", chats, "-o", tmp_path / "no" / "x.jsonl", code=1)
    assert missing.err == f"s3conv: {tmp_path}/no: No such file or directory\n"
    assert run("export", chats, "-o", "/dev/full", code=1).err == "s3conv: /dev/full: No space left on device\n"
    for command in ("export", "list"):
        with Path("/dev/full").open("wb") as full:
            done = run(command, chats, code=1, stdout=full)
        assert done.err == "s3conv: stdout: No space left on device\n"


def test_export_to_a_folder_of_shards(chats: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    said = json.loads(run("export", chats, "--shards", "2", "-o", target, "--json").out)
    assert (said["conversations"], said["files"], said["redacted"], said["output"]) == (3, 2, 0, str(target))
    assert sorted(path.name for path in target.iterdir()) == ["_manifest.json", "part-00000.jsonl", "part-00001.jsonl"]
    assert run("export", target, "--check").out.endswith("is whole: 3 conversations in 2 files\n")
    assert json.loads(run("export", target, "--check", "--json").out)["problems"] == []
    (target / "part-00001.jsonl").unlink()
    assert "part-00001.jsonl: is missing" in run("export", target, "--check", code=1).err
    assert "holds a finished export" in run("export", chats, "--shards", "2", "-o", target, code=1).err
    assert "has no _manifest.json" in run("export", chats, "--check", code=1).err
    assert "has no _manifest.json" in run("export", tmp_path / "nowhere", "--check", code=1).err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("form", ["jsonl", "openai"])
def test_export_goes_on_without_a_document_that_is_damaged(chats: Path, tmp_path: Path, form: str) -> None:
    (document,) = (chats / "conversations").glob("*/two.json.zst")
    document.write_bytes(document.read_bytes()[:40])
    streamed = run("export", chats, "-f", form, code=1)
    assert len(streamed.out.splitlines()) == 2
    assert re.search(r"^s3conv: .*two\.json\.zst is not a whole zstd frame \(40 bytes found\)", streamed.err, re.M)
    assert "could not be read, and is not there: 1 conversation, named above" in streamed.err
    target = tmp_path / "shards"
    said = json.loads(run("export", chats, "-f", form, "--shards", "2", "-o", target, "--json", code=1).out)
    assert (said["conversations"], said["damaged"]) == (2, ["two"])
    checked = run("export", target, "--check", code=1)
    assert "conversation 'two' is not in it, as it could not be read: " in checked.err
    assert len(json.loads(run("export", target, "--check", "--json", code=1).out)["problems"]) == 1


def test_export_pages_to_read(chats: Path, tmp_path: Path) -> None:
    run("export", chats, "-f", "html", "-o", tmp_path / "pages")
    names = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert names == ["index.html", "one.html", "three.html", "two.html"]
    assert "About three" in (tmp_path / "pages" / "three.html").read_text(encoding="utf-8")
    run("export", chats, "-f", "html", code=2)


def test_a_file_named_as_parquet_is_parquet(chats: Path, tmp_path: Path) -> None:
    run("export", chats, "-o", tmp_path / "chats.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "chats.parquet").num_rows == 3
    refused = run("export", chats, "-f", "jsonl", "-o", tmp_path / "lines.parquet", code=1)
    assert "ends in .parquet, and would be jsonl" in refused.err


def test_export_in_another_format(chats: Path, tmp_path: Path) -> None:
    done = run("export", chats, "-f", "openai", "--branches", "leaves", "--redact", "[A-Za-z]+", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    texts = {message["content"] for row in rows for message in row["messages"]}
    assert any("[redacted]" in text for text in texts)
    said = json.loads(done.err)
    assert said["redacted"] > 0
    assert said["rows"] == len(rows) >= said["conversations"] == 3


def test_a_pattern_that_would_take_for_ever_ends_the_export(tmp_path: Path, export: Callable[..., Path]) -> None:
    run("init", tmp_path / "a")
    run("import", tmp_path / "a", export(branching(title="a" * 60 + "!")))
    code = "import s3conv.cli.exports as e; e.SLOW = 0.5; from s3conv.cli import main; main()"
    command = [sys.executable, "-c", code, "export", str(tmp_path / "a"), "--redact", "(a|aa)+$"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the patterns to redact took more than 0.5 seconds on conversation 'c'" in done.stderr
    assert "Traceback" not in done.stderr


def test_export_to_s3(s3_client: Any, s3_keys: dict[str, str], s3_place: Place, chats: Path) -> None:
    given = ("--endpoint-url", s3_client.meta.endpoint_url, "--region", s3_client.meta.region_name)
    target = f"{s3_place.url}/exports/today"
    run("export", chats, *given, "--shards", "2", "-o", target, env=s3_keys)
    prefix = f"{s3_place.prefix}/exports/today/"
    listed = s3_client.list_objects_v2(Bucket=s3_place.bucket, Prefix=prefix)["Contents"]
    assert [one["Key"].removeprefix(prefix) for one in listed] == [
        "_manifest.json",
        "part-00000.jsonl",
        "part-00001.jsonl",
    ]
    assert "is whole: 3 conversations in 2 files" in run("export", target, *given, "--check", env=s3_keys).out
    whole = run("export", chats, *given, "-o", f"s3://{s3_place.bucket}", env=s3_keys, code=2)
    assert "names a whole bucket" in whole.err


def test_delete_says_what_was_not_there(chats: Path) -> None:
    done = run("delete", chats, "one", "nope", "one", "two", code=1)
    assert done.out == "deleted one\ndeleted two\n"
    assert done.err == f"s3conv: conversation 'nope' is not in file://{chats}\n"
    assert run("list", chats, "--count").out == "1\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("unknown",),
        ("list",),
        ("list", "x", "--limit", "many"),
        ("list", "x", "--where", "nonsense"),
        ("list", "x", "--where", "unknown=1"),
        ("list", "x", "--order", "unknown"),
        ("list", "x", "--after", "nonsense"),
        ("list", "s3:/bucket"),
        ("list", "s3://"),
        ("list", "s4://x/y"),
        ("list", "https://x/y"),
        ("list", "file://host/x"),
        ("list", ""),
        ("init", "memory://x"),
        ("init", "x", "--partition-by", "user"),
        ("import", "x"),
        ("show", "x"),
        ("delete", "x"),
        ("export", "x", "--bogus"),
        ("export", "x", "--format", "csv"),
        ("export", "x", "--format", "openai", "--branches", "tree"),
        ("export", "x", "--redact", "("),
        ("export", "x", "--shard-size", "many", "-o", "y"),
        ("export", "x", "--shards", "2", "--shard-size", "1MB", "-o", "y"),
        ("export", "x", "-o", "ftp://y"),
        ("export", "x", "-o", "file://y/z"),
        ("export", "x", "--shards", "2"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, code=2)
    assert "Usage: s3conv" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("init", "chats"), "there is an archive"),
        (("list", "nowhere"), "there is no archive"),
        (("list", "~nobody-7d1e04b6/x"), "/~nobody-7d1e04b6/x"),
        (("maintain", "nowhere"), "there is no archive"),
        (("stats", "nowhere"), "there is no archive"),
        (("show", "chats", "nope"), "conversation 'nope' is not in"),
        (("import", "nowhere", "x"), "there is no archive"),
    ],
)
def test_errors_are_one_message(chats: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments, cwd=chats.parent, code=1)
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_damaged_document_is_named(chats: Path) -> None:
    (document,) = chats.glob("conversations/*/one.json.zst")
    document.write_bytes(document.read_bytes()[:-10])
    done = run("show", chats, "one", code=1)
    assert done.err.startswith("s3conv: ")
    assert "one" in done.err


def test_version_and_help() -> None:
    assert run("--version").out == f"s3conv {s3conv.__version__}\n"
    assert "Usage: s3conv list" in run("list", "-h").out
    done = subprocess.run(
        [sys.executable, "-m", "s3conv", "--version"], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == f"s3conv {s3conv.__version__}\n"


def test_without_the_extra_it_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['typer'] = None; from s3conv.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "s3conv: the command line needs typer and rich: from a checkout, pip install '.[cli]'\n"


def test_a_pipe_that_closes_early_is_quiet(chats: Path) -> None:
    with Archive.open(f"file://{chats}") as archive:
        archive.save(ConversationState.start("big", system="x" * 1_000_000))
    for command in ("export {} ", "show {} big --json", "show --full {} big", "list {}"):
        shell = f"{' '.join(map(_quoted, RUN))} {command.format(chats)} | head -c 10 >/dev/null"
        done = subprocess.run(["bash", "-c", shell], env=environment(), capture_output=True, timeout=60, check=False)
        assert done.stderr == b"", command


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def test_a_console_that_lacks_characters(tmp_path: Path, export: Callable[..., Path]) -> None:
    run("init", tmp_path / "a")
    run("import", tmp_path / "a", export(branching(title="だし 🍲")))
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    assert "\\u3060" in run("list", tmp_path / "a", env=ascii_only).out
    assert run("show", tmp_path / "a", "c", env=ascii_only).out
    assert "だし" in run("list", tmp_path / "a", "--json", env=ascii_only).out


def on_terminal(*arguments: str | Path, typed: bytes = b"", **more: str) -> tuple[int, str]:
    """Run a command on a terminal of its own; its exit code, and all that it shows."""
    ours, theirs = pty.openpty()
    variables = environment(**{"TERM": "xterm-256color", "COLUMNS": "100", **more})
    variables.pop("NO_COLOR", None)
    with subprocess.Popen(
        [*RUN, *map(str, arguments)], env=variables, stdin=theirs, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    return child.returncode, shown.decode()


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (30, "conversation"),
        (40, "conversation"),
        (60, "conversation title"),
        (80, "conversation updated (UTC) title"),
        (120, "conversation updated (UTC) messages branches size title"),
    ],
)
def test_a_list_on_a_terminal_keeps_ids_whole(tmp_path: Path, width: int, columns: str) -> None:
    ids = [f"6831d6d2-14a4-8009-9a2e-ab000000000{n}" for n in range(3)]
    with Archive.create(f"file://{tmp_path}/a") as archive:
        for name in ids:
            archive.save(ConversationState.start(name, system="Hi", metadata={"title": f"About {name} " + "だし" * 40}))
    _, shown = on_terminal("list", tmp_path / "a", COLUMNS=str(width))
    head, _, *rows = re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()
    assert head.split() == columns.split()
    assert max(map(cell_len, (head, *rows))) <= width
    if width > 36:
        assert [row.split()[0] for row in rows] == ids[::-1]
    else:
        assert "".join(row.strip() for row in rows) == "".join(ids[::-1])
    assert all("…" in row for row in rows) == ("title" in columns)


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path, export: Callable[..., Path]) -> None:
    run("init", tmp_path / "a")
    path = export(*(branching(id=str(n)) for n in range(20)))
    code, shown = on_terminal("import", tmp_path / "a", path)
    assert code == 0
    assert "importing" in shown
    code, shown = on_terminal("export", tmp_path / "a", "-o", tmp_path / "out")
    assert code == 0
    assert "exporting" in shown
    assert "importing" not in (done := run("import", tmp_path / "a", path)).out + done.err


def test_delete_asks_on_a_terminal(chats: Path) -> None:
    code, shown = on_terminal("delete", chats, "one", typed=b"n\n")
    assert (code, run("list", chats, "--count").out) == (1, "3\n")
    assert 'Delete "one"?' in shown
    assert on_terminal("delete", chats, "one", typed=b"y\n")[0] == 0
    assert on_terminal("delete", chats, "two", "--yes")[0] == 0
    assert run("list", chats, "--count").out == "1\n"


def test_an_interrupt_ends_it_with_130(tmp_path: Path) -> None:
    run("init", tmp_path / "a")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*RUN, "import", str(tmp_path / "a"), str(pipe)]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with child, pipe.open("wb", buffering=0) as end:
        end.write(b" " * (1 << 19))  # more than a pipe holds, so that the command is in the middle of reading
        child.send_signal(signal.SIGINT)
        # Python sees a signal that comes just before it waits for input only when there is more of it.
        with suppress(BrokenPipeError):
            for _ in range(1000):
                end.write(b" " * (1 << 16))
        _, complaint = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"Traceback" not in complaint


def test_nothing_in_a_conversation_reaches_the_terminal(tmp_path: Path, export: Callable[..., Path]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08[red]markup[/red]\u202eflipped"
    run("init", tmp_path / "a")
    message = said(
        "user", f"first\n{evil}", 1.0, metadata={"model_slug": evil}, tool_calls=[{"function": {"name": evil}}]
    )
    message["author"]["name"] = evil
    run("import", tmp_path / "a", export(chat({"m": place(None, message)}, id=evil, title=evil)))
    for arguments in (
        ("list", tmp_path / "a"),
        ("show", tmp_path / "a", evil),
        ("show", "--full", tmp_path / "a", evil),
    ):
        for shown in (run(*arguments).out, on_terminal(*arguments)[1]):
            assert not set("\x07\x08\x9b\u202e") & set(shown)
            colours = re.findall("\x1b(?:\\[[0-9;]*m)?", shown)
            assert all(len(colour) > 1 for colour in colours)
            assert "[red]markup[/red]" in shown.replace("\n", "").replace("\r", "")
            assert "\\x1b[2J" in shown.replace("\n", "").replace("\r", "")
    evil_id = run("show", tmp_path / "a", "\x1b[2J", code=1)
    assert "\x1b" not in evil_id.err


def test_maintain_says_what_it_did_and_stats_what_there_is(chats: Path) -> None:
    assert "open intents   3" in run("stats", chats).out
    assert "intents: 3 folded, 0 dropped, 0 pending" in run("maintain", chats).out
    found = json.loads(run("stats", chats, "--json").out)
    assert (found["conversations"], found["messages"], found["partitions"]) == (3, 12, 2)
    assert (found["open_intents"], found["oldest_intent_age"], found["runs"]["tail"]["rows"]) == (0, None, 3)
    done = json.loads(run("maintain", chats, "--json").out)
    assert (done["folded"], done["finished"]) == (0, True)
    assert len(run("list", chats, "--json").out.splitlines()) == 3


def test_a_damaged_index_is_one_message_that_names_the_object(chats: Path) -> None:
    run("maintain", chats)
    (segment,) = (chats / "index" / "segments").iterdir()
    segment.write_bytes(segment.read_bytes()[:-200])
    failed = run("list", chats, "--where", "metadata.user_id=alice", code=1)
    assert segment.name in failed.err
    assert "verify --repair" in failed.err


def test_verify_says_what_differs_and_repair_mends_it(chats: Path) -> None:
    clean = run("verify", chats)
    assert clean.out == "3 conversations and 0 deleted ones read; 0 differences\n"
    assert clean.err == ""
    (folder,) = (chats / "conversations").glob("*/two.json.zst")
    good = folder.read_bytes()
    folder.write_bytes(b"damaged")
    (chats / "index" / "manifest.json").unlink()
    found = run("verify", chats, code=1)
    lines = found.out.splitlines()
    assert lines[0] == f"damaged-manifest  file://{chats}/index/manifest.json: it is missing"
    assert lines[1].startswith(f"damaged-document  file://{chats}/conversations/{folder.parent.name}/two.json.zst: ")
    assert lines[1].endswith("restore it from a backup or an older version of the object")
    assert lines[2:] == ["2 conversations and 0 deleted ones read; 2 differences"]
    assert "run `s3conv verify --repair`" in found.err
    assert "run `s3conv verify --repair`" in run("list", chats, code=1).err
    mended = run("verify", chats, "--repair", code=1)
    assert mended.out.splitlines()[0] == f"mended: {lines[0]}"
    assert mended.out.splitlines()[-1].endswith("1 difference; the index was rebuilt, which mended 1")
    folder.write_bytes(good)
    assert run("verify", chats).out.endswith("; 0 differences\n")
    assert run("list", chats, "--count").out == "3\n"


def test_verify_for_programs(chats: Path) -> None:
    for intent in (chats / "index" / "log").rglob("*.zst"):
        intent.unlink()
    *found, summary = map(json.loads, run("verify", chats, "--json", code=1).out.splitlines())
    assert {(one["kind"], one["conversation_id"], one["mendable"], one["mended"]) for one in found} == {
        ("not-indexed", name, True, False) for name in ("one", "two", "three")
    }
    assert summary == {
        "kind": "summary", "conversations": 3, "deleted": 0, "pending": 0, "changing": 0, "repaired": False,
        "differences": 3, "mended": 0,
    }  # fmt: skip
    *mended, summary = map(json.loads, run("verify", chats, "--json", "--repair").out.splitlines())
    assert [one["mended"] for one in mended] == [True] * 3
    assert (summary["repaired"], summary["differences"], summary["mended"]) == (True, 0, 3)


def test_verify_is_safe_for_a_terminal(chats: Path) -> None:
    with Archive.open(f"file://{chats}") as archive:
        archive.save(ConversationState.start("\x1b[31mred", system="Hi"))
    for intent in (chats / "index" / "log").rglob("*.zst"):
        intent.unlink()
    found = run("verify", chats, code=1)
    assert "\x1b" not in found.out
    assert "[31mred" in found.out


def test_verify_shows_its_progress_on_a_terminal_and_nowhere_else(chats: Path) -> None:
    (chats / "index" / "manifest.json").unlink()
    code, shown = on_terminal("verify", chats, "--repair")
    assert code == 0
    assert "comparing" in shown
    assert run("verify", chats).err == ""


def test_verify_of_what_is_not_there(chats: Path) -> None:
    assert run("verify", chats / "not" / "there", code=1).err.startswith("s3conv: there is no archive at file://")
    run("verify", code=2)


def test_import_of_the_standard_input_a_folder_and_a_pattern(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a"
    run("init", url)
    lines = "".join(json.dumps(branching(id=name)) + "\n" for name in ("one", "two")).encode()
    folder = tmp_path / "folder" / "deep"
    folder.mkdir(parents=True)
    (folder / "chats.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "chats.txt").write_text("no chats", encoding="utf-8")
    with (folder / "chats.jsonl.gz").open("rb") as file:
        assert run("import", url, "-", stdin=file).out.startswith("2 new, 0 updated")
    piped = subprocess.run(
        [*RUN, "import", url, "-"], input=lines, env=environment(), capture_output=True, timeout=120, check=True
    )
    assert piped.stdout.startswith(b"0 new, 0 updated, 2 unchanged")
    ignored, counted = run("import", url, tmp_path / "folder").out.splitlines()
    assert ignored == f"{tmp_path}/folder: ignored, as they hold no conversations: deep/chats.txt"
    assert counted.startswith("0 new, 0 updated, 2 unchanged")
    assert run("import", url, f"{folder}/*.gz").out.startswith("0 new, 0 updated, 2 unchanged")
    assert "No such file" in run("import", url, f"{folder}/*.zip", code=1).err


def test_a_large_import_leaves_an_index_that_is_folded(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a"
    run("init", url)
    path = tmp_path / "chats.jsonl"
    row = {"messages": [{"role": "user", "content": "Hello"}]}
    path.write_text("".join(json.dumps({**row, "n": number}) + "\n" for number in range(1001)), encoding="utf-8")
    assert run("import", url, path).out.startswith("1,001 new")
    assert "open intents   0" in run("stats", url).out
    other = f"file://{tmp_path}/b"
    run("init", other)
    (tmp_path / "b" / "index").mkdir(exist_ok=True)
    (tmp_path / "b" / "index" / "manifest.json").write_text("{", encoding="utf-8")
    done = run("import", other, path)
    assert done.out.startswith("1,001 new")
    assert "all of that is imported" in done.err


def test_a_dry_run_needs_no_archive_and_makes_none(tmp_path: Path, export: Callable[..., Path]) -> None:
    url = f"file://{tmp_path}/a"
    path = export(branching(), {"x": 1})
    done = run("import", url, path, "--dry-run", code=1)
    assert done.out == (
        "1 new, 0 updated, 0 unchanged, 0 under a new id, 1 could not be read (dry run: nothing was written)\n"
    )
    assert "expected a conversation; found an object with 'x'" in done.err
    assert not (tmp_path / "a").exists()
    run("import", url, path, code=1)
    assert not (tmp_path / "a").exists()


def test_metadata_and_the_format_are_set(tmp_path: Path, export: Callable[..., Path]) -> None:
    url = f"file://{tmp_path}/a"
    run("init", url)
    row = {"messages": [{"role": "user", "content": "Hi"}]}
    settings = ("--set", "metadata.source=claude-2026", "--set", "metadata.batch.number=7", "--set", 'metadata.a="7"')
    run("import", url, export(row), "--format", "openai", *settings)
    (entry,) = [json.loads(line) for line in run("list", url, "--json").out.splitlines()]
    metadata = entry["metadata"]
    assert (metadata["source"], metadata["batch"], metadata["a"]) == ("claude-2026", {"number": 7}, "7")
    assert run("list", url, "--count", "--where", "metadata.batch.number=7").out == "1\n"
    wrong = run("import", url, export(row), "--format", "openapi", code=2)
    assert "'openapi': expected one of s3conv, dataknobs, chatgpt, claude" in " ".join(wrong.err.split())
    for setting in ("source=x", "metadata.=x", "metadata.a..b=x", "metadata.a"):
        assert "expected metadata.NAME=VALUE" in run("import", url, export(row), "--set", setting, code=2).err
    twice = ("--set", "metadata.a=1", "--set", "metadata.a=2")
    assert "metadata.a is set already" in run("import", url, export(row), *twice, code=2).err
