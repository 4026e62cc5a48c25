"""Builds the deployment packages of the functions: `make lambda` writes them to build/lambda and prints their sizes.

    python infra/build.py fetch     downloads the wheels to build/wheels: pip's part, with the index that pip knows
    python infra/build.py           builds the packages of both architectures from them

Law: a package holds what the functions load and nothing else: the modules of infra/functions, s3conv without the
command line and the exchange formats, and the wheels that it needs for that platform, in the versions of
constraints.txt. The runtime has boto3. The same sources, Python and wheels give the same bytes: names are sorted, times
are fixed. Run by the Python of the runtime, it adds the compiled modules, which saves each cold start the compiling.
"""

from __future__ import annotations

import platform
import py_compile
import shutil
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
BUILD = PROJECT / "build"
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
    """Fetch or build; 1 if a package is too large, 2 for what cannot be done."""
    if arguments == ["fetch"]:
        for architecture, python in {*((one, PYTHON) for one in PLATFORMS), (architecture_here(), python_here())}:
            fetch(wheels_of(architecture, python), PLATFORMS[architecture], python)
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    failed = 0
    for architecture, limit in LIMITS.items():
        package = BUILD / "lambda" / f"s3conv-{architecture}.zip"
        size = build(package, architecture, PYTHON)
        print(f"{package.relative_to(PROJECT)}: {size:,} bytes, at most {limit:,}")
        failed |= size > limit
    return failed


def architecture_here() -> str:
    """This machine's, by Lambda's name."""
    return {"aarch64": "arm64"}.get(platform.machine(), platform.machine())


def python_here() -> str:
    """The version of the Python that runs this."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def wheels_of(architecture: str, python: str) -> Path:
    """Where the wheels of a platform lie."""
    return BUILD / "wheels" / f"{architecture}-{python}"


def build(package: Path, architecture: str, python: str) -> int:
    """Write the package of one architecture and version of Python, and return its size in bytes.

    Raises:
        FileNotFoundError: its wheels are not there; says how to get them.
    """
    content = {**dict(project_files()), **dict(wheel_files(wheels_of(architecture, python)))}
    if python == python_here():
        content |= compiled(content)
    package.parent.mkdir(parents=True, exist_ok=True)
    write(package, content)
    return package.stat().st_size


def fetch(folder: Path, machine: str, python: str) -> None:
    """Download the wheels of what s3conv requires and the runtime has not.

    Raises:
        CalledProcessError: pip found no wheel of a requirement, or no index.
    """
    shutil.rmtree(folder, ignore_errors=True)
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
    wheels = list(folder.glob("*.whl"))
    if not wheels:
        raise FileNotFoundError(f"there are no wheels in {folder}: run `make build/wheels/.fetched`")
    for path in wheels:
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
