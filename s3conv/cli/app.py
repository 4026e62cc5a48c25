"""The commands. Each opens the archive, does one thing through `Archive` or `exchange`, and prints what came of it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from s3conv import Archive, __version__
from s3conv.cli.conditions import check_after, check_order, read_conditions, read_settings
from s3conv.cli.exports import check_job, open_output, read_size, run_export, say_checked, say_exported
from s3conv.cli.opening import Target, on_archive
from s3conv.cli.output import complain, console, entries_table, note, printable, short_size, stats_table, write_bytes
from s3conv.cli.progress import byte_progress, share_progress, waiting
from s3conv.cli.tree import conversation_lines
from s3conv.core.comparing import Difference, Verified
from s3conv.core.maintaining import INLINE
from s3conv.errors import NotFoundError, StorageError
from s3conv.exchange.checkpoint import check_export
from s3conv.exchange.exporting import Job
from s3conv.exchange.formats import NAMES
from s3conv.exchange.importing import ImportOptions, ImportReport, import_files
from s3conv.exchange.sources import Place, find_places
from s3conv.exchange.writing import FORMATS, usual_format
from s3conv.format.codec import to_json
from s3conv.format.document import state_to_stored

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the same on every terminal, and in docs/cli.md
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="CONDITION", help="FIELD, an operator (= != > >= < <= ^= ~=), VALUE. Repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"s3conv {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Keep LLM conversations in an object store: s3://bucket/prefix, file:///folder, or a plain path.

    Options for S3 can also be given as environment variables, S3CONV_REGION for --region. Exit codes: 0 fine, 1
    something failed, 2 wrong usage.
    """


@app.command()
@on_archive
def init(
    target: Target,
    partition_by: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Metadata that most lists fix (metadata.user_id); cannot be changed later."),
    ] = None,
) -> None:
    """Make an archive.

    The store is tried first: one that would lose updates is refused.

    \b
    Examples:
      s3conv init s3://my-chats/prod --partition-by metadata.user_id
      s3conv init ./chats
    """
    with target.create(partition_by) as archive:
        print(f"made the archive {printable(archive.url)}")


@app.command("import")
@on_archive
def import_(
    target: Target,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Files and folders to import, packed or not; - is the standard input."),
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help=f"The format, if it is not to be found out: {', '.join(NAMES)}."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Metadata to set on each conversation. Repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only report what would be imported. The archive need not be there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import conversations: exports of ChatGPT, Claude and LibreChat, sessions of agents, data sets, s3conv's own.

    The format is found by the content. Importing a file again changes nothing; a newer export adds what is new, and
    what was changed in the archive stays. What cannot be read is reported on stderr as FILE: POSITION: REASON, the
    rest is imported, and the exit code is 1. Files may be JSON or JSON lines, in .gz, .zst, .zip or .tar; folders are
    read with the folders in them. With --json: one JSON object that says what became of them.

    \b
    Examples:
      s3conv import s3://my-chats/prod chatgpt-export.zip --set metadata.source=chatgpt-2026
      s3conv import ./chats ~/.claude/projects --format claude-code
      s3conv import ./chats - --dry-run < chats.jsonl.zst
    """
    if format is not None and format not in NAMES:
        raise typer.BadParameter(f"{format!r}: expected one of {', '.join(NAMES)}", param_hint="--format")
    options = ImportOptions(format, read_settings(set_), dry_run)
    sources = [sys.stdin.buffer if file == "-" else file for file in files]
    total = sum(place.size for source in sources for place in find_places(source) if isinstance(place, Place))
    with target.open() as archive:
        with byte_progress("importing", total) as progress:
            report = import_files(archive, sources, options, progress=progress)
        if as_json:
            print(json.dumps({**asdict(report), "dry_run": dry_run}))
        else:
            _print_report(report, dry_run)
        if not dry_run and report.new + report.updated > INLINE:
            _fold(archive)
    if report.problems:
        raise typer.Exit(1)


def _fold(archive: Archive) -> None:
    """Fold what a large import left in the log, or each of the next lists would have to read it."""
    try:
        with waiting("folding the index"):
            archive.maintain()
    except StorageError as error:
        complain(f"all of that is imported, but lists are slow until `s3conv maintain` has been run: {error}")


def _print_report(report: ImportReport, dry_run: bool) -> None:
    sys.stdout.flush()
    for problem in report.problems:
        print(printable(str(problem)), file=sys.stderr)
    for original, new in report.renamed:
        print(f"{printable(original)} is another conversation in this archive: imported as {printable(new)}")
    members: dict[str, list[str]] = {}
    for ignored in report.ignored:
        members.setdefault(ignored.file, []).append(ignored.member)
    for file, names in members.items():
        shown = ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")
        print(f"{printable(file)}: ignored, as they hold no conversations: {printable(shown)}")
    print(
        f"{report.new:,} new, {report.updated:,} updated, {report.unchanged:,} unchanged, "
        f"{len(report.renamed):,} under a new id, {len(report.problems):,} could not be read"
        f"{' (dry run: nothing was written)' if dry_run else ''}"
    )


@app.command("list")
@on_archive
def list_(
    target: Target,
    where: Where = None,
    order: Annotated[str, typer.Option(metavar="FIELD", help="Field to sort by; -FIELD descending.")] = "-updated_at",
    limit: Annotated[int, typer.Option(min=0, help="Conversations to list; 0 for all.")] = 20,
    offset: Annotated[int, typer.Option(min=0, help="Conversations to skip.")] = 0,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on after the page that named this cursor.")
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only say how many there are.")] = False,
    as_json: Json = False,
) -> None:
    """List conversations, newest first.

    Fields: conversation_id, created_at, updated_at, message_count, branch_count, size, metadata.<path>. Operators: =
    != > >= < <= ^= (begins with) ~= (contains). Values of metadata are numbers, true, false, null or "quoted text" if
    they look so, else text: 5 is a number, '"5"' is text. With ^= and ~= they are text: ~=5 finds no number
    5 in a list. With > >= < <= one such as 2026-01-31T12:00:00Z, with a zone, is compared as a time. Times are ISO
    8601. Several conditions must all be met.

    \b
    Examples:
      s3conv list ./chats --where 'metadata.user_id=alice' --where 'updated_at>=2026-01-01'
      s3conv list ./chats --where 'metadata.title~=invoice' --order created_at
      s3conv list ./chats --limit 0 --json | jq -r .conversation_id
    """
    conditions = read_conditions(where)
    check_order(order)
    check_after(after, conditions, order)
    with target.open() as archive:
        if count:
            print(archive.count(conditions))
            return
        page = archive.list(conditions, order, limit or sys.maxsize, offset, after)
    if as_json:
        for entry in page.items:
            write_bytes(to_json(entry.to_dict(), "an entry") + b"\n")
    elif page.items:
        out = console()
        out.print(entries_table(page.items, out.width))
    else:
        note("no conversations")
    if page.next is not None:
        note(f"more: --after {page.next}")


@app.command()
@on_archive
def show(
    target: Target,
    conversation_id: Annotated[str, typer.Argument(metavar="ID", help="The conversation.")],
    full: Annotated[bool, typer.Option("--full", help="Whole messages, not only their first lines.")] = False,
    as_json: Json = False,
) -> None:
    """Show a conversation with its branches; * marks the messages that lead to the current one.

    With --json: the conversation in its stored form, on one line.

    \b
    Examples:
      s3conv show ./chats haiku-workshop
      s3conv show ./chats haiku-workshop --json | jq '.nodes[].message.role'
    """
    with target.open() as archive:
        state = archive.load(conversation_id)
    if state is None:
        raise NotFoundError(f"conversation {conversation_id!r} is not in {archive.url}: see `s3conv list`")
    if as_json:
        write_bytes(to_json(state_to_stored(state), f"conversation {conversation_id!r}") + b"\n")
        return
    out = console()
    for line in conversation_lines(state, full):
        out.print(line)


@app.command()
@on_archive
def export(
    target: Target,
    where: Where = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="PLACE", help="A file, a folder, s3://bucket/prefix; - is stdout."),
    ] = "-",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help=f"One of {', '.join(FORMATS)}; without it jsonl, or parquet if PLACE ends in .parquet.",
        ),
    ] = None,
    branches: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="current, leaves (each as a conversation) or tree (all in one)."),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Regular expression: what matches becomes [redacted]. Repeatable."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Write a folder of N files, and a manifest.")
    ] = None,
    shard_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Write a folder of files of about this size (64MB).")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="URL is an export: compare it with its manifest.")] = False,
    as_json: Json = False,
) -> None:
    """Export conversations: as JSON lines that `s3conv import` reads, or in another format.

    They come by partition, and in it oldest first. A file appears when it is complete; if anything fails, what was
    there before stays. What was interrupted goes on when the same command is run again. A document that is damaged
    is named and left out, and the exit code is 1. See docs/exporting.md.

    \b
    Examples:
      s3conv export s3://my-chats/prod -o chats.jsonl
      s3conv export ./chats --where 'metadata.user_id=alice' | gzip > alice.jsonl.gz
      s3conv export ./chats -f openai --branches leaves --redact '[\\w.]+@[\\w.]+' -o training.jsonl
      s3conv export s3://my-chats/prod --shard-size 256MB -o s3://my-data/chats-2026
      s3conv export s3://my-data/chats-2026 --check
    """
    if check:
        with open_output(target, target.url, as_folder=True, write=False) as (place, _):
            found = check_export(place)
        say_checked(found, target.url, as_json)
        raise typer.Exit(1 if found.problems else 0)
    began = time.monotonic()
    size = read_size(shard_size)
    job = Job(format_ or usual_format(output), read_conditions(where), branches, tuple(redact or ()), shards, size)
    check_job(job, output)
    done = run_export(target, output, job)
    say_exported(done, output, time.monotonic() - began, as_json)
    raise typer.Exit(1 if done.damaged else 0)


@app.command()
@on_archive
def maintain(target: Target, as_json: Json = False) -> None:
    """Keep the index in order: fold what was saved into segments, merge them, delete what no longer counts.

    Run it by a schedule, every few minutes where much is written. Any number may run at once, and be stopped at any
    time. Intents that wait (their writer may still be at work) are pending; the next run looks again.

    \b
    Examples:
      s3conv maintain s3://my-chats/prod
      s3conv maintain ./chats --json
    """
    with target.open() as archive:
        done = archive.maintain()
    if as_json:
        print(json.dumps(asdict(done)))
    else:
        print(f"intents: {done.folded:,} folded, {done.dropped:,} dropped, {done.pending:,} pending")
        print(
            f"segments: {done.segments_written:,} written, {done.segments_merged:,} merged; "
            f"{done.deleted:,} old objects deleted; {short_size(done.bytes_written)} written"
        )
    if not done.finished:
        complain("others were maintaining this archive and were faster: run it again later")
        raise typer.Exit(1)


@app.command()
@on_archive
def verify(
    target: Target,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rebuild the index from the documents, if it differs; needs write access.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare the documents with the index, and report every difference as KIND OBJECT: WHAT.

    Every document is read. Others may go on saving meanwhile. With --repair the index is rebuilt if that mends
    anything; documents are never changed, and a damaged one stays reported: restore it. The exit code is 1 if a
    difference is left. With --json: one JSON object for each difference, and one with the numbers at the end.

    \b
    Examples:
      s3conv verify s3://my-chats/prod
      s3conv verify s3://my-chats/prod --repair
      s3conv verify ./chats --json | jq -r 'select(.kind == "damaged-document").object'
    """
    with target.open() as archive, share_progress() as progress:
        found = archive.verify(repair, progress)
    if as_json:
        _print_verified_json(found)
    else:
        _print_verified(found)
    if found.differences:
        raise typer.Exit(1)


def _print_verified(found: Verified) -> None:
    for one in found.mended:
        print(printable(f"mended: {_difference_line(one)}"))
    for one in found.differences:
        print(printable(_difference_line(one)))
    count = len(found.differences)
    summary = [
        f"{found.conversations:,} conversations and {found.deleted:,} deleted ones read",
        f"{count:,} difference{'s' * (count != 1)}",
    ]
    if found.repaired:
        summary.append(f"the index was rebuilt, which mended {len(found.mended):,}")
    if found.pending:
        summary.append(f"intents ahead of their documents: {found.pending:,}")
    if found.changing:
        summary.append(f"conversations that changed too fast to be compared: {found.changing:,}")
    print("; ".join(summary))
    if not found.repaired and any(one.mendable for one in found.differences):
        note("no conversation is lost by what --repair mends: run `s3conv verify --repair`")


def _difference_line(one: Difference) -> str:
    about = f" (conversation {json.dumps(one.conversation_id, ensure_ascii=False)})" if one.conversation_id else ""
    return f"{one.kind}  {one.object}: {one.sentence}{about}"


def _print_verified_json(found: Verified) -> None:
    for mended, differences in ((True, found.mended), (False, found.differences)):
        for one in differences:
            print(json.dumps({**asdict(one), "mended": mended}))
    summary = {**asdict(found), "differences": len(found.differences), "mended": len(found.mended)}
    print(json.dumps({"kind": "summary", **summary}))


@app.command()
@on_archive
def stats(target: Target, as_json: Json = False) -> None:
    """Show what the archive holds: conversations, messages, bytes, and the state of its index.

    Many open intents, or old ones, say that `s3conv maintain` should run more often.

    \b
    Examples:
      s3conv stats s3://my-chats/prod
      s3conv stats ./chats --json | jq .open_intents
    """
    with target.open() as archive:
        found = archive.stats()
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        console().print(stats_table(found))


@app.command()
@on_archive
def delete(
    target: Target,
    conversation_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The conversations.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete conversations.

    On a terminal it asks first; a script, which has named the ids, is not asked. An id that is not there is an error,
    after the others were deleted. A bucket that keeps versions keeps what was deleted.

    \b
    Examples:
      s3conv delete ./chats support-4711
      s3conv delete --yes s3://my-chats/prod support-4711 haiku-workshop
    """
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in conversation_ids)
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Delete {printable(names)}?", err=True):
        raise typer.Exit(1)
    missing = False
    with target.open() as archive:
        for conversation_id in dict.fromkeys(conversation_ids):
            if archive.delete(conversation_id):
                print(f"deleted {printable(conversation_id)}")
            else:
                missing = True
                complain(f"conversation {conversation_id!r} is not in {archive.url}")
    if missing:
        raise typer.Exit(1)
