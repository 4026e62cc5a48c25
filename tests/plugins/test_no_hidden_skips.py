"""The guard against hidden skips, run on small test files in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.no_hidden_skips import AllowedSkip, parse_allowed_skips

PROJECT = Path(__file__).parents[2]

SKIPPING = """
import pytest, unittest

@pytest.mark.skip(reason="not today")
def test_marked(): pass

def test_inside(): pytest.skip("halfway")

@pytest.fixture
def broken(): pytest.skip("in the fixture")

def test_fixture(broken): pass

class TestOld(unittest.TestCase):
    @unittest.skip("old style")
    def test_old(self): pass

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure(): assert False

def test_runs(): pass
"""
SKIPPING_MODULE = "import pytest\npytest.importorskip('no_such_module_anywhere')\ndef test_never(): pass\n"


def run_pytest(folder: Path, *, ci: bool) -> subprocess.CompletedProcess[str]:
    folder.joinpath("test_skipping.py").write_text(SKIPPING)
    folder.joinpath("test_module.py").write_text(SKIPPING_MODULE)
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    environment |= {"PYTHONPATH": str(PROJECT)} | ({"CI": "true"} if ci else {})
    plugin = ["-p", "tests.plugins.no_hidden_skips", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", *plugin, "--rootdir", str(folder), str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_in_ci_every_kind_of_skip_fails_and_the_rest_still_runs(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ci=True)
    assert done.returncode == 1, done.stdout + done.stderr
    for reason in ("not today", "halfway", "in the fixture", "old style", "no_such_module_anywhere"):
        assert reason in done.stdout
    closing_line = done.stdout.splitlines()[-1]
    assert "skipped" not in closing_line
    assert "1 passed" in closing_line
    assert "1 xfailed" in closing_line


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ci=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 5 skipped, 1 xfailed" in done.stdout.splitlines()[-1]


def test_a_line_covers_a_test_by_environment_id_and_reason() -> None:
    (allowed,) = parse_allowed_skips("# why\n\nnoaio | tests/store/*[[]aio*] | could not import *\n")
    assert allowed == AllowedSkip("noaio", "tests/store/*[[]aio*]", "could not import *")
    test = "tests/store/test_put.py::test_put[aioboto3]"
    assert allowed.covers("noaio", test, "could not import 'aioboto3'")
    assert not allowed.covers("aio", test, "could not import 'aioboto3'")
    assert not allowed.covers("noaio", test, "no server")
    assert not allowed.covers("noaio", "tests/store/test_put.py::test_put[boto3]", "could not import 'aioboto3'")


@pytest.mark.parametrize("line", ["all | tests/*", "some | tests/* | why", "all | tests/* | "])
def test_a_line_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(pytest.UsageError, match=r"allowed_skips\.txt:1"):
        parse_allowed_skips(line)
