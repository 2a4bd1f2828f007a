"""Packets of real guests followed through a real libvirt host, to the web server far away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvmnet.lab import topology
from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

pytestmark = pytest.mark.lab

WEB = "203.0.113.80"


def trace(lab: Lab, *words: str, status: int = 1) -> dict[str, Any]:
    # An emulated guest may stand still for a moment; an answer ends the waiting.
    wait = ("--wait", "5") if status == 0 else ()
    done = lab.kvmnet("trace", *words, *wait, "--json", accept=range(256))
    assert done.status == status, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)["report"]
    left = lab.run("host", ["nft", "list", "tables"]).stdout
    assert "kvmnet_trace" not in left
    assert "kvmnet-" not in lab.run("host", ["ip", "-br", "link"]).stdout
    return report


def wheres(report: dict[str, Any], way: str = "out") -> list[str]:
    return [x["where"] for x in report["hops"] if x["kind"] == "link" and x["way"] == way]


@pytest.fixture(scope="module")
def guest(lab: Lab) -> LabGuest:
    lab.kvmnet("up", "--yes", timeout=60)
    added = lab.add_guest("web")
    added.wait_ready(90)
    added.wait_address(60)
    return added


def test_a_guest_to_the_internet_and_back(lab: Lab, guest: LabGuest) -> None:
    report = trace(lab, "guest:web", f"{WEB}:80", "--reply", status=0)
    assert "SYN-ACK" in report["verdict"]
    assert report["flow"]["source"] == guest.wait_address(5)
    out = wheres(report)
    assert "(guest web)" in out[0] and out[1].startswith("virbr") and out[2] == "eth1"
    rules = [x for x in report["hops"] if x["kind"] == "rule"]
    assert any("made by libvirt" in y for x in rules for y in x["evidence"])
    assert any(x["kind"] == "nat" and x["way"] == "out" for x in report["hops"])
    assert "(guest web)" in wheres(report, "back")[-1]


def test_names_and_bare_names(lab: Lab, guest: LabGuest) -> None:
    assert trace(lab, "web", f"{topology.WEB_NAME}:80", status=0)["ending"] == "answered"


def test_a_stand_in_to_the_guest_and_the_guest_to_the_host(lab: Lab, guest: LabGuest) -> None:
    report = trace(lab, "network:default", "guest:web:80", status=0)
    assert "(guest web)" in wheres(report)[-1] and "SYN-ACK" in report["verdict"]
    assert trace(lab, "guest:web", "192.168.77.1", status=0)["ending"] == "answered"
    assert trace(lab, "host", "guest:web", status=0)["ending"] == "answered"


def test_the_lan_can_not_come_in_where_libvirt_rejects_it(lab: Lab, guest: LabGuest) -> None:
    report = trace(lab, "lan:eth1", "guest:web:80")
    assert report["ending"] == "died" and "libvirt" in report["verdict"]
    assert "REJECT" in report["verdict"] or "reject" in report["verdict"]
    assert report["last_seen"] == "eth1"


def test_a_rule_in_the_way(lab: Lab, guest: LabGuest) -> None:
    lab.run("host", ["iptables", "-I", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP"])
    try:
        report = trace(lab, "guest:web", f"{WEB}:80")
    finally:
        lab.run("host", ["iptables", "-D", "FORWARD", "1"])
    assert report["ending"] == "died"
    assert "-p tcp -m tcp --dport 80 -j DROP" in report["verdict"]
    assert report["last_seen"].startswith("virbr")
    assert trace(lab, "guest:web", f"{WEB}:80", status=0)["ending"] == "answered"


def test_a_guest_that_is_unplugged(lab: Lab, guest: LabGuest) -> None:
    tap = wheres(trace(lab, "guest:web", WEB, status=0))[0].split()[0]
    bridge = wheres(trace(lab, "guest:web", WEB, status=0))[1]
    lab.run("host", ["ip", "link", "set", tap, "nomaster"])
    try:
        done = lab.kvmnet("trace", "guest:web", WEB, accept=range(256))
    finally:
        lab.run("host", ["ip", "link", "set", tap, "master", bridge])
    assert done.status == 1 and f"{tap} is no port of a bridge" in done.stderr
    done = lab.kvmnet("trace", "guest:nosuch", WEB, accept=range(256))
    assert done.status == 1 and "there is no guest nosuch" in done.stderr
    assert "there are: web" in done.stderr
