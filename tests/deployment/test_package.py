"""The deployment packages: small enough, the same bytes each time, and all that the functions need beside boto3."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from infra import build
from tests.deployment.package import RUNTIME
from tests.functions.calls import ALICE, conversation, event, says


@pytest.mark.parametrize(("architecture", "limit"), [("arm64", 3_000_000), ("x86_64", 3_300_000)])
def test_a_package_is_small_and_holds_what_it_should(tmp_path: Path, architecture: str, limit: int) -> None:
    package = tmp_path / "package.zip"
    assert build.build(package, architecture, build.PYTHON) == package.stat().st_size <= limit
    with zipfile.ZipFile(package) as content:
        names = [name for name in content.namelist() if not name.endswith(".pyc")]
    assert {"chat.py", "maintenance.py", "s3conv/archive.py", "s3conv/store/s3_boto3.py", "s3conv/LICENSE"} <= set(
        names
    )
    assert sorted(name.split(".")[0] for name in names if name.endswith(".so")) == [
        "msgspec/_core",
        "zstandard/backend_c",
    ]
    machine = build.PLATFORMS[architecture]
    assert all(f"-{machine}-" in name for name in names if name.endswith(".so"))
    # The runtime's own, what is never loaded, and what no one reads there.
    for unwanted in (
        "boto3/",
        "botocore/",
        "urllib3",
        "s3conv/cli/",
        "s3conv/exchange/",
        "_aio",
        "tests/",
        "METADATA",
        ".pyi",
    ):
        assert [name for name in names if unwanted in name] == []
    assert sum("/licenses/" in name for name in names) == 2


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        build.build(tmp_path / name, build.architecture_here(), build.python_here())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


CODE = """
import json, sys
events = json.load(sys.stdin)

class Invocation:
    def get_remaining_time_in_millis(self):
        return 30_000

import maintenance
maintenance.handler({}, Invocation())
import chat
answers = [chat.handler(event, Invocation()) for event in events]
loaded = sorted({name.split(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)})
files = {name: sys.modules[name].__file__ for name in loaded if name in sys.modules}
print(json.dumps({"answers": answers, "files": files}), file=sys.stderr)
"""


def test_the_functions_run_from_nothing_but_the_package_and_the_runtimes_boto3(task: Path, tmp_path: Path) -> None:
    path = conversation("c", "messages")
    events = [event(ALICE, "POST", path, says("hi")), event(ALICE, "GET", conversation("c"))]
    environment = {"S3CONV_URL": f"file://{tmp_path}/archive", "PYTHONPATH": str(task), "PATH": ""}
    done = subprocess.run(
        [RUNTIME, "-B", "-W", "error", "-c", CODE],
        env=environment,
        input=json.dumps(events),
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stderr.splitlines()[-1])
    assert [answer["statusCode"] for answer in found["answers"]] == [201, 200]
    assert json.loads(found["answers"][1]["body"])["messages"][0]["content"] == "hi"
    for name in ("chat", "maintenance", "s3conv", "zstandard", "msgspec"):
        assert found["files"][name].startswith(str(task)), found["files"]
    # Of the environment it is only the runtime's own, and what setuptools starts in every environment of Python 3.11.
    own = {"boto3", "botocore", "s3transfer", "urllib3", "dateutil", "jmespath", "six", "_distutils_hack"}
    others = {name for name, file in found["files"].items() if "site-packages" in file}
    assert others <= own


def test_a_library_is_stripped_of_what_no_loader_reads(task: Path) -> None:
    (library,) = task.glob("zstandard/backend_c*.so")
    stripped = library.read_bytes()
    assert len(stripped) < 2_000_000
    assert build.stripped(stripped) == stripped
    with pytest.raises(ValueError, match="ELF"):
        build.stripped(b"MZ" + stripped[2:])


def test_the_compiled_modules_are_those_that_this_python_looks_for(task: Path) -> None:
    for module in ("chat.py", "s3conv/core/saving.py"):
        assert (task / Path(module)).exists()
        (compiled,) = (task / Path(module)).parent.glob(f"__pycache__/{Path(module).stem}.*.pyc")
        assert sys.implementation.cache_tag in compiled.name
