"""What the tests of bridges ask of every machine, container or virtual."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from machines.lan import Silence, wait_for
from machines.machine import Job, Machine, Seen

CREATE = ("bridge", "create", "br0", "--yes", "--port")
SETTLE_S = 20.0
BACK_S = 60.0
"""The longest that any guard may take to put everything back."""

_measured: list[str] = []


class Before(Struct, frozen=True, kw_only=True):
    """A machine's network, and everything below its /etc."""

    addresses: frozenset[str]
    loopback: frozenset[str]
    routes: frozenset[str]
    mac: str
    links: frozenset[str]
    etc: dict[str, str]
    resolver: str


def look(m: Machine) -> Before:
    """The machine at rest: when it is twice the same. Managers go on after the boot is over."""
    now = _look(m)
    for _ in range(30):
        time.sleep(0.5)
        earlier, now = now, _look(m)
        if earlier == now:
            return now
    raise AssertionError(f"it does not come to rest: {differences(m, now)}")


def _look(m: Machine) -> Before:
    links = m.links()
    return Before(
        addresses=frozenset(m.addresses(m.uplink)),
        loopback=frozenset(m.addresses("lo")),
        routes=frozenset(m.routes()),
        mac=links[m.uplink]["address"],
        links=frozenset(links),
        etc=m.etc(),
        resolver=m.script("cat /etc/resolv.conf"),
    )


def create(m: Machine, *options: str) -> Seen:
    """Make br0 of the uplink while packets and a TCP connection go through it."""
    began = 0.0
    with m.watched() as watch:
        began = time.monotonic()
        done = m.kvmnet(*CREATE, m.uplink, *options, check=False)
        took = time.monotonic() - began
        time.sleep(1.5)  # what a manager breaks, it breaks a moment later
    note(m, f"create {took:.1f} s", watch.seen)
    assert done.status == 0, f"{done.stdout}{done.stderr}"
    return watch.seen


def assert_connected(seen: Seen) -> None:
    """The connection went on with every byte, and no packet came twice."""
    assert seen.talk.intact, seen
    assert seen.silence.doubled == 0, seen


def assert_hardly_lost(
    change: Callable[[], Seen], back: Callable[[], object], most_lost: int
) -> None:
    """A change that nobody's connection notices, and that loses `most_lost` packets at the most.

    One that loses more is made again, twice at the most: a machine that has to do something else
    at the wrong moment loses packets once, a fault does so each time. All are shown at the end.
    """
    seen = change()
    assert_connected(seen)
    for _ in range(2):
        if seen.silence.lost <= most_lost:
            break
        back()
        seen = change()
        assert_connected(seen)
    assert seen.silence.lost <= most_lost, seen


def undo(m: Machine, before: Before) -> Seen:
    """Undo what was done last, back to what was before, while packets and a TCP connection go
    through the bridge."""
    with m.watched() as watch:
        undone = m.kvmnet("undo", "--yes", check=False)
        time.sleep(1)
    note(m, "undo", watch.seen)
    assert undone.status == 0, undone
    assert_back(m, before)
    return watch.seen


def delete(m: Machine, before: Before) -> Seen:
    """Delete br0, back to what was before, while packets and a TCP connection go through it."""
    with m.watched() as watch:
        done = m.kvmnet("bridge", "delete", "br0", "--yes", check=False)
        time.sleep(1)
    note(m, "delete", watch.seen)
    assert done.status == 0, done
    assert_back(m, before)
    return watch.seen


def assert_bridged(m: Machine, before: Before) -> None:
    """br0 has all that the uplink had, and the uplink has nothing left but its place in br0."""
    assert m.is_bridged()
    missing = _not_bridged(m, before)
    end = time.monotonic() + SETTLE_S
    while missing:  # after a boot IPv6 takes its time
        assert time.monotonic() < end, missing
        time.sleep(0.2)
        missing = _not_bridged(m, before)
    m.run(["ping", "-c", "3", "-W", "2", "10.77.0.1"])


def _not_bridged(m: Machine, before: Before) -> list[str]:
    """What is not as it should be, for people."""
    moved = {re.sub(rf"\bdev {m.uplink}\b", "dev br0", x) for x in before.routes}
    routes, links = m.routes(), m.links()
    lost = {_plain(x) for x in moved if "fe80::" not in x} - {_plain(x) for x in routes}
    resolver = before.resolver.replace(f"%{m.uplink}", "%br0")
    now = {
        "br0's addresses": (m.addresses("br0"), before.addresses),
        "the uplink's addresses": (m.addresses(m.uplink), set()),
        "br0's MAC": (links["br0"]["address"], before.mac),
        "routes that are lost": (lost, set()),
        "routes by the uplink": ({x for x in routes if f"dev {m.uplink} " in f"{x} "}, set()),
        "resolv.conf": (m.script("cat /etc/resolv.conf"), resolver),
    }
    return [f"{what}: {is_}, not {wanted}" for what, (is_, wanted) in now.items() if is_ != wanted]


def _plain(route: str) -> str:
    """A route without what the kernel and managers note beside it."""
    words = route.split()
    for name in ("proto", "metric", "expires", "pref"):
        while name in words:
            at = words.index(name)
            del words[at : at + 2]
    return " ".join(words)


def is_as_before(m: Machine, before: Before) -> bool:
    return not differences(m, before)


def differences(m: Machine, before: Before) -> list[str]:
    """What is not as it was, for people."""
    now = _look(m)
    found = []
    if now.links != before.links:
        found.append(f"links: {sorted(now.links)}")
    if m.is_bridged():
        found.append("the uplink is still a port")
    if now.addresses != before.addresses:
        found.append(f"addresses: {sorted(now.addresses)}, not {sorted(before.addresses)}")
    if now.loopback != before.loopback:
        found.append(f"the loopback's addresses: {sorted(now.loopback)}")
    routes = {_plain(x) for x in now.routes} ^ {_plain(x) for x in before.routes}
    if routes:
        found.append(f"routes: {sorted(routes)}")
    if now.resolver != before.resolver:
        found.append(f"resolv.conf: {now.resolver}")
    for path in sorted(now.etc.keys() | before.etc.keys()):
        if now.etc.get(path) != before.etc.get(path):
            found.append(f"{path}: {now.etc.get(path)}, not {before.etc.get(path)}")
    return found


def assert_back(m: Machine, before: Before, within_s: float = 10.0) -> None:
    """All is as it was, or becomes so by itself in time."""
    left = differences(m, before)  # in a virtual machine a look takes seconds
    end = time.monotonic() + within_s
    while left:
        assert time.monotonic() < end, left
        time.sleep(0.2)
        left = differences(m, before)
    m.run(["ping", "-c", "3", "-W", "2", "10.77.0.1"])


def block_bridges(m: Machine) -> None:
    """Have the host drop what comes in by any bridge: no gateway will answer through br0."""
    m.script(
        "nft 'add table bridge cut; add chain bridge cut in { type filter hook input priority 0; "
        "policy drop; }'"
    )


def begin_unconfirmed(m: Machine, seconds: int) -> Job:
    """Make br0, and come to the point where a person has to confirm."""
    job = m.start(["kvmnet", *CREATE, m.uplink, "--confirm", f"manual={seconds}"])

    def waits() -> bool:
        assert not job.ended, job.wait()
        return any(x.outcome == "open" and x.begun == x.steps for x in history(m))

    wait_for("the last step", waits, 60)
    assert m.is_bridged()
    return job


class Past(Struct, frozen=True, kw_only=True):
    """A transaction in the machine's journal."""

    outcome: str
    begun: int
    steps: int
    why: str


_READ_JOURNAL = """
import json, pathlib
for path in sorted(pathlib.Path("/var/lib/kvmnet/transactions").glob("*.json")):
    t = json.loads(path.read_text())
    print(json.dumps({"outcome": t["outcome"], "begun": t["begun"],
                      "steps": len(t["plan"]["steps"]), "why": t["why"]}))
"""


def history(m: Machine) -> list[Past]:
    """The journal's transactions, the newest last."""
    lines = m.run(["python3", "-c", _READ_JOURNAL]).stdout.splitlines()
    return [msgspec.json.decode(line, type=Past) for line in lines]


def assert_nothing_open(m: Machine) -> None:
    """No transaction is left half-way, and nobody guards one any more."""
    assert all(x.outcome in ("kept", "undone") for x in history(m)), history(m)
    assert "kvmnet" not in m.script("systemctl list-timers --all --no-legend 'kvmnet*'")


def note(m: Machine, what: str, seen: Seen) -> None:
    """Keep a measurement for the end of the run."""
    s: Silence = seen.silence
    _measured.append(
        f"{type(m).__name__:9} {m.manager:14} {m.config:6} {what:16} lost {s.lost} of {s.sent}, "
        f"silence {s.silence_ms:.0f} ms (own {s.own_ms:.0f}), late {s.late_ms:.0f} ms, "
        f"TCP {'whole' if seen.talk.intact else 'BROKEN'}, waited {seen.talk.longest_ms:.0f} ms"
    )


def measured() -> list[str]:
    return _measured
