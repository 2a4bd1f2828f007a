"""How fast kvmnet is, side by side with what people use otherwise, in one run.

Each table measures ours and the peer's in turn (A B A B …), so that a machine whose speed drifts
treats both alike; medians are printed, and their ratio beside the limit that the project set
itself.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import bridge_switch
import doctor
import trace_cost

from kvmnet.lab.lab import Lab

HERE = Path(__file__).parent
STOCK_NETWORK = """<network><name>stock</name><forward mode='nat'/>
<bridge name='virbr7' stp='on' delay='0'/><ip address='10.99.0.1' netmask='255.255.255.0'>
<dhcp><range start='10.99.0.2' end='10.99.0.254'/></dhcp></ip></network>"""
"""The network that libvirt's own packages bring, on another subnet."""

GUESTS = 200
NEIGHBOURS = 1000
VIRT_XML_GUESTS = 5
LIVE_MOVES = 5


class Row(NamedTuple):
    """One line of the table: medians in milliseconds, and what the ratio has to be."""

    what: str
    ours: list[float]
    peer: list[float]
    peer_name: str
    limit: str
    holds: Callable[[float], bool]

    def line(self) -> str:
        ours, peer = statistics.median(self.ours), statistics.median(self.peer)
        ratio = ours / peer
        shown = f"{ratio:.1f} times" if ratio >= 1 else f"{1 / ratio:.1f} times faster"
        verdict = "yes" if self.holds(ratio) else "NO"
        return (
            f"| {self.what} | {ours:,.0f} ms | {peer:,.0f} ms ({self.peer_name}) | {shown} "
            f"| {self.limit} | {verdict} |"
        )


def in_turn(
    lab: Lab, ours: Sequence[str], peer: Sequence[str], runs: int, peer_runs: int
) -> tuple[list[float], list[float]]:
    """Both programs timed in turn inside the lab's host; the peer less often where it is slow."""
    job = {"ours": list(ours), "peer": list(peer), "runs": runs, "peer_runs": peer_runs}
    script = [sys.executable, str(HERE / "in_turn.py"), json.dumps(job)]
    times = json.loads(lab.run("host", script, timeout=300).stdout)
    return times["ours"], times["peer"]


def kvmnet(*words: str) -> list[str]:
    """The command as users have it on their PATH."""
    return [str(Path(sys.executable).with_name("kvmnet")), *words]


def lease(lab: Lab) -> list[Row]:
    """Plugging in until the lease is held, by the same stand-in guest on both networks."""
    lab.run("host", ["virsh", "net-define", "/dev/stdin"], stdin=STOCK_NETWORK)
    lab.run("host", ["virsh", "net-start", "stock"])
    lab.kvmnet("network", "create", "ours")
    stock: list[float] = []
    ours: list[float] = []
    for number in range(7):
        ours.append(plug_to_lease(lab, "network:ours"))
        if number < 3:
            stock.append(plug_to_lease(lab, "network:stock"))
    return [
        Row("plugging in until the lease is held", ours, stock, "libvirt's stock network",
            "50 times faster", lambda ratio: ratio <= 1 / 50)
    ]  # fmt: skip


def plug_to_lease(lab: Lab, target: str) -> float:
    """Milliseconds from the moment the NIC is plugged in until the lease is held."""
    report = json.loads(lab.kvmnet("probe", target, "--json", timeout=60).stdout)["report"]
    wanted = {"link", "dhcp"}
    return sum(step["ms"] for step in report["steps"] if step["name"] in wanted)


def startup(lab: Lab) -> list[Row]:
    """Whole processes, as a shell sees them: the interpreter alone against the command."""
    bare = ["/usr/bin/python3", "-c", "pass"]
    rows = []
    for words, limit in ((["--help"], 5), (["mac"], 12)):
        mine, theirs = in_turn(lab, kvmnet(*words), bare, runs=25, peer_runs=25)
        rows.append(
            Row(f"kvmnet {words[0]}", mine, theirs, "python3 -c pass", f"at most {limit} times",
                lambda ratio, limit=limit: ratio <= limit)
        )  # fmt: skip
    return rows


def guests(lab: Lab) -> list[Row]:
    """All guests with their addresses: ours, and the loop over virsh that people write."""
    fill(lab)
    mine, theirs = in_turn(
        lab,
        kvmnet("guest", "list", "--json"),
        ["sh", str(HERE / "virsh-loop.sh")],
        runs=9,
        peer_runs=2,
    )
    return [
        Row(f"guest list --json, {GUESTS} guests", mine, theirs, "virsh, guest by guest", "faster",
            lambda ratio: ratio < 1)
    ]  # fmt: skip


def status(lab: Lab) -> list[Row]:
    """The whole picture against the bare calls that it needs, nothing parsed, nothing printed."""
    fill(lab)
    mine, theirs = in_turn(
        lab,
        kvmnet("status"),
        ["/usr/bin/python3", str(HERE / "bare_calls.py")],
        runs=15,
        peer_runs=15,
    )
    return [
        Row(f"status, {GUESTS} guests, {NEIGHBOURS} neighbours", mine, theirs,
            "the bare calls", "at most 3 times", lambda ratio: ratio <= 3)
    ]  # fmt: skip


def fill(lab: Lab) -> None:
    script = [sys.executable, str(HERE / "fill.py"), str(GUESTS), str(NEIGHBOURS)]
    lab.run("host", script, timeout=120)


def convert(lab: Lab) -> list[Row]:
    """A definition of 1 MiB: one NIC put on a bridge; lxml only reads and writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "large.xml"))
        lab.run("host", [sys.executable, str(HERE / "large_domain.py"), path, "1"])
        mine, theirs = in_turn(
            lab,
            kvmnet("guest", "convert", path, "--to", "bridge:br0"),
            [sys.executable, str(HERE / "lxml_alone.py"), path],
            runs=25,
            peer_runs=25,
        )
    return [
        Row("guest convert, 1 MiB", mine, theirs, "lxml, parse and serialise", "at most 3 times",
            lambda ratio: ratio <= 3)
    ]  # fmt: skip


def move(lab: Lab) -> list[Row]:
    """Guests that are off put on a bridge: the bare calls, and the loop that people write."""
    fill(lab)
    for words in ("link add br0 type bridge", "link set br0 up"):
        lab.run("host", ["ip", *words.split()])
    there = kvmnet("guest", "move", "--all", "--from", "network:default", "--to", "bridge:br0")
    back = ["/usr/bin/python3", str(HERE / "bare_moves.py")]  # moves them to where they are not
    mine, bare = in_turn(lab, there, back, runs=9, peer_runs=9)
    rows = [
        Row(f"guest move, {GUESTS} guests that are off", mine, bare, "the bare calls",
            "at most 1.5 times", lambda ratio: ratio <= 1.5)
    ]  # fmt: skip
    if shutil.which("virt-xml") is None:
        print("bench: virt-xml is not installed (virtinst): not measured", file=sys.stderr)
        return rows
    loop = ["sh", str(HERE / "virt-xml-loop.sh"), str(VIRT_XML_GUESTS)]
    _, few = in_turn(lab, ["true"], loop, runs=2, peer_runs=2)
    reckoned = [x * GUESTS / VIRT_XML_GUESTS for x in few]
    peer = f"virt-xml --edit in a loop, from {VIRT_XML_GUESTS} guests"
    return [
        *rows,
        Row(f"guest move, {GUESTS} guests that are off", mine, reckoned, peer,
            "at least 100 times faster", lambda ratio: ratio <= 0.01),
    ]  # fmt: skip


def live(lab: Lab) -> list[Row]:
    """A running guest from NAT to the LAN, a ping every millisecond from the command on."""
    lab.kvmnet("network", "create", "default", "--subnet", "192.168.122.0/24")
    lab.kvmnet("bridge", "create", "br0", "--port", "eth1", "--no-persist", "--yes")
    guest = lab.add_guest("web")
    guest.wait_ready(120)
    nat = guest.wait_address(60)
    to_lan = kvmnet("guest", "move", "web", "--to", "bridge:br0", "--yes")
    lab.run("host", to_lan, timeout=90)
    lan = guest.wait_address(60, other_than=nat)
    ways = {"ours": to_lan, "hand": ["sh", str(HERE / "by-hand.sh")],
            "replug": ["sh", str(HERE / "by-hand-replug.sh")]}  # fmt: skip
    seen: dict[str, list[dict[str, float]]] = {x: [] for x in ways}
    for _ in range(LIVE_MOVES):
        for who, words in ways.items():
            lab.kvmnet("guest", "move", "web", "--to", "network:default", "--yes", timeout=90)
            guest.wait_address(60, other_than=lan)
            script = [sys.executable, str(HERE / "silence.py"), nat, lan, *words]
            seen[who].append(json.loads(lab.run("host", script, timeout=150).stdout))
    return [
        Row(what, [x[key] for x in seen["ours"]], [x[key] for x in seen[who]], name,
            "side by side", lambda ratio: ratio > 0)
        for key, what in (("silence", "live move to the LAN, longest silence"),
                          ("arrived", "the same, from the command until it answers there"))
        for who, name in (("hand", "virsh update-device, cable out and in"),
                          ("replug", "unplug and plug, by virsh"))
    ]  # fmt: skip


TABLES = {"lease": lease, "startup": startup, "guests": guests, "status": status,
          "convert": convert, "move": move, "live": live}  # fmt: skip


def main() -> int:
    if sys.argv[1:] == ["switch"]:  # packets and not times: a table of its own
        return bridge_switch.main()
    if sys.argv[1:] == ["doctor"]:  # nothing to compare with: bounds of its own
        return doctor.main()
    if sys.argv[1:] == ["trace"]:
        return trace_cost.main()
    wanted = sys.argv[1:] or list(TABLES)
    unknown = [name for name in wanted if name not in TABLES]
    if unknown:
        print(f"bench: no table {unknown[0]}; there are: {', '.join(TABLES)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for name in wanted:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        with Lab.up(f"bench{os.getpid()}") as lab:
            rows += TABLES[name](lab)
    print("| what | kvmnet | against | ratio | limit | holds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(row.line())
    return 0 if all("| NO |" not in row.line() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
