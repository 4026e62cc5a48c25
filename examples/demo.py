"""The main job, as a user would do it: conversations go into an archive, are listed, shown and exported.

Runs the `s3conv` command of the environment that runs this file, on a temporary folder, and removes the
folder afterwards. `file://` stands in for `s3://bucket/prefix`: the commands are the same.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"


def find_command() -> str:
    """The `s3conv` next to this Python, else the one on the PATH."""
    command = shutil.which("s3conv", path=str(Path(sys.executable).parent)) or shutil.which("s3conv")
    if command is None:
        sys.exit("demo: there is no s3conv command; run `make demo`, or install with: pip install '.[cli]'")
    return command


def main() -> None:
    command = find_command()
    with tempfile.TemporaryDirectory(prefix="s3conv-demo-") as folder:
        archive = f"file://{folder}/archive"
        exported = Path(folder, "alice.jsonl")

        def s3conv(*arguments: str) -> None:
            print(f"\n$ {shlex.join(['s3conv', *arguments])}", flush=True)
            subprocess.run([command, *arguments], check=True)

        s3conv("init", archive, "--partition-by", "metadata.user_id")
        s3conv("import", archive, str(SAMPLES / "chatgpt_conversations.json"), str(SAMPLES / "conversations.jsonl"))
        s3conv("list", archive)
        s3conv("list", archive, "--where", "metadata.user_id=alice")
        s3conv("show", archive, "haiku-workshop")
        s3conv("export", archive, "--where", "metadata.user_id=alice", "-o", str(exported))

        lines = exported.read_text(encoding="utf-8").splitlines()
        if len(lines) != 2:
            sys.exit(f"demo: the export has {len(lines)} conversations, and the samples have 2 of alice's")
        print(f"\n{exported.name} has {len(lines)} conversations, one a line. The archive was these files:\n")
        for path in sorted(Path(folder, "archive").rglob("*")):
            if path.is_file() and ".s3conv" not in path.parts:  # locks: a directory needs them, a bucket does not
                print(f"  {path.relative_to(folder)}")
    print("\nThe temporary folder is gone.")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"demo: the command above failed with exit code {error.returncode}")
