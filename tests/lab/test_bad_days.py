"""Bad days: whatever is down, hanging, forbidden, broken or in the way, there is one clear error,
in bounded time, and the next command finds a host that is whole."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmnet.adapters.run import Completed
from kvmnet.lab.lab import Lab
from kvmnet.lab.topology import HOST, HOST_NIC, USER_HOME, USER_ID

pytestmark = pytest.mark.lab

DRIVER = str(Path(__file__).with_name("transaction_driver.py"))
KVMNET = (sys.executable, "-m", "kvmnet")
AS_USER = ("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", "env",
           f"HOME={USER_HOME}", f"XDG_RUNTIME_DIR={USER_HOME}")  # fmt: skip
ON_SYSTEM = ("--connect", "qemu:///system")
STATE = "/var/lib/kvmnet"
SYSTEMS_NETWORKS = "/etc/libvirt/qemu/networks"

REFUSED_S = 10.0
"""One attempt to connect to a libvirtd that hangs: five seconds, and a slow machine's start."""
GIVEN_UP_S = 40.0
"""A step that waits for a restart in vain (15 to 20 s), and a short try for each undo."""


def sh(lab: Lab, script: str) -> str:
    return lab.run(HOST, ["sh", "-ec", script]).stdout


def kvmnet(lab: Lab, *words: str, status: int = 0, **env: str) -> Completed:
    return one_clear_error(lab.kvmnet(*words, accept=range(256), env=env), status)


def one_clear_error(done: Completed, status: int) -> Completed:
    assert done.status == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if status not in (0, 2):
        assert done.stderr.count("\nkvmnet: ") + done.stderr.startswith("kvmnet: ") >= 1
        assert "try: " in done.stderr, done.stderr
    return done


def look(lab: Lab) -> str:
    return sh(lab, "virsh net-list --all | sort; ip -o link | cut -d: -f2 | grep -v vnet;"
              f"cat /proc/sys/net/ipv6/conf/{HOST_NIC}/accept_ra")  # fmt: skip


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@contextlib.contextmanager
def hanging(lab: Lab) -> Iterator[None]:
    lab.signal_libvirtd(signal.SIGSTOP)
    try:
        yield
    finally:
        lab.signal_libvirtd(signal.SIGCONT)


@pytest.fixture(autouse=True)
def before(lab: Lab) -> str:
    """The host with the networks `old`, on which tests that fail leave nothing to others."""
    for name in sh(lab, "virsh net-list --all --name").split():
        if name != "old":
            sh(lab, f"virsh net-destroy {name} || true; virsh net-undefine {name} || true")
    sh(lab, f"rm -rf {STATE}; echo 1 > /proc/sys/net/ipv6/conf/{HOST_NIC}/accept_ra")
    if "old" not in sh(lab, "virsh net-list --all --name").split():
        kvmnet(lab, "network", "create", "old")
    return look(lab)


HANGING = {
    "network create x": 1, "up": 1, "status": 0, "mac": 0,
    "probe network:old": 1, "network list": 1, "guest list": 1,
}  # fmt: skip


def test_a_libvirtd_that_hangs_before(lab: Lab, before: str) -> None:
    with hanging(lab), within(2 * REFUSED_S):
        all_at_once = [lab.spawn(HOST, [*KVMNET, *words.split()]) for words in HANGING]
        told = [b"".join(one.communicate(timeout=60)).decode() for one in all_at_once]
    found = dict(zip(HANGING, (one.returncode for one in all_at_once), strict=True))
    assert found == HANGING, told
    for text in told:
        assert "Traceback" not in text
        assert "did not answer" in text or "waiting for another kvmnet" in text, text
        assert "waiting for libvirt to answer" in text or "another kvmnet" in text, text
        assert "there are no " not in text and ": none" not in text, "that is not known"
    assert look(lab) == before
    assert "did not answer" not in kvmnet(lab, "status").stdout


def test_a_libvirtd_that_hangs_in_the_middle(lab: Lab, before: str) -> None:
    driver = [sys.executable, DRIVER, "create", "new", "libvirtd-hangs", "done", "3"]
    try:
        with within(GIVEN_UP_S):
            done = lab.run(HOST, driver, accept=range(256), timeout=90)
        assert done.status == 5, done.stdout + done.stderr
    finally:
        lab.signal_libvirtd(signal.SIGCONT)
    told = kvmnet(lab, "network", "start", "absent", status=1).stderr
    assert "undoing" in told
    assert look(lab) == before


def test_a_libvirtd_that_is_killed_for_good(lab: Lab, before: str) -> None:
    driver = [sys.executable, DRIVER, "create", "new", "libvirtd-dies", "done", "4"]
    with within(GIVEN_UP_S):
        done = lab.run(HOST, driver, accept=range(256), timeout=90)
    assert done.status == 5, done.stdout + done.stderr
    lab.start_libvirtd()
    kvmnet(lab, "network", "start", "absent", status=1)
    assert look(lab) == before


@pytest.mark.parametrize(
    "words",
    ["network create x", "network start old", "network stop old", "network delete old --yes", "up",
     "probe network:old", f"mac --probe {HOST_NIC}", "lab up"],
)  # fmt: skip
def test_an_ordinary_user_is_told_what_he_may_not(lab: Lab, before: str, words: str) -> None:
    sh(lab, "chmod 700 /run/libvirt/libvirt-sock")
    try:
        command = [*AS_USER, *KVMNET, *ON_SYSTEM, *words.split()]
        done = one_clear_error(lab.run(HOST, command, accept=range(256)), 1)
    finally:
        sh(lab, "chmod 777 /run/libvirt/libvirt-sock")
    assert "root" in done.stderr or "sudo" in done.stderr
    assert look(lab) == before


def test_a_member_of_libvirts_group_changes_networks_but_not_the_host(
    lab: Lab, before: str
) -> None:
    words = [*AS_USER, *KVMNET, *ON_SYSTEM, "network"]
    refused = lab.run(HOST, [*words, "create", "six", "--ipv6", "auto"], accept=range(256))
    one_clear_error(refused, 1)
    assert "nothing was changed" in refused.stderr and "accept_ra" in refused.stderr
    assert look(lab) == before
    one_clear_error(lab.run(HOST, [*words, "create", "four"], accept=range(256)), 0)
    one_clear_error(lab.run(HOST, [*words, "delete", "four", "--yes"], accept=range(256)), 0)
    assert look(lab) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [("s/192.168/999.168/", "192"), ("s/<bridge /<brigde /", "x"), ("s/.*//", "empty"),
     ("s/name='virbr/name='..\\/..\\/virbr/", "path")],
)  # fmt: skip
def test_a_definition_edited_into_nonsense_is_named_and_kept(
    lab: Lab, before: str, change: str, why: str
) -> None:
    kvmnet(lab, "network", "create", "edited")
    sh(lab, f'virsh net-destroy edited; sed -i "{change}" {SYSTEMS_NETWORKS}/edited.xml')
    broken = sh(lab, f"cat {SYSTEMS_NETWORKS}/edited.xml")
    lab.stop_libvirtd()
    lab.start_libvirtd()
    try:
        listed = kvmnet(lab, "network", "list")
        if "edited" in listed.stdout:  # libvirt took it: then kvmnet must do so, too
            kvmnet(lab, "status")
            return
        assert f"{SYSTEMS_NETWORKS}/edited.xml" in listed.stderr
        assert "old" in listed.stdout, "the others go on"
        for words in (["network", "create", "edited"], ["up", "edited"]):
            refused = kvmnet(lab, *words, status=3)
            assert "restart libvirtd" in refused.stderr
        assert sh(lab, f"cat {SYSTEMS_NETWORKS}/edited.xml") == broken
    finally:
        sh(lab, "virsh net-undefine edited || true")
        sh(lab, f"rm -f {SYSTEMS_NETWORKS}/edited.xml {SYSTEMS_NETWORKS}/autostart/edited.xml")


@pytest.mark.parametrize(
    "content",
    ["", "{", "null", "[]", '{"id": "x"}', "\\000\\377\\001", '{"format":"kvmnet.future"}'],
)
def test_a_hostile_journal_is_named(lab: Lab, before: str, content: str) -> None:
    file = f"{STATE}/transactions/20260101T000000.000000-1.json"
    sh(lab, f"mkdir -p {STATE}/transactions; printf '%b' '{content}' > {file}")
    done = kvmnet(lab, "network", "create", "x", status=1)
    assert file in done.stderr and "move it away" in done.stderr
    assert look(lab) == before
    kvmnet(lab, "status")


def test_a_truncated_journal_of_a_real_change_is_named(lab: Lab, before: str) -> None:
    kvmnet(lab, "network", "create", "x")
    sh(lab, f"for f in {STATE}/transactions/*.json; do truncate -s 100 $f; done")
    done = kvmnet(lab, "network", "delete", "x", "--yes", status=1)
    assert f"{STATE}/transactions/" in done.stderr


@pytest.mark.parametrize(
    "script",
    [f"touch {STATE}", f"ln -s /nowhere/at/all {STATE}",
     f"mkdir {STATE}; touch {STATE}/transactions",
     f"mkdir {STATE}; mount -t tmpfs -o ro tmpfs {STATE}"],
)  # fmt: skip
def test_a_journal_that_can_not_be_kept(lab: Lab, before: str, script: str) -> None:
    sh(lab, f"rm -rf {STATE}; {script}")
    try:
        done = kvmnet(lab, "network", "create", "x", status=3)
        assert "nothing was changed" in done.stderr and STATE in done.stderr
        assert look(lab) == before
        kvmnet(lab, "status")
        kvmnet(lab, "network", "create", "x", "--dry-run")
    finally:
        sh(lab, f"umount {STATE} 2>/dev/null || true; rm -rf {STATE}")


@pytest.mark.parametrize(
    "script",
    ["mkdir -p /run/kvmnet/lock", "touch /run/kvmnet",
     "mkdir /run/kvmnet; mount -t tmpfs -o ro tmpfs /run/kvmnet", "mkfifo /run/kvmnet"],
)  # fmt: skip
def test_a_lock_that_can_not_be_had(lab: Lab, before: str, script: str) -> None:
    sh(lab, f"rm -rf /run/kvmnet; {script}")
    try:
        done = kvmnet(lab, "network", "create", "x", status=1)
        assert "/run/kvmnet/lock" in done.stderr
        assert look(lab) == before
    finally:
        sh(lab, "umount /run/kvmnet 2>/dev/null || true; rm -rf /run/kvmnet")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["status", "network create x", "mac -n 3", "--help"])
def test_closed_streams(lab: Lab, before: str, closed: str, words: str) -> None:
    done = lab.run(HOST, ["sh", "-c", f"{sys.executable} -m kvmnet {words} {closed}"],
                   accept=range(256))  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.status in (0, 1)
    if "create" in words:
        assert "x" in sh(lab, "virsh net-list --name").split(), "it was done all the same"


def test_two_ups_at_once(lab: Lab, before: str) -> None:
    both = [lab.spawn(HOST, [*KVMNET, "up", "both"]) for _ in range(2)]
    told = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    outputs = [out.decode() for out, _err in told]
    assert sum("nothing had to be changed" in out for out in outputs) == 1
    assert all("guests on network both are online" in out for out in outputs)


def test_ctrl_c_while_waiting_for_the_lock(lab: Lab, before: str) -> None:
    script = (
        "import time\nfrom kvmnet.adapters import lock\n"
        "with lock.hold('a long change', print):\n print('held', flush=True)\n time.sleep(60)\n"
    )
    holder = lab.spawn(HOST, [sys.executable, "-c", script])
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        script = f"echo $$; exec {' '.join(KVMNET)} up new"
        waiting = lab.spawn(HOST, ["sh", "-c", script])
        assert waiting.stderr is not None and waiting.stdout is not None
        pid = int(waiting.stdout.readline())
        told = iter(waiting.stderr.readline, b"")  # on a busy machine libvirt is waited for first
        line = next(x for x in map(bytes.decode, told) if "another kvmnet" in x)
        assert "waiting for another kvmnet" in line and "a long change" in line
        lab.run(HOST, ["kill", "-INT", str(pid)])
        _out, err = waiting.communicate(timeout=10)
        assert waiting.returncode == 130
        assert "stopped by the user" in err.decode() and "Traceback" not in err.decode()
    finally:
        holder.kill()
        holder.wait(10)
    assert look(lab) == before
