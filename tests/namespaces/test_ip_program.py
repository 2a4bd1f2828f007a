"""An `ip` that is kept running says and does what one of its own for each batch does."""

from __future__ import annotations

import sys

import pytest

from .conftest import World

pytestmark = pytest.mark.namespaces

PRELUDE = """
import os, re, signal, subprocess, sys, time
from pathlib import Path
from kvmnet.adapters import ip_program
from kvmnet.errors import CommandFailed, TimedOut, Unavailable

def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

def kept():
    return ip_program._kept._programs

def pids():
    return {use: x._running.pid for use, x in kept().items()}
"""


@pytest.fixture
def host(world: World) -> World:
    world.bridge("br0", "10.7.0.1/24")
    return world


def python(host: World, text: str) -> list[str]:
    return host.run(sys.executable, "-P", "-c", PRELUDE + text).stdout.splitlines()


def test_answers_are_the_same_whatever_was_asked_before(host: World) -> None:
    python(
        host,
        """
QUESTIONS = (
    ["addr show dev lo"],
    ["addr show", "neigh show", "neigh show proxy", "route show table all", "rule show"],
    ["addr show dev nosuch"],
    ["route get 10.7.0.9", "route get 192.0.2.1", "route get 127.0.0.1"],
    ["addr show dev nosuch", "addr show dev lo", "addr show dev nosuch"],
    ["rule show"],
    ["addr show dev br0", "route show dev br0", "addr show dev lo"],
    ["address add 10.7.0.1/24 dev br0", "route flush proto 159", "addr show"],
    ["route get nonsense", "rule show"],  # ends the program
    [],
    ["nosuch", "rule show"],
)

# Counters count, timers run, and a new address is tentative for a while.
COUNT = re.compile(r',?"(age|used|users|confirmed|updated|probes|[a-z_]*timer|bytes|packets'
                   r'|multicast)":[\\d.]+|"tentative":true,')
def told(ask, lines):
    done = ask(lines)
    return done.status, COUNT.sub("", done.stdout), done.stderr

for ask in (ip_program.ask, ip_program.ask_ipv6):
    alone = [told(ask, x) for x in QUESTIONS]
    with ip_program.kept_to_answer():
        for _ in range(3):
            now = [told(ask, x) for x in QUESTIONS]
            assert now == alone, [x for x in zip(now, alone) if x[0] != x[1]]
assert {x[0] for x in alone} == {0, 1}, alone
assert "-:3" in alone[4][2] and "-:2" not in alone[4][2], alone[4]
""",
    )


def test_one_program_answers_until_one_is_wanted_that_has_no_past(host: World) -> None:
    python(
        host,
        """
with ip_program.kept_to_change():
    ip_program.ask(["rule show"])
    assert len(pids()) == 3, pids()
    kept().pop("changes").close()  # it is used once
    first = pids()
    for _ in range(20):
        ip_program.ask(["addr show"])
        ip_program.change(["link set br0 mtu 1400", "link set br0 mtu 1500"])
        ip_program.ask_ipv6(["rule show"])
    with ip_program.kept_to_answer():
        ip_program.ask(["rule show"])
    assert {x: pids()[x] for x in first} == first
    ip_program.start_anew()
    assert len(children()) == 0, "those that were let go have ended"
    assert "br0" in ip_program.ask(["link show"]).stdout
    assert pids() != first
assert ip_program._kept is None and not children()
""",
    )


CHANGES = """
def shown():
    run = lambda *x: subprocess.run(["ip", *x], capture_output=True, text=True).stdout
    return run("-brief", "address", "show") + run("route") + run("neigh")

def undo():
    for words in ("link del d0", "link del d1", "neigh del 10.7.0.5 dev br0"):
        subprocess.run(["ip", *words.split()], capture_output=True)

WELL = ["link add d0 type bridge", "address add 10.9.0.1/24 dev d0", "link set d0 up",
        "route add 10.10.0.0/16 via 10.9.0.7"]
BATCHES = (
    WELL,
    [],
    ["link set nosuch up", *WELL],
    [*WELL[:2], "address add 10.9.0.1/24 dev d0", *WELL[2:]],
    [*WELL, "nosuch"],
    ["address add nonsense dev br0", *WELL],
    ["neighbour add 10.7.0.5 lladdr 02:00:00:00:00:05 dev br0 nud permanent",
     "neighbour del 10.7.0.6 dev br0", *WELL],
    ["link add d0 type bridge", "link del d0", *WELL, "link set d0 down",
     "link set d0 name d1", "link set d1 up"],
)
alone = []
for batch in BATCHES:
    alone.append((ip_program.change(batch), shown()))
    undo()
"""


def test_changes_are_the_same_as_far_as_to_the_first_that_fails(host: World) -> None:
    python(
        host,
        CHANGES
        + """
with ip_program.kept_to_change():
    for _ in range(2):
        for batch, before in zip(BATCHES, alone):
            now = ip_program.change(batch), shown()
            # Indices of links go up, and with them the MAC-made addresses differ.
            plain = lambda x: [y for y in x.split() if not y.startswith("fe80:")]
            assert now[0] == before[0], (batch, now[0], before[0])
            assert plain(now[1]) == plain(before[1]), (batch, now[1], before[1])
            undo()
assert {0, 1, 2} >= {x.status for x, _ in alone} > {0, 1}, alone
""",
    )


def test_much_goes_in_and_much_comes_out(host: World) -> None:
    python(
        host,
        """
lines = [f"address add 10.8.{n // 250}.{n % 250 + 1}/32 dev br0" for n in range(3000)]
with ip_program.kept_to_change():
    assert ip_program.change(lines).status == 0
    told = ip_program.ask(["addr show", "route show table all"])
    assert told.stdout.count("10.8.") >= 6000 and len(told.stdout) > 500_000
    ways = [f"route get 10.8.{n // 250}.{n % 250 + 1}" for n in range(3000)]
    assert len(ip_program.ask(ways).stdout.splitlines()) == 3000
    bad = [*lines, "link show dev lo"]
    assert "-:1\\n" in ip_program.change(bad).stderr
""",
    )


def test_what_others_rename_or_make_anew_meanwhile_is_seen(host: World) -> None:
    python(
        host,
        """
from kvmnet.adapters import kernel
def sh(line):
    subprocess.run(["ip", *line.split()], check=True)
with ip_program.kept_to_change():
    kernel.read_network()
    assert ip_program.change(["link set br0 mtu 1400"]).status == 0
    sh("link set br0 down"), sh("link set br0 name br9"), sh("link set br9 up")
    found = kernel.read_network()
    assert {x.link for x in found.routes} <= {"lo", "br9"}, found.routes
    sh("link del br9"), sh("link add br9 type bridge"), sh("link set br9 up")
    assert ip_program.change(["address add 10.7.1.1/24 dev br9"]).status == 0
    found = kernel.read_network()
    assert any(x.link == "br9" and x.destination == "10.7.1.0/24" for x in found.routes)
""",
    )


def test_one_that_has_ended_is_replaced(host: World) -> None:
    python(
        host,
        """
with ip_program.kept_to_change():
    ip_program.ask(["rule show"])
    before = pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    assert ip_program.ask(["rule show"]).status == 0
    assert ip_program.ask_ipv6(["rule show"]).status == 0
    assert ip_program.change(["link set br0 mtu 1400"]).status == 0
    assert not set(pids().values()) & set(before.values())
""",
    )


def test_what_a_terminal_sends_does_not_reach_them(host: World) -> None:
    python(
        host,
        """
os.setpgid(0, 0)
with ip_program.kept_to_change():
    ip_program.ask(["rule show"])
    before = pids()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.killpg(0, number)
    time.sleep(0.2)
    ip_program.ask(["rule show"])
    ip_program.ask_ipv6(["rule show"])
    ip_program.change([])
    assert pids() == before
""",
    )


def test_they_end_with_a_kvmnet_that_is_killed(host: World) -> None:
    (line,) = python(
        host,
        """
copy = os.fork()
if copy == 0:
    with ip_program.kept_to_change():
        ip_program.ask(["rule show"])
        print(*pids().values(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(copy, 0)
""",
    )
    # Nobody waits for the dead in there.
    script = (
        'for pid in $*; do while [ -e /proc/$pid ] && ! grep -q "^State:.Z" /proc/$pid/status; '
        "do sleep 0.02; done; done"
    )
    host.run("timeout", "20", "sh", "-c", script, "sh", *line.split())


def test_a_copy_of_the_process_has_its_own(host: World) -> None:
    python(
        host,
        """
with ip_program.kept_to_change():
    ip_program.ask(["rule show"])
    copy = os.fork()
    if copy == 0:
        fine = ip_program._kept is None and ip_program.ask(["rule show"]).status == 0
        os._exit(0 if fine and ip_program.change(["link set br0 mtu 1400"]).status == 0 else 1)
    assert os.waitpid(copy, 0)[1] == 0
    assert '"mtu":1400' in ip_program.ask(["link show dev br0"]).stdout
""",
    )


def test_what_keeps_it_from_answering_is_told(host: World) -> None:
    """A program in `ip`'s place that says nothing, and none at all."""
    python(
        host,
        """
place = Path("/run/programs")
place.mkdir()
(place / "ip").write_text("#!/bin/sh\\nexec sleep 60\\n")
(place / "ip").chmod(0o755)
path, os.environ["PATH"] = os.environ["PATH"], f"{place}:{os.environ['PATH']}"
ip_program.DEFAULT_TIMEOUT_S = 0.3
with ip_program.kept_to_change():
    for use in (ip_program.ask, ip_program.ask_ipv6, ip_program.change):
        try:
            use(["rule show"])
        except TimedOut as error:
            assert "did not answer" in str(error), error
        else:
            raise SystemExit("it answered")
    assert not any(x.is_there() for x in kept().values()), "a late answer would be the next one's"
    ip_program.DEFAULT_TIMEOUT_S = 60
    def stop(*_): raise KeyboardInterrupt
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        ip_program.ask(["rule show"])
    except KeyboardInterrupt:
        pass
    else:
        raise SystemExit("it was not interrupted")
    assert not any(x.is_there() for x in kept().values())
    os.environ["PATH"] = path
    assert ip_program.ask(["rule show"]).status == 0
    (place / "ip").write_text("#!/bin/sh\\nread line\\nkill -9 $$\\n")
    os.environ["PATH"] = f"{place}:{path}"
    ip_program.start_anew()
    try:
        ip_program.change(["link set br0 up"])
    except CommandFailed as error:
        assert "-9" in str(error) or "signal" in str(error), error
    else:
        raise SystemExit("a program that was killed has done what it should")
(place / "ip").unlink()
import kvmnet.adapters.run as runs
runs.environment = lambda extra=None: {"PATH": str(place)}
with ip_program.kept_to_change():
    try:
        ip_program.ask(["rule show"])
    except Unavailable as error:
        assert "iproute2" in error.hint, error.hint
    else:
        raise SystemExit("there is none")
""",
    )


def test_threads_that_come_and_go_do_not_end_each_others(host: World) -> None:
    python(
        host,
        """
import threading
failures = []
def work(number):
    try:
        for n in range(60):
            if number % 2:
                with ip_program.kept_to_answer():
                    done = ip_program.ask(["rule show", "addr show dev br0"])
            else:
                done = ip_program.ask(["rule show", "addr show dev br0"])
            assert done.status == 0 and len(done.stdout.splitlines()) == 2, done
            if number == 3 and n % 9 == 0:
                ip_program.start_anew()
    except BaseException as error:
        failures.append(repr(error))
threads = [threading.Thread(target=work, args=(x,)) for x in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join(100)
assert not failures, failures
assert ip_program._kept is None and ip_program._holders == 0 and not children()
""",
    )


def test_nobody_comes_between_the_steps_of_a_change(host: World) -> None:
    """The two that answer wait like anybody else."""
    told = python(
        host,
        """
try:
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    allowed = os.SCHED_RR
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
except PermissionError:  # a container may not
    allowed = os.SCHED_OTHER
with ip_program.kept_to_change():
    ip_program.ask(["rule show"]), ip_program.ask_ipv6(["rule show"])
    ways = {use: os.sched_getscheduler(pid) for use, pid in pids().items()}
    assert ways["changes"] == allowed, ways
    assert ways["answers"] == ways["answers for IPv6"] == os.SCHED_OTHER, ways
    assert ip_program.change(["link set br0 down"]).status == 0
print("done")
""",
    )
    assert told == ["done"]
