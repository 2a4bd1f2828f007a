"""The probe of real guests: seen from the host, told by the agent, tried by a stand-in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvmnet.lab.guest import LabGuest
from kvmnet.lab.lab import Lab

from .test_probe import nat, network, probe

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def web(lab: Lab) -> LabGuest:
    """A guest on a NAT network, with an address and an agent that answers."""
    network(lab, nat("quick", 71))
    guest = lab.add_guest("web", on="network:quick")
    guest.wait_ready()
    guest.wait_address()
    return guest


def tap(lab: Lab, name: str = "web") -> str:
    rows = lab.run("host", ["virsh", "domiflist", name]).stdout.splitlines()[2:]
    return rows[0].split()[0]


def by(report: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["by"] for step in report["steps"]}


def ok(report: dict[str, Any], *names: str) -> None:
    for name in names:
        assert report["by_name"][name]["verdict"] == "ok", report["by_name"][name]


def until(check: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end
        time.sleep(0.2)


def nothing_is_left(lab: Lab) -> None:
    assert "kvmnet-" not in lab.run("host", ["ip", "-br", "link"]).stdout


def test_healthy_guest(lab: Lab, web: LabGuest) -> None:
    report = probe(lab, "guest:web", "--to", "www.example.org:80")
    ok(report, "guest", "cable", "tap", "port", "traffic", "known", "answers", "link", "dhcp",
       "target", "path-mtu", "agent", "inside-address", "inside-routes", "inside-dns",
       "inside-target")  # fmt: skip
    who = by(report)
    assert who["port"] == who["answers"] == "host" and who["dhcp"] == "stand-in"
    assert who["agent"] == who["inside-target"] == "agent"
    assert report["inside"]["gateways"] == report["inside"]["dns"] == ["10.71.0.1"]
    assert report["inside"]["can_execute"] is True
    assert report["guest"]["bridge"] == report["guest"]["belongs_to"] == "vb71"
    assert report["guest"]["received"] > 0
    assert report["guest"]["addresses"][0] in report["by_name"]["known"]["detail"]
    assert all(step["expected"] for step in report["steps"] if step["verdict"] != "skipped")
    nothing_is_left(lab)


def test_what_people_see_names_who_measured(lab: Lab, web: LabGuest) -> None:
    done = lab.kvmnet("probe", "guest:web", "--nic", "1", "--evidence")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["STEP", "BY", "RESULT", "TIME", "DETAIL"]
    assert any(x.split()[:3] == ["inside-target", "agent", "ok"] for x in rows)
    assert any("expected: a forwarding port of vb71" in x for x in rows)


def test_target_that_the_guest_can_not_reach(lab: Lab, web: LabGuest) -> None:
    report = probe(lab, "guest:web", "--to", "203.0.113.80:81", status=1)
    inside = report["by_name"]["inside-target"]
    assert inside["verdict"] == "failed" and report["by_name"]["target"]["verdict"] == "failed"
    assert any("inside the guest" in x for x in inside["evidence"])


def test_tap_that_is_on_no_bridge(lab: Lab, web: LabGuest) -> None:
    name = tap(lab)
    lab.run("host", ["ip", "link", "set", name, "nomaster"])
    try:
        report = probe(lab, "guest:web", status=1)
    finally:
        lab.run("host", ["ip", "link", "set", name, "master", "vb71"])
    port = report["by_name"]["port"]
    assert port["verdict"] == "failed" and "orphaned-tap" in port["reason"]
    assert port["hint"] == f"ip link set {name} master vb71"
    assert report["guest"]["bridge"] is None
    ok(report, "link", "dhcp")
    assert report["by_name"]["answers"]["verdict"] == "skipped"
    ok(probe(lab, "guest:web"), "port", "answers")


def test_cable_that_is_out(lab: Lab, web: LabGuest) -> None:
    web.set_link(False)
    try:
        report = probe(lab, "guest:web", status=1)
        cable = report["by_name"]["cable"]
        assert cable["verdict"] == "failed" and "domif-setlink web" in cable["hint"]
        ok(report, "link", "dhcp")
        lab.run("host", cable["hint"].split())
    finally:
        web.set_link(True)
    until(lambda: lab.kvmnet("probe", "guest:web", accept=(0, 1)).status == 0)
    ok(probe(lab, "guest:web"), "cable", "answers")


def test_isolated_port_is_mirrored(lab: Lab, web: LabGuest) -> None:
    name = tap(lab)
    lab.run("host", ["bridge", "link", "set", "dev", name, "isolated", "on"])
    try:
        report = probe(lab, "guest:web")
    finally:
        lab.run("host", ["bridge", "link", "set", "dev", name, "isolated", "off"])
    assert any("isolated" in x for x in report["by_name"]["link"]["evidence"])
    ok(report, "dhcp", "answers")


def test_somebody_else_has_the_guests_address(lab: Lab, web: LabGuest) -> None:
    ip = web.wait_address()
    script = ("ip netns add thief && ip link add th0 type veth peer name eth0 netns thief && "
              "ip link set th0 master vb71 up && ip -n thief link set eth0 address "
              f"52:54:00:00:00:99 up && ip -n thief address add {ip}/24 dev eth0")  # fmt: skip
    lab.run("host", ["sh", "-c", script])
    try:
        report = probe(lab, "guest:web", status=1)
    finally:
        lab.run("host", ["ip", "netns", "delete", "thief"])
    answers = report["by_name"]["answers"]
    assert answers["verdict"] == "failed" and "52:54:00:00:00:99" in answers["detail"]
    assert {"ip": ip, "mac": "52:54:00:00:00:99"} in report["conflicts"]


def test_agent_that_is_stopped(lab: Lab, web: LabGuest) -> None:
    agent_of(web, "-STOP")
    try:
        report = probe(lab, "guest:web")
    finally:
        # The agent can not start itself again: whoever stopped it left a clock behind.
        web.wait_ready(60)
    step = report["by_name"]["agent"]
    assert step["verdict"] == "skipped" and "does not answer" in step["reason"]
    ok(report, "answers", "dhcp")
    assert report["inside"] is None


def agent_of(guest: LabGuest, signal: str) -> None:
    """Stop the guest's agent; it goes on by itself twenty seconds later."""
    clock = f"sleep 3; pid=$(cat /run/qemu-ga.pid); kill {signal} $pid; sleep 20; kill -CONT $pid"
    guest.run(["/bin/sh", "-c", f"({clock}) > /dev/null 2>&1 & exit 0"])
    time.sleep(5)


@pytest.fixture
def lone(lab: Lab, web: LabGuest) -> Iterator[LabGuest]:
    guest = lab.add_guest("lone", on="network:quick", nics=2)
    yield guest
    guest.remove()


def test_which_nic_and_guest_that_is_off(lab: Lab, lone: LabGuest) -> None:
    done = lab.kvmnet("probe", "guest:lone", accept=range(256))
    assert done.status == 2 and "--nic" in done.stderr
    lone.destroy()
    report = probe(lab, "guest:lone", "--nic", "2", status=1)
    step = report["by_name"]["guest"]
    assert step["verdict"] == "failed" and step["hint"] == "virsh start lone"
    assert [x["name"] for x in report["steps"]] == ["guest"] and report["mac"] is None
    assert report["ms"] < 6000


def test_guest_on_a_bridge_where_nobody_else_has_an_address(lab: Lab, web: LabGuest) -> None:
    script = "ip link add brx type bridge stp_state 0 forward_delay 0 && ip link set brx up"
    lab.run("host", ["sh", "-c", script])
    guest = lab.add_guest("still", on="bridge:brx")
    try:
        guest.wait_ready()
        # The agent answers before the DHCP client runs, and its script takes addresses away. A
        # client that is stopped while its script runs leaves it a zombie: that is over too.
        until(lambda: guest.shell("kill -STOP $(cat /run/udhcpc.*.pid) && echo it || true"))
        running = "for x in $(pidof udhcpc.sh); do grep '^State:.[^Z]' /proc/$x/status; done; true"
        until(lambda: not guest.shell(running))
        guest.shell("ip address add 10.9.9.9/24 dev eth0 && ip route add default via 10.9.9.1")
        report = probe(lab, "guest:still", "--to", "10.9.9.9")
    finally:
        guest.remove()
        lab.run("host", ["ip", "link", "delete", "brx"])
    assert by(report)["answers"] == "stand-in"
    ok(report, "port", "answers", "inside-address", "inside-target")
    assert report["by_name"]["dhcp"]["verdict"] == "warn"
    assert "the guest has an address nevertheless" in report["by_name"]["dhcp"]["reason"]
    assert report["by_name"]["inside-dns"]["verdict"] == "warn"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["guest:nosuch"], 1, "there is no guest nosuch"),
        (["guest:"], 2, "guest:NAME is expected"),
        (["guest:web", "--nic", "7"], 1, "has no NIC 7"),
        (["guest:web", "--nic", "all"], 0, ""),
        (["guest:web", "--nic", "52:54:00:00:00:01"], 1, "no NIC with the address"),
        (["guest:web", "--nic", "x"], 2, "names no NIC"),
        (["network:quick", "--nic", "1"], 2, "--nic names a NIC of a guest"),
    ],
)
def test_wrong_words(lab: Lab, web: LabGuest, words: list[str], status: int, said: str) -> None:
    done = lab.kvmnet("probe", *words, accept=range(256))
    assert done.status == status and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
