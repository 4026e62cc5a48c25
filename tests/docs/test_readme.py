"""Every command and every example of README.md runs, and prints what the README says that it prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
README = PROJECT.joinpath("README.md").read_text(encoding="utf-8")
URL_ROOT = "file:///tmp/"


def fenced_blocks(language: str) -> list[str]:
    """The contents of the README's fenced blocks in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines of the README's console blocks, less their prompts."""
    lines = [line for block in fenced_blocks("console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines), "a console block of the README shows commands only"
    return [line.removeprefix("$ ") for line in lines]


def run(command: list[str], folder: Path) -> str:
    """Runs a command in a folder, as the user of this Python's environment, and returns what it prints."""
    # A make above this test must not reach a make below it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    environment["PYTHONIOENCODING"] = "utf-8"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_the_readme_uses_only_blocks_that_are_tested() -> None:
    assert set(re.findall(r"^```(\w*)$", README, flags=re.MULTILINE)) == {"", "python", "console"}
    assert len(fenced_blocks("python")) == 2
    tools = {command.split()[0] for command in commands()}
    assert tools == {"make", "pip", "s3conv"}


@pytest.mark.parametrize("example", fenced_blocks("python"), ids=["sync", "async"])
def test_python_example_prints_what_it_says(example: str, tmp_path: Path) -> None:
    expected = re.findall(r"# prints: (.*)$", example, flags=re.MULTILINE)
    assert expected
    assert URL_ROOT in example
    script = tmp_path / "example.py"
    script.write_text(example.replace(URL_ROOT, f"file://{tmp_path}/"), encoding="utf-8")
    for _ in range(2):  # a reader runs it again
        assert run([sys.executable, "-W", "error", str(script)], tmp_path).splitlines() == expected


def test_no_two_examples_use_one_folder() -> None:
    blocks = [*fenced_blocks("python"), "\n".join(commands())]
    named = [set(re.findall(rf"{URL_ROOT}([a-z-]+)", block)) for block in blocks]
    assert len(set().union(*named)) == sum(map(len, named)) == len(blocks)


def test_console_commands_run_in_order(tmp_path: Path) -> None:
    tmp_path.joinpath("examples").symlink_to(PROJECT / "examples")
    printed = {}
    for command in commands():
        if command.startswith("s3conv "):
            assert URL_ROOT in command
            shell_command = command.replace(URL_ROOT, f"file://{tmp_path}/")
            # -o pipefail: the s3conv on the left of a pipe must succeed, too.
            printed[command] = run(["bash", "-o", "pipefail", "-c", shell_command], tmp_path)

    def only(word: str) -> str:
        (output,) = (output for command, output in printed.items() if word in command)
        return output

    assert "trip-to-lisbon" in only("--limit 20")
    assert "support-4711" in only("--limit 20")
    assert "leaf-spots" not in only("--limit 20")
    assert only("--count").strip() == "8"
    assert "Umbrellas blossom." in only("s3conv show")
    assert len(tmp_path.joinpath("alice.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    # Every command that the README has was shown with success; what the last one did is checked once more.
    left = run(["s3conv", "list", f"file://{tmp_path}/my-chats", "--json"], tmp_path)
    assert len(left.splitlines()) == 7
    assert "support-4711" not in left


def test_make_targets_exist() -> None:
    makefile = PROJECT.joinpath("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"[$`] ?make ([a-z-]+)", README))
    assert {"demo", "test"} <= named <= targets
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == targets


def test_make_demo_and_make_test_run_what_they_say() -> None:
    assert "python examples/demo.py" in run(["make", "-n", "demo"], PROJECT)
    assert "python -m pytest" in run(["make", "-n", "test"], PROJECT)


def test_demo_runs_with_this_python_and_cleans_up(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    output = run(["env", f"TMPDIR={temporary}", sys.executable, str(PROJECT / "examples" / "demo.py")], tmp_path)
    for command in ("init", "import", "list", "show", "export"):
        assert f"\n$ s3conv {command} file://" in output
    assert "Umbrellas blossom." in output
    assert list(temporary.iterdir()) == []


def test_install_command_names_extras_that_exist() -> None:
    (install,) = (command for command in commands() if command.startswith("pip "))
    extras = tomllib.loads(PROJECT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    named = re.fullmatch(r"pip install '\.\[(.*)\]'", install)
    assert named is not None
    assert set(named[1].split(",")) <= set(extras)


def test_the_package_builds_and_carries_the_samples(tmp_path: Path) -> None:
    # Without a network: hatchling is here already, which is what `pip install .` would fetch.
    run([sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path)], PROJECT)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    samples = {"chatgpt_conversations.json", "conversations.jsonl"}
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
    assert {Path(name).name for name in names if "/share/s3conv/samples/" in name} == samples
    assert "s3conv/py.typed" in names
    with tarfile.open(sdist) as files:
        names = files.getnames()
    assert {Path(name).name for name in names if "/examples/samples/" in name} == samples
    assert not [name for name in names if "/.venv" in name or "__pycache__" in name]
