"""Ceph's S3 gateway on loopback, for as long as a command runs: `python -m tests.servers.ceph COMMAND …`.

A cluster of one monitor, one OSD in memory and one gateway, out of a Debian tree that `ceph_tree.sh` makes. It needs
root, as it uses chroot and mounts; the mounts live in a namespace of their own. The command is told of the store by
variables, see `place.py`. However this ends, the cluster and its data end too.

Law: standard library only. Nothing outside of the folder below $S3CONV_CEPH_DIR (by default s3conv-ceph in /var/tmp) is
written, and nothing but 127.0.0.1 is listened on.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

KEY, SECRET = "testing", "testing-secret"

CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon}/0]
mon_initial_members = a
# On loopback nobody is asked who he is; then the monitor must not be asked to encrypt, or the gateway waits for ever.
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_msgr1 = false
ms_bind_port_min = {low}
ms_bind_port_max = {high}
# One copy of everything, on one OSD.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
rgw_rados_pool_pg_num_min = 4
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
# The disk of a test machine may be nearly full.
mon_data_avail_warn = 1
mon_data_avail_crit = 1
# Each pool that is made costs a proposal, and by default each of those a second.
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
run_dir = {run}
log_file = {run}/$name.log
log_to_stderr = false
admin_socket = {run}/$name.asok
pid_file = {run}/$name.pid
crash_dir = {run}
[mon]
mon_data = {run}/mon
mon_cluster_log_file = {run}/cluster.log
[osd]
osd_data = {run}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_numa_auto_affinity = false
osd_mclock_skip_benchmark = true
[client.rgw]
# Without tcp_nodelay every small answer waits 40 ms for the acknowledgement of the one before.
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
"""


@contextmanager
def ceph(tree: Path) -> Iterator[str]:
    """Run a new cluster out of `tree`; gives the gateway's URL. KEY and SECRET open it.

    Raises:
        RuntimeError: it did not start; says why, by its logs.
    """
    with ExitStack() as stack:
        run = Path(stack.enter_context(TemporaryDirectory(prefix="run-", dir=tree / "tmp")))
        inside = "/" / run.relative_to(tree)
        for folder in ("mon", "osd"):
            (run / folder).mkdir()
        port, mon, low = _free_ports(3)
        fsid, osd = uuid4(), uuid4()
        configuration = CONFIGURATION.format(fsid=fsid, run=inside, port=port, mon=mon, low=low, high=low + 80)
        (run / "ceph.conf").write_text(configuration)

        def step(*command: str) -> None:
            done = subprocess.run(_in(tree, inside, command), capture_output=True, text=True, timeout=120, check=False)
            if done.returncode:
                raise RuntimeError(f"Ceph did not start: {' '.join(command)}: {done.stdout}{done.stderr}")

        def daemon(*command: str) -> None:
            output = stack.enter_context((run / f"{command[0]}.out").open("wb"))
            process = subprocess.Popen(
                _in(tree, inside, command), stdout=output, stderr=output, preexec_fn=_end_with_parent
            )
            stack.callback(_stop, process)

        step("monmaptool", "--create", "--fsid", str(fsid), "--addv", "a", f"[v2:127.0.0.1:{mon}/0]", f"{inside}/map")
        step("ceph-mon", "--mkfs", "-i", "a", "--monmap", f"{inside}/map")
        daemon("ceph-mon", "-i", "a", "-f")
        step("ceph", "--connect-timeout", "60", "osd", "new", str(osd))
        step("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", str(osd))
        daemon("ceph-osd", "-i", "0", "-f")
        user = ("--uid", "test", "--display-name", "test", "--access-key", KEY, "--secret-key", SECRET)
        step("radosgw-admin", "-n", "client.rgw", "user", "create", *user)
        daemon("radosgw", "-n", "client.rgw", "-f")
        url = f"http://127.0.0.1:{port}"
        _await_answer(url, run)
        yield url


def main(command: Sequence[str]) -> int:
    """Make the tree, start Ceph, run the command, stop Ceph."""
    folder = Path(os.environ.get("S3CONV_CEPH_DIR") or "/var/tmp/s3conv-ceph")
    tree = folder / "tree"
    made = subprocess.run([Path(__file__).with_name("ceph_tree.sh"), tree], check=False)
    if made.returncode:
        return made.returncode
    if os.environ.get("S3CONV_CEPH_NAMESPACE") != "entered":
        os.environ["S3CONV_CEPH_NAMESPACE"] = "entered"
        again = [sys.executable, "-m", "tests.servers.ceph", *command]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])
    for kind, name in (("proc", "proc"), ("sysfs", "sys")):
        subprocess.run(["mount", "-t", kind, kind, tree / name], check=True)
    subprocess.run(["mount", "--rbind", "/dev", tree / "dev"], check=True)
    for name in ("SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda *_: sys.exit(1))  # as Ctrl-C: what was begun is ended
    started = time.monotonic()
    with ceph(tree) as url:
        version = (tree / ".complete").read_text().strip()
        print(f"{version}, ready after {time.monotonic() - started:.1f} s at {url}", flush=True)
        variables = {
            "S3CONV_TEST_S3_URL": "s3://",
            "S3CONV_TEST_S3_ENDPOINT_URL": url,
            "S3CONV_TEST_S3_KEY": KEY,
            "S3CONV_TEST_S3_SECRET": SECRET,
            "S3CONV_TEST_S3_REGION": "us-east-1",
        }
        return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode


def _in(tree: Path, run: Path, command: Sequence[str]) -> list[str]:
    return ["chroot", str(tree), command[0], "-c", f"{run}/ceph.conf", *command[1:]]


def _end_with_parent() -> None:
    """In a daemon to be: be killed when the thread that starts it ends, however it does (prctl, PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # its data is in memory: there is nothing to bring to an end, which would take it ten seconds
    process.wait()


def _free_ports(number: int) -> list[int]:
    """Ports that are free now, all different. Ceph cannot be handed a socket."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in taken]


def _await_answer(url: str, run: Path) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    said = "".join(path.read_text(errors="replace")[-2000:] for path in sorted(run.glob("*.out")))
    raise RuntimeError(f"Ceph's gateway did not answer within a minute: {said}")


if __name__ == "__main__":
    if not sys.argv[1:] or shutil.which("unshare") is None:
        sys.exit("usage: python -m tests.servers.ceph COMMAND … (as root, with unshare and chroot)")
    sys.exit(main(sys.argv[1:]))
