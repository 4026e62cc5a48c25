"""The house keeps its order: imports point down, I/O and the environment have one place each, extras stay extras."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "s3conv"

LAYERS = [
    ["errors"],
    ["model"],
    ["format", "store", "bridge"],
    ["core"],
    ["archive"],
    ["storage"],
    ["exchange", "adapters"],
    ["cli"],
    ["__main__"],
]
"""From the bottom up. A module imports from its own layer's own package and from below."""

SIDEWAYS = {("store", "bridge")}
"""Within one layer: the stores take their locks from the bridge."""


def modules() -> Iterator[tuple[Path, str]]:
    """Every module with the part of the house that it is in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part != "__init__":
            yield path, part


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """What a module imports, wherever in it, but for what only the type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            # `from s3conv import archive` imports a part of the house too.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_imports_point_down() -> None:
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    wrong = []
    for path, part in modules():
        for name, line in imports(path):
            names = name.split(".")
            if names[0] != "s3conv" or names[1] not in height or names[1] == part:
                continue
            if height[names[1]] >= height[part] and (part, names[1]) not in SIDEWAYS:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert wrong == []


def test_every_part_of_the_house_is_in_a_layer() -> None:
    known = {part for parts in LAYERS for part in parts}
    assert {part for _, part in modules()} <= known


@pytest.mark.parametrize(
    ("wanted", "allowed"),
    [
        ({"asyncio", "threading", "concurrent"}, {"bridge"}),
        ({"boto3", "botocore"}, {"store", "cli"}),  # the command line opens a session for a named profile
        ({"aioboto3", "aiobotocore"}, {"store"}),
        ({"fcntl"}, {"store", "exchange"}),  # a folder that is exported to is locked
        ({"typer", "rich", "click"}, {"cli"}),
        ({"markdown_it"}, {"exchange"}),
        ({"pickle", "marshal", "shelve"}, set()),
    ],
)
def test_some_things_have_one_place(wanted: set[str], allowed: set[str]) -> None:
    places = {
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path, part in modules()
        for name, line in imports(path)
        if name.split(".")[0] in wanted and part not in allowed
    }
    assert places == set()


OF_THE_COMMAND_LINE = {
    "print",
    "input",
    "os.environ",
    "os.getenv",
    "sys.stdout",
    "sys.stderr",
    "sys.argv",
    "eval",
    "exec",
}


OF_NOBODY = {"eval", "exec"}


def test_only_the_command_line_prints_or_reads_the_environment() -> None:
    wrong = []
    for path, part in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
            if name in OF_NOBODY or (name in OF_THE_COMMAND_LINE and part != "cli"):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} uses {name}")  # type: ignore[attr-defined]  # a name
    assert wrong == []


def test_of_the_functions_only_the_runtime_prints_or_reads_the_environment_and_some_are_pure() -> None:
    wrong = []
    for path in sorted((ROOT / "infra" / "functions").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
            if name in OF_NOBODY or (name in OF_THE_COMMAND_LINE and path.name != "runtime.py"):
                wrong.append(f"{path.name}:{node.lineno} uses {name}")  # type: ignore[attr-defined]  # a name
        if path.name in ("events.py", "tenants.py", "turns.py"):
            impure = {"boto3", "botocore", "runtime", "os", "time", "logging", "socket", "random", "secrets"}
            wrong += [f"{path.name} imports {name}" for name, _ in imports(path) if name.split(".")[0] in impure]
        assert ast.get_docstring(tree), f"{path.name} does not say what it is"
    assert wrong == []


def test_importing_s3conv_loads_no_extra() -> None:
    extras = {"aioboto3", "aiobotocore", "aiohttp", "rich", "typer", "click", "ijson", "pyarrow", "pyspark"}
    code = f"import s3conv, sys; print(*sorted({extras!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_importing_s3conv_loads_neither_the_sdk_nor_asyncio() -> None:
    """A function that opens no S3 archive should not wait for them."""
    code = "import s3conv, sys; print(*sorted({'boto3', 'botocore', 'asyncio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path, _ in modules()
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_everything_public_is_documented() -> None:
    import inspect

    import s3conv

    silent = []
    for name in s3conv.__all__:
        thing = getattr(s3conv, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if not thing.__doc__:
            silent.append(name)
        if inspect.isclass(thing):
            silent += [
                f"{name}.{member}"
                for member, value in vars(thing).items()
                if not member.startswith("_")
                and (inspect.isfunction(value) or isinstance(value, property | classmethod))
                and not inspect.getdoc(getattr(thing, member))
            ]
    assert silent == []


def test_what_a_caller_needs_to_annotate_an_archives_arguments_is_exported() -> None:
    import inspect
    import re

    import s3conv

    common = {"Any", "AsyncGenerator", "AsyncIterator", "Container", "Iterable", "Iterator", "None", "Self", "Unpack"}
    short = {"Create", "Metadata", "OnlyIf", "Seconds"}  # names for what is written out easily
    named = {
        name
        for kind in (s3conv.Archive, s3conv.AsyncArchive, s3conv.S3ConversationStorage)
        for member, value in inspect.getmembers(kind, callable)
        if not member.startswith("_")
        for hint in value.__annotations__.values()
        for name in re.findall(r"\b[A-Z]\w+", str(hint))
    }
    assert named - common - short <= set(s3conv.__all__)
