"""Builds the deployment packages of the functions: `make lambda` writes them to build/lambda and prints their sizes.

    python infra/build.py [FOLDER] [arm64 | x86_64 …]

Law: a package holds what the functions load and nothing else: the modules of infra/functions, s3conv without the
command line and the exchange formats, and the wheels that it needs for that platform, in the versions of
constraints.txt. The runtime has boto3. The same sources, Python and wheels give the same bytes: names are sorted, times
are fixed. Run by the Python of the runtime, it adds the compiled modules, which saves each cold start the compiling.
Needs pip, and the package index that pip is set up with.
"""

from __future__ import annotations

import py_compile
import struct
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib.util import cache_from_source
from pathlib import Path
from tempfile import TemporaryDirectory

PROJECT = Path(__file__).parents[1]
PYTHON = "3.13"
"""Of the functions' runtime, see infra/template.yaml."""

PLATFORMS = {"arm64": "aarch64", "x86_64": "x86_64"}
"""Architectures, by Lambda's names, with those of wheels."""

LIMITS = {"arm64": 3_000_000, "x86_64": 3_300_000}
"""Most bytes of a package. Lambda fetches and unpacks it before each cold start."""

IN_THE_RUNTIME = ("boto3",)
"""Requirements of s3conv that the runtime has, with all that they require."""

LEFT_OUT = (
    "*.pyi",
    "*/py.typed",
    # The second backend of zstandard, for Pythons other than CPython: as large as the first.
    "zstandard/_cffi*",
    "zstandard/backend_cffi.py",
)
FROM_THE_PROJECT = ("s3conv/cli/*", "s3conv/exchange/*", "s3conv/store/s3_aio.py")
"""What of s3conv the functions never load."""


def main(arguments: list[str]) -> int:
    """Build packages; 1 if one is too large."""
    folder = Path(arguments[0] if arguments else PROJECT / "build" / "lambda")
    failed = 0
    for architecture in arguments[1:] or PLATFORMS:
        package = build(folder, architecture, PYTHON)
        size, limit = package.stat().st_size, LIMITS[architecture]
        print(f"{package}: {size:,} bytes, at most {limit:,}")
        if size > limit:
            print(f"{package} is too large", file=sys.stderr)
            failed = 1
    return failed


def build(folder: Path, architecture: str, python: str) -> Path:
    """Write the package of one architecture for one version of Python, and return its path.

    Raises:
        CalledProcessError: pip found no wheel of a requirement, or no index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    package = folder / f"s3conv-{architecture}.zip"
    with TemporaryDirectory() as wheels:
        fetch(Path(wheels), PLATFORMS[architecture], python)
        content = {**dict(project_files()), **dict(wheel_files(Path(wheels)))}
    if sys.version_info[:2] == tuple(map(int, python.split("."))):
        content |= compiled(content)
    write(package, content)
    return package


def fetch(folder: Path, machine: str, python: str) -> None:
    """Download the wheels of what s3conv requires and the runtime has not."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [one for one in project["project"]["dependencies"] if not one.startswith(IN_THE_RUNTIME)]
    # Amazon Linux 2023 has glibc 2.34.
    platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux_2_34", "manylinux_2_28", "manylinux2014")]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"),
            *platforms,
            *("-c", PROJECT / "constraints.txt", "-d", folder, *wanted),
        ],
        check=True,
    )


def project_files() -> Iterator[tuple[str, bytes]]:
    """The functions and the library: names in the package, with contents."""
    functions = PROJECT / "infra" / "functions"
    for path in functions.glob("*.py"):
        yield path.name, path.read_bytes()
    for path in (PROJECT / "s3conv").rglob("*.py"):
        name = path.relative_to(PROJECT).as_posix()
        if not any(fnmatch(name, pattern) for pattern in FROM_THE_PROJECT):
            yield name, path.read_bytes()
    yield "s3conv/LICENSE", (PROJECT / "LICENSE").read_bytes()


def wheel_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """What the wheels in a folder install. Of what describes them only the licences stay."""
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as wheel:
            for name in wheel.namelist():
                described = ".dist-info/" in name
                if (described and "/licenses/" not in name) or any(fnmatch(name, one) for one in LEFT_OUT):
                    continue
                if not name.endswith("/"):
                    body = wheel.read(name)
                    yield name, stripped(body) if name.endswith(".so") else body


def stripped(library: bytes) -> bytes:
    """A 64-bit ELF library without what no loader reads: what lies behind its last segment, which is symbols and the
    information for debuggers, two thirds of zstandard's; and the table of sections, which would name it.
    """
    if library[:6] != b"\x7fELF\x02\x01":
        raise ValueError("expected a library of 64 bits, little-endian, in the ELF format")
    segments, size, number = struct.unpack_from("<Q", library, 0x20)[0], *struct.unpack_from("<HH", library, 0x36)
    end = 0
    for at in range(segments, segments + size * number, size):
        offset, length = struct.unpack_from("<Q16xQ", library, at + 8)
        end = max(end, offset + length)
    kept = bytearray(library[:end])
    struct.pack_into("<Q", kept, 0x28, 0)  # e_shoff
    struct.pack_into("<HH", kept, 0x3C, 0, 0)  # e_shnum, e_shstrndx
    return bytes(kept)


def compiled(content: Mapping[str, bytes]) -> dict[str, bytes]:
    """The modules compiled by this Python, where it looks for them. They are not held against their sources: Lambda's
    files have the times that Lambda gives them.
    """
    found = {}
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.py", Path(folder) / "target.pyc"
        for name, body in content.items():
            if name.endswith(".py"):
                source.write_bytes(body)
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(str(source), str(target), f"/var/task/{name}", doraise=True, invalidation_mode=mode)
                found[cache_from_source(name)] = target.read_bytes()
    return found


def write(path: Path, content: Mapping[str, bytes]) -> None:
    """Write a ZIP file whose bytes follow from its content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
        for name, body in sorted(content.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, wherever it is built
            entry.external_attr = 0o644 << 16  # Lambda's user is another one
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
