"""A lab comes up whole, is seen by nobody else, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvmnet.errors import CommandFailed, InvalidInput, NotFound, Refused, TimedOut
from kvmnet.lab import inspect, record, start, topology
from kvmnet.lab.lab import Lab
from kvmnet.lab.record import Process, Record

from .conftest import start_lab, unique_name

pytestmark = pytest.mark.lab

KVMNET = [sys.executable, "-m", "kvmnet"]


def machine_network() -> str:
    """The machine's own links, addresses, routes, namespaces and firewall."""
    commands = (
        ["ip", "-o", "link"],
        ["ip", "-o", "-4", "address"],
        ["ip", "route"],
        ["ip", "netns", "list"],
        ["nft", "list", "tables"],
    )
    shown = "".join(
        subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10).stdout
        for argv in commands
    )
    return re.sub(r"(valid|preferred)_lft \S+", "", shown)


class PidNamespace:
    """A PID namespace, held open so that the kernel can't give its number to another one."""

    def __init__(self, pid: int) -> None:
        self._handle = open(f"/proc/{pid}/ns/pid", "rb")  # noqa: SIM115
        self._number = os.fstat(self._handle.fileno()).st_ino

    def processes(self) -> list[str]:
        """Everything that runs in it: pid and command line. Zombies do not count."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or record.start_time(int(entry.name)) is None:
                    continue
                if (entry / "ns/pid").stat().st_ino == self._number:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append(f"{entry.name} {words}")
            except OSError:
                continue
        return found


def wait_until(check: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def name() -> Iterator[str]:
    chosen = unique_name()
    yield chosen
    start.down(chosen)


def test_all_places_reach_the_internet(shared_lab: Lab) -> None:
    for where in (topology.HOST, topology.PEER, topology.ROUTER):
        page = shared_lab.run(
            where, ["busybox", "wget", "-q", "-O-", f"http://{topology.WEB_NAME}/"]
        )
        assert page.stdout == topology.WEB_PAGE + "\n", where


def test_the_lan_has_ipv6(shared_lab: Lab) -> None:
    shared_lab.run("host", ["busybox", "ping", "-6", "-c", "1", "-W", "3", topology.WEB_IP6])
    shared_lab.run("peer", ["busybox", "ping", "-6", "-c", "1", "-W", "3", topology.ROUTER_IP6])


def test_host_and_peer_have_leases_of_the_router(shared_lab: Lab) -> None:
    for where, nic, ip in (
        ("host", topology.HOST_NIC, topology.HOST_IP),
        ("peer", topology.PEER_NIC, topology.PEER_IP),
    ):
        raw = shared_lab.run(where, ["ip", "-j", "-4", "address", "show", "dev", nic]).stdout
        (entry,) = json.loads(raw)[0]["addr_info"]
        assert entry["local"] == ip
        assert entry["dynamic"] is True
        assert 0 < entry["valid_life_time"] <= 3600


def test_names_of_the_lan(shared_lab: Lab) -> None:
    answer = shared_lab.run("peer", ["busybox", "ping", "-4", "-c", "1", "-W", "3", "host"])
    assert topology.HOST_IP in answer.stdout


def test_a_large_transfer_passes_with_right_checksums(shared_lab: Lab) -> None:
    shared_lab.run(
        "host", ["sh", "-c", "mkdir -p /run/big; head -c 3000000 /dev/urandom > /run/big/f"]
    )
    server = shared_lab.spawn("host", ["busybox", "httpd", "-f", "-p", "8099", "-h", "/run/big"])
    try:
        wait_until(
            lambda: ":8099" in shared_lab.run("host", ["ss", "-ltn"]).stdout, "the server listens"
        )
        url = f"http://{topology.HOST_IP}:8099/f"
        script = f"busybox wget -q -O- {url} | md5sum"
        got = shared_lab.run("peer", ["sh", "-c", script]).stdout.split()[0]
        assert got == shared_lab.run("host", ["md5sum", "/run/big/f"]).stdout.split()[0]
    finally:
        server.kill()
        server.wait(5)


def test_libvirt_starts_empty(shared_lab: Lab) -> None:
    assert shared_lab.run("host", ["virsh", "list", "--all", "--name"]).stdout.strip() == ""
    assert shared_lab.run("host", ["virsh", "net-list", "--all", "--name"]).stdout.strip() == ""


def test_nothing_of_the_machine_shows_inside(shared_lab: Lab) -> None:
    links = json.loads(shared_lab.run("host", ["ip", "-j", "link"]).stdout)
    assert {x["ifname"] for x in links} == {"lo", topology.HOST_NIC}
    seen = shared_lab.run("host", ["ls", "/sys/class/net"]).stdout.split()
    assert sorted(seen) == [topology.HOST_NIC, "lo"]
    assert shared_lab.run("host", ["hostname"]).stdout == "host\n"
    script = "touch /etc/kvmnet-mark /var/lib/kvmnet-mark /var/log/kvmnet-mark /run/kvmnet-mark"
    shared_lab.run("host", ["sh", "-c", script])
    for folder in ("/etc", "/var/lib", "/var/log", "/run"):
        assert not Path(folder, "kvmnet-mark").exists()


def test_errors_of_run(shared_lab: Lab) -> None:
    with pytest.raises(NotFound, match="no place 'moon'"):
        shared_lab.run("moon", ["true"])
    with pytest.raises(CommandFailed) as failed:
        shared_lab.run("host", ["sh", "-c", "echo broken >&2; exit 3"])
    assert failed.value.status == 3
    assert "broken" in failed.value.why
    begin = time.monotonic()
    with pytest.raises(TimedOut):
        shared_lab.run("host", ["sh", "-c", "sleep 30 & sleep 30"], timeout=0.5)
    assert time.monotonic() - begin < 5


def test_exec_for_people(shared_lab: Lab) -> None:
    base = [*KVMNET, "lab", "exec", "--name", shared_lab.name]

    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*base, *words], capture_output=True, text=True, timeout=20, input=stdin, check=False
        )

    assert run("peer", "hostname").stdout == "peer\n"
    assert run("host", "cat", stdin="through\n").stdout == "through\n"
    assert run("host", "sh", "-c", "exit 7").returncode == 7
    assert run("host", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    missing = run("host", "no-such-program")
    assert missing.returncode == 127
    assert "not found" in missing.stderr
    unknown = run("moon", "true")
    assert unknown.returncode == 1
    assert "no place 'moon'" in unknown.stderr
    assert "host, router, peer, internet" in unknown.stderr


def test_exec_hands_signals_on(shared_lab: Lab) -> None:
    script = "trap 'echo told; exit 5' TERM; echo begun; while :; do sleep 0.1; done"
    process = shared_lab.spawn("host", ["sh", "-c", script])
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == b"told\n"
    assert process.wait(10) == 5


def test_kvmnet_inside(shared_lab: Lab) -> None:
    assert shared_lab.kvmnet("--version").stdout.startswith("kvmnet ")
    outside = subprocess.run(
        [*KVMNET, f"--lab={shared_lab.name}", "mac", "-n", "2"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert len(outside.stdout.split()) == 2


def test_status(shared_lab: Lab) -> None:
    places = {x.where: x for x in inspect.places(shared_lab.record)}
    assert list(places) == ["host", "router", "peer", "internet"]
    assert f"eth1 {topology.HOST_IP}/24" in places["host"].addresses
    assert {"libvirtd", "dropbear", "udhcpc"} <= set(places["host"].daemons)
    assert "dnsmasq" in places["router"].daemons
    assert "httpd" in places["internet"].daemons
    shown = subprocess.run(
        [*KVMNET, "lab", "status", "--json"], capture_output=True, text=True, timeout=30, check=True
    )
    document = json.loads(shown.stdout)
    assert document["format"] == "kvmnet.lab"
    assert shared_lab.name in [x["name"] for x in document["labs"]]


def test_two_labs_side_by_side_and_the_machine_is_not_touched(shared_lab: Lab) -> None:
    before = machine_network()
    with start_lab() as other:
        shared_lab.run("host", ["ip", "link", "add", "br7", "type", "bridge"])
        assert "br7" not in other.run("host", ["ip", "link"]).stdout
        assert "br7" in shared_lab.run("host", ["ip", "link"]).stdout
        assert machine_network() == before
        name, folder = other.name, record.folder(other.name)
        assert folder.exists()
    assert machine_network() == before
    assert not folder.exists()
    assert shared_lab.alive
    with pytest.raises(NotFound, match=f"'{name}' is not up"):
        Lab.attach(name)
    shared_lab.run("host", ["ip", "link", "delete", "br7"])


def test_libvirtd_can_be_stopped_and_started(shared_lab: Lab) -> None:
    shared_lab.stop_libvirtd()
    version = ["virsh", "version"]
    assert shared_lab.run("host", version, accept=range(256)).status != 0
    shared_lab.start_libvirtd()
    shared_lab.run("host", version)
    shared_lab.signal_libvirtd(signal.SIGSTOP)
    try:
        with pytest.raises(TimedOut):
            shared_lab.run("host", version, timeout=1)
    finally:
        shared_lab.signal_libvirtd(signal.SIGCONT)
    shared_lab.run("host", version)


def test_up_twice_is_refused_and_the_first_goes_on(shared_lab: Lab) -> None:
    with pytest.raises(Refused, match="up already"):
        Lab.up(shared_lab.name)
    assert shared_lab.alive


def test_labs_starting_at_once(name: str) -> None:
    words = [*KVMNET, "lab", "up", "--quiet", "--name", name]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ended = sorted((x.wait(60), (x.stderr.read() if x.stderr else "")) for x in both)
    assert [status for status, _ in ended] == [0, 3]
    assert "up already" in ended[1][1]
    lab = Lab.attach(name)
    lab.run("host", ["virsh", "version"])


def test_killed_init_leaves_nothing(name: str) -> None:
    lab = Lab.up(name)
    space = PidNamespace(lab.record.init.pid)
    assert len(space.processes()) > 5
    os.kill(lab.record.init.pid, signal.SIGKILL)
    wait_until(lambda: not space.processes(), "all processes of the lab are gone")
    shown = subprocess.run(
        [*KVMNET, "lab", "status"], capture_output=True, text=True, timeout=30, check=True
    )
    assert f"the lab '{name}' had crashed" in shown.stderr
    assert not record.folder(name).exists()


def test_killed_up_leaves_nothing(name: str) -> None:
    process = subprocess.Popen([*KVMNET, "lab", "up", "--name", name], stderr=subprocess.DEVNULL)
    path = record.folder(name) / "record.json"
    wait_until(path.exists, "the lab has begun to start")
    known = record.read(name)
    assert known is not None
    space = PidNamespace(known.init.pid)
    time.sleep(0.5)
    process.kill()
    process.wait(10)
    assert known.phase == "starting"
    wait_until(lambda: not space.processes(), "its init notices")
    with Lab.up(name) as lab:
        lab.run("host", ["virsh", "version"])
    assert not record.folder(name).exists()


def test_interrupted_up_leaves_nothing(name: str) -> None:
    process = subprocess.Popen(
        [*KVMNET, "lab", "up", "--name", name], stderr=subprocess.PIPE, text=True
    )
    wait_until((record.folder(name) / "record.json").exists, "the lab has begun to start")
    known = record.read(name)
    assert known is not None
    space = PidNamespace(known.init.pid)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in complaint
    assert not record.folder(name).exists()
    assert not space.processes()


def test_a_temporary_lab_ends_with_its_process(name: str) -> None:
    script = (
        "import sys, time; from kvmnet.lab.lab import Lab; "
        "lab = Lab.temporary(sys.argv[1]); print(lab.record.init.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    init = int(process.stdout.readline())
    space = PidNamespace(init)
    process.kill()
    process.wait(10)
    wait_until(lambda: not space.processes(), "the lab noticed")
    assert name in start.tidy_stale()


def test_a_reused_pid_is_nobodys_lab(name: str) -> None:
    folder = record.folder(name)
    folder.mkdir(parents=True)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        record.write(
            Record(name=name, phase="up", init=Process(pid=stranger.pid, start=1), started_at=1)
        )
        with pytest.raises(NotFound, match="is not up"):
            Lab.attach(name)
        assert start.down(name)
        assert not folder.exists()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(5)


@pytest.mark.parametrize("bad", ["", "../x", "a b", "-a", "x" * 41, "ä"])
def test_hostile_names_are_refused(bad: str) -> None:
    with pytest.raises(InvalidInput):
        Lab.up(bad)
    with pytest.raises(InvalidInput):
        start.down(bad)


def test_only_root() -> None:
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *KVMNET, "lab", "up"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert "the lab needs root" in done.stderr
    assert "sudo" in done.stderr


def test_a_chroot_is_refused_because_the_lab_would_get_out_of_it(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, subprocess, sys
root = pathlib.Path({str(tmp_path)!r}) / "root"
root.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", root], check=True)
for entry in pathlib.Path("/").iterdir():
    place = root / entry.name
    if entry.is_symlink():
        place.symlink_to(os.readlink(entry))
    elif entry.is_dir():
        place.mkdir()
        subprocess.run(["mount", "--rbind", entry, place], check=True)
os.chroot(root)
os.chdir("/")
os.execv({sys.executable!r}, {[*KVMNET, "lab", "up", "--name", "chrooted"]!r})
"""
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", sys.executable, "-P", "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "can not start in a chroot" in done.stderr
    assert not record.folder("chrooted").exists()
