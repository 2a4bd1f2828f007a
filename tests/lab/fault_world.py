"""What the tests of faults look at: a lab as it stands, and whether a trial goes well."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from kvmnet.lab.faults.fault import Fault, Look
from kvmnet.lab.lab import Lab


class Diagnosis(NamedTuple):
    """What the doctor came to."""

    names: frozenset[str] = frozenset()
    fixable: bool = False
    """Whether --fix mends all of it."""
    text: str = ""
    reports: Mapping[str, dict[str, Any]] = {}
    """What the stand-in guests went through, by place."""


PLACES = ("host", "router", "peer")
_LOOK = r"""
iptables-save; ip6tables-save; nft list ruleset 2>/dev/null
ip -d -o link; bridge -d link; ip -o address; ip rule; ip route show table all; ip -6 route
virsh net-list --all; virsh list --all
for f in ip_forward conf/all/rp_filter; do echo $f $(cat /proc/sys/net/ipv4/$f); done
for k in forwarding rp_filter accept_ra; do grep . /proc/sys/net/ipv?/conf/*/$k; done
grep . /proc/sys/net/bridge/*
for f in /etc/network/interfaces /etc/qemu/* /etc/libvirt/network.conf /etc/sysctl.d/* \
  /etc/alternatives/iptables; do
  test -f $f && cksum < $f; done
ps -e -o comm= | grep -c dnsmasq
"""
_EMPTY = ("table ip", "}", "*", "COMMIT", ":FORWARD ACCEPT", ":INPUT ACCEPT", ":OUTPUT ACCEPT",
          ":PREROUTING ACCEPT", ":POSTROUTING ACCEPT")  # fmt: skip
"""What iptables leaves behind of chains that do nothing."""
_MOVES = re.compile(
    r"\[\d+:\d+\]"  # counters of iptables-save
    r"|^#.*|^\s*(counter )?packets .*|packets \d+ bytes \d+"
    r"|<[^>]*>|@\w+:|state (UP|DOWN|UNKNOWN|LOWERLAYERDOWN)|linkdown|^\d+: "
    r"|\bif\d+|link-netnsid \d+"
    r"|\bvalid_lft.*|expires \d+sec|\w*(timer|topology_change\w*) +[\d.]+|hello tcn"
    r"|designated_root \S+|bridge_id \S+|root_port \d+|root_path_cost \d+|carrier_changes \d+"
    r"| tentative|state (listening|learning|forwarding)|config_pending \d"
    r"|no_linklocal_learn.*|^ *\d+ +(?=\w+ +running)"
)
"""What is different at each look, of a lab that nobody touches."""


_USER = """\
<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os><devices>
<interface type='{kind}'><mac address='{mac}'/><source {kind}='{source}'/></interface>
</devices></domain>
"""


def users(lab: Lab) -> None:
    """Give each network and bridge that is there a guest: the doctor looks at what is in use."""
    known = lab.run("host", ["virsh", "list", "--all", "--name"]).stdout.split()
    networks = lab.run("host", ["virsh", "net-list", "--all", "--name"]).stdout.split()
    bridged = lab.run("host", ["test", "-e", "/sys/class/net/br0"], accept=range(256)).status == 0
    wanted = [("network", x) for x in networks] + ([("bridge", "br0")] if bridged else [])
    for kind, source in wanted:
        name = f"of-{source}"
        if name not in known:
            mac = f"52:54:00:7b:00:{zlib.crc32(name.encode()) % 256:02x}"
            xml = _USER.format(name=name, kind=kind, source=source, mac=mac)
            lab.run("host", ["virsh", "define", "/dev/stdin"], stdin=xml)


def diagnosis(lab: Lab) -> Diagnosis:
    """All that `kvmnet doctor` finds on the lab's host."""
    done = lab.kvmnet("doctor", "--json", accept=range(256), timeout=120)
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    found = document["findings"]
    return Diagnosis(
        names=frozenset(x["name"] for x in found),
        fixable=bool(found) and all(x["fixable"] for x in found),
        text="\n".join(f"{x['name']} ({x['subject']}): {x['what']} {x['evidence']}"
                        for x in found),
        reports={x["place"]: x["report"] for x in document["probes"] if x["report"]},
    )  # fmt: skip


def snapshot(lab: Lab) -> list[str]:
    """All of a lab that faults change, without what moves by itself; sorted lines."""
    lines = []
    for where in PLACES:
        text = lab.run(where, ["sh", "-c", _LOOK], accept=range(256)).stdout
        text = re.sub(r"chain \w+ \{\s*(type [^}]*policy accept;)?\s*\}", "", text)
        rows = (re.sub(r"\s+", " ", _MOVES.sub("", row)).strip() for row in text.splitlines())
        kept = (row for row in rows if row and not row.startswith(_EMPTY) and "fe80::" not in row)
        lines += [f"{where}: {row}" for row in kept]
    return sorted(lines)


def is_again(lab: Lab, before: list[str], *, within_s: float = 20.0) -> tuple[list[str], list[str]]:
    """What is missing and what is new, compared with `before`, when it has settled."""
    deadline = time.monotonic() + within_s
    while True:
        now = snapshot(lab)
        missing = [x for x in before if x not in now]
        new = [x for x in now if x not in before]
        if not (missing or new) or time.monotonic() > deadline:
            return missing, new
        time.sleep(0.3)


def probe(lab: Lab, words: tuple[str, ...]) -> dict[str, Any]:
    """The report of a probe; empty if it could not begin."""
    done = lab.kvmnet("probe", "--json", *words, accept=range(256), timeout=120)
    report: dict[str, Any] = json.loads(done.stdout)["report"] if done.stdout else {}
    return report


def fails(lab: Lab, fault: Fault) -> str:
    """How the trial of a fault fails; empty if it goes well, or if nothing is to be tried."""
    if fault.trial is None:
        return ""
    if fault.trial.command is not None:
        one = fault.trial.command(Look(lab))
        done = lab.run(one.where, one.argv, accept=range(256), timeout=30)
        return f"status {done.status}: {done.stdout}{done.stderr}" if done.status else ""
    return told(fault, probe(lab, fault.trial.probe))


def told(fault: Fault, report: dict[str, Any]) -> str:
    """The same of the report of a probe."""
    assert fault.trial is not None
    steps = {x["name"]: x for x in report.get("steps", ())}
    step = steps.get(fault.trial.step, {"verdict": "absent", "reason": "the probe did not begin"})
    broken = [x for x in steps if steps[x]["verdict"] == "failed"]
    if step["verdict"] == "ok" and not broken:
        return ""
    return f"{fault.trial.step} {step['verdict']}: {step.get('reason')}; failed: {broken}"


def goes_well(lab: Lab, fault: Fault, *, within_s: float = 20.0) -> str:
    """How the trial still fails after that time; empty as soon as it goes well."""
    if fault.trial is None or fault.trial.gone:
        return ""
    deadline = time.monotonic() + within_s
    while True:
        seen = fails(lab, fault)
        if not seen or time.monotonic() > deadline:
            return seen
        time.sleep(0.3)
