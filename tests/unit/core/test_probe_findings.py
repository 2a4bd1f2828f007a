"""From steps of a probe to findings: named, explained by what is known, or unexplained."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from kvmnet.core.causes import folded
from kvmnet.core.dhcp_way import Way
from kvmnet.core.finding import Finding, Severity
from kvmnet.core.probe_findings import merge
from kvmnet.core.probe_symptoms import ALIVE, SILENT
from kvmnet.core.probed import Probed
from kvmnet.core.scope import Place
from kvmnet.flow import probe_steps
from kvmnet.flow.probe_place import Place as ProbePlace
from kvmnet.model.host import Address, BridgeAttributes, Link, Listener
from kvmnet.model.probe import Endpoint, ProbeLease, ProbeReport, ProbeStep, ProbeTarget, StepName
from kvmnet.model.reached import NameResult
from kvmnet.model.standin import LeaseResult
from kvmnet.model.state import State
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import DhcpRange, Guest, Lease, Network, NetworkConfig, NetworkIp

MAC = Mac("52:54:00:00:00:09")
DNSMASQ = Listener(protocol="udp", ip="0.0.0.0", port=67, link="virbr0", process="dnsmasq")


def state(mode: str = "nat", *, ranges: bool = True, last: str = "10.1.0.9", **more: Any) -> State:
    span = (DhcpRange(start=Ip("10.1.0.2"), end=Ip(last)),) if ranges else ()
    ip = NetworkIp(family=4, address=Ip("10.1.0.1"), prefix_len=24, ranges=span)
    config = NetworkConfig(mode=mode, bridge="virbr0", ips=(ip,))
    attributes = BridgeAttributes(stp=True, forward_delay_s=2)
    blank: dict[str, Any] = {
        "taken_at": 0, "hostname": "h", "listeners": (DNSMASQ,),
        "links": (Link(index=1, name="virbr0", kind="bridge", up=True, bridge=attributes),
                  Link(index=2, name="br0", kind="bridge", up=True, bridge=attributes)),
        "networks": (Network(connection="u", name="net", uuid="n", active=True, persistent=True,
                             autostart=True, live=config, saved=config),),
    }  # fmt: skip
    return State(**{**blank, **more})


def probed(step: ProbeStep, kind: Literal["network", "bridge"] = "network", **more: Any) -> Probed:
    name = "net" if kind == "network" else "br0"
    bridge = "virbr0" if kind == "network" else "br0"
    lease = more.pop("lease", None)
    place = Place(kind=kind, name=name, bridge=bridge, guests=("web",))
    target = ProbeTarget(kind=kind, name=name)
    report = ProbeReport(target=target, bridge=bridge, mac=MAC, steps=(step,), lease=lease)
    return Probed(place=place, report=report, **more)


def failed(name: StepName, detail: str = "no", **more: Any) -> ProbeStep:
    return ProbeStep(name=name, verdict="failed", detail=detail, **more)


def names(found: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [(x.name, x.severity, x.subject) for x in found]


NO_LEASE = failed("dhcp", SILENT)


def test_the_probe_says_silent_as_it_is_understood() -> None:
    result = LeaseResult(outcome="silent")
    place = ProbePlace(bridge="br0", mac=MAC)
    assert probe_steps.dhcp(place, result, 1.0).detail.startswith(SILENT)


@pytest.mark.parametrize(
    ("host", "what", "expected"),
    [
        (state(), NO_LEASE, [("unexplained-loss", "problem", "network net")]),
        (state(ranges=False), NO_LEASE, []),
        (state(listeners=()), NO_LEASE, [("dhcp-server-down", "problem", "network net")]),
        (state(last="10.1.0.2", leases=(Lease(connection="u", network="net", mac=MAC, family=4,
                                              ip=Ip("10.1.0.2")),)), NO_LEASE,
         [("dhcp-range-full", "problem", "network net")]),
        (state(), failed("dhcp", "x offered y, then refused it"),
         [("dhcp-refused", "problem", "network net")]),
        (state(), failed("address", "used by"), [("address-conflict", "problem", "network net")]),
        (state(), failed("gateway"), [("router-absent", "problem", "network net")]),
        (state(), failed("host"), [("unexplained-loss", "problem", "network net")]),
        (state(), failed("dns"), [("dns-silent", "problem", "network net")]),
        (state(), failed("target"), [("unexplained-loss", "problem", "network net")]),
        (state("route"), failed("target"), [("lan-route-missing", "problem", "network net")]),
        (state(), failed("path-mtu"), [("mtu-black-hole", "problem", "network net")]),
        (state(), failed("ipv6"), [("ipv6-no-address", "warning", "network net")]),
        (state(links=(Link(index=1, name="virbr0", kind="bridge", up=False),)), failed("link"),
         [("bridge-down", "problem", "bridge virbr0")]),
        (state(), failed("dhcp-servers"), [("rogue-dhcp", "problem", "network net")]),
        (state(), ProbeStep(name="dhcp-servers", verdict="warn"),
         [("rogue-dhcp", "warning", "network net")]),
        (state(), ProbeStep(name="ipv6-routers", verdict="warn"),
         [("rogue-router", "warning", "network net")]),
        (state(), failed("address6"), [("address-conflict", "problem", "network net")]),
        (state(), failed("gateway6"), [("router-absent", "problem", "network net")]),
        (state(), failed("dns6"), [("dns-silent", "problem", "network net")]),
        (state(), failed("target6"), []),
        (state(), failed("path-mtu6"), [("mtu-black-hole", "problem", "network net")]),
        (state(), failed("link"), [("unexplained-loss", "problem", "network net")]),
        (state(), ProbeStep(name="link", verdict="warn", hint="ip link"),
         [("stp-delay", "warning", "bridge virbr0")]),
        (state(), ProbeStep(name="host", verdict="warn"), []),
        (state(), ProbeStep(name="dhcp", verdict="ok"), []),
    ],
)  # fmt: skip
def test_a_step_that_nothing_explains_has_a_name(
    host: State, what: ProbeStep, expected: list[tuple[str, str, str]]
) -> None:
    assert names(merge(host, (), (probed(what),))) == expected


def test_a_lan_without_dhcp_is_a_note_and_one_that_serves_the_host_alone_a_problem() -> None:
    quiet = merge(state(), (), (probed(NO_LEASE, "bridge"),))
    assert names(quiet) == [("no-dhcp", "note", "bridge br0")]
    own = Address(link="br0", ip=Ip("10.9.0.5"), prefix_len=24, family=4, dynamic=True)
    locked = merge(state(addresses=(own,)), (), (probed(NO_LEASE, "bridge"),))
    assert names(locked) == [("mac-locked-uplink", "problem", "bridge br0")]
    lost = probed(NO_LEASE, "bridge", way=Way(last_seen="the bridge br0"))
    found = merge(state(addresses=(own,)), (), (lost,))
    assert names(found) == [("unexplained-loss", "problem", "bridge br0")]
    assert "last seen at the bridge br0" in found[0].what


def test_a_gateway_that_answers_the_host_neither_proves_nothing() -> None:
    found = merge(state(), (), (probed(failed("target"), beyond_answers=False),))
    assert names(found) == [("gateway-silent", "note", "the host")]
    cut_off = probed(failed("target"), beyond_answers=False, gateway_there=False)
    assert names(merge(state(), (), (cut_off,))) == [("gateway-silent", "problem", "the host")]


def test_a_named_target_that_refuses_the_host_too_says_nothing_of_the_gateway() -> None:
    refused = probed(
        failed("target"), beyond_answers=False, gateway_there=True,
        beyond_named="192.0.2.1:81", beyond_error="192.0.2.1:81: Connection refused",
    )  # fmt: skip
    (found,) = merge(state(), (), (refused,))
    assert names((found,)) == [("target-silent", "note", "the host")]
    assert "192.0.2.1:81" in found.what and "gateway" not in found.what
    assert "asked by the host: 192.0.2.1:81: Connection refused" in found.evidence
    cut_off = msgspec.structs.replace(refused, gateway_there=False)
    assert names(merge(state(), (), (cut_off,))) == [("gateway-silent", "problem", "the host")]


def aimed(to: str, step: ProbeStep, **more: Any) -> Probed:
    """The probe of network net that was to reach something."""
    one = probed(step, **more)
    assert one.report is not None
    target = msgspec.structs.replace(one.report.target, to=Endpoint(host=to))
    return msgspec.structs.replace(
        one, report=msgspec.structs.replace(one.report, target=target), beyond_named=to
    )


@pytest.mark.parametrize(
    ("to", "detail", "designed"),
    [
        ("a.example", "a.example could not be resolved", True),
        ("a.example", "no answer from a.example (192.0.2.1)", True),
        ("192.0.2.1", "no answer from 192.0.2.1", True),
        ("web", "no answer from web (10.1.0.7)", False),
        ("10.1.0.7", "no answer from 10.1.0.7", False),
    ],
)
@pytest.mark.parametrize("answers", [True, False])
def test_what_an_isolated_network_does_not_reach_by_design_is_a_note(
    to: str, detail: str, answers: bool, designed: bool
) -> None:
    one = aimed(to, failed("target", detail), beyond_answers=answers)
    found = names(merge(state("isolated"), (), (one,)))
    assert (found == [("network-isolated", "note", "network net")]) is designed
    assert ("network-isolated", "note", "network net") not in names(merge(state(), (), (one,)))


def test_a_guest_on_an_isolated_network_is_told_once() -> None:
    one = aimed("192.0.2.1", failed("target"))
    one = msgspec.structs.replace(one, place=msgspec.structs.replace(one.place, guest="web", nic=1))
    web = Guest(connection="u", name="web", uuid="w", state="running", id=1)
    host = state("isolated", guests=(web,))
    (found,) = merge(host, (known("network-isolated", "guest web", "note"),), (one,))
    assert names((found,)) == [("network-isolated", "note", "guest web")]


@pytest.mark.parametrize("detail", ["there is no name a.example", "a.example has no address"])
@pytest.mark.parametrize(
    ("answers", "severity"), [(None, "note"), (False, "note"), (True, "warning")]
)
def test_a_name_that_does_not_exist_is_no_silence(
    detail: str, answers: bool | None, severity: str
) -> None:
    one = aimed("a.example", failed("target", detail), beyond_answers=answers)
    (found,) = merge(state(), (), (one,))
    assert names((found,)) == [("name-unknown", severity, "the name a.example")]
    assert detail in found.what and "silent" not in found.what


def test_a_dns_server_that_answers_is_not_called_silent() -> None:
    alive = failed("dns", "10.1.0.1 is alive but says SERVFAIL about a.example")
    (found,) = merge(state(), (), (probed(alive),))
    assert found.name == "dns-silent" and "resolves no names" in found.what
    result = NameResult(alive_ms=1.0, code="SERVFAIL")
    place = ProbePlace(bridge="br0", mac=MAC)
    assert ALIVE in probe_steps.dns(place, Ip("10.1.0.1"), "a.example", result, 1.0).detail


def test_ipv6_beyond_the_host_counts_where_the_host_itself_has_it() -> None:
    beyond = merge(state(), (), (probed(failed("target6"), beyond_answers6=True),))
    assert names(beyond) == [("lan-route-missing", "warning", "network net")]
    bridged = merge(state(), (), (probed(failed("target6"), "bridge", beyond_answers6=True),))
    assert names(bridged) == [("unexplained-loss", "problem", "bridge br0")]


def test_a_doubtful_lease_tells_what_is_doubtful() -> None:
    lease = ProbeLease(address=Ip("10.1.0.2"), prefix_len=24, server=Ip("10.1.0.1"),
                       server_mac=MAC, bad_checksum=True)  # fmt: skip
    found = merge(state(), (), (probed(ProbeStep(name="dhcp", verdict="warn"), lease=lease),))
    assert [(x.name, bool(x.mend)) for x in found] == [("bad-checksum", True)]


def known(name: str, subject: str, severity: Severity = "problem") -> Finding:
    return Finding(name=name, severity=severity, subject=subject, what="w")


@pytest.mark.parametrize(
    ("cause", "step", "explained"),
    [
        (known("docker-forward-drop", "bridge virbr0"), failed("target"), True),
        (known("docker-forward-drop", "bridge br0"), failed("target"), False),
        (known("firewall-flushed", "the firewall"), failed("target"), True),
        (known("nic-not-saved", "network net"), failed("target"), False),
        (known("stp-delay", "bridge virbr0", "warning"), failed("target"), False),
        (known("stp-delay", "bridge virbr0", "warning"), NO_LEASE, True),
        (known("orphaned-tap", "guest web"), failed("target"), False),
        (known("whatever", "network net", "note"), failed("target"), False),
        (known("docker-forward-drop", "bridge virbr0"), failed("path-mtu"), False),
    ],
)
def test_what_is_known_explains_a_step_or_does_not(
    cause: Finding, step: ProbeStep, explained: bool
) -> None:
    found = merge(state(), (cause,), (probed(step),))
    assert (len(found) == 1) == explained
    if explained:
        assert any("the probe of network:net shows it" in x for x in found[0].evidence)


def test_steps_lost_for_one_reason_are_one_finding() -> None:
    both = probed(failed("host"))
    report = both.report
    assert report is not None
    steps = (failed("host"), failed("target", "nothing came back"))
    both = msgspec.structs.replace(both, report=msgspec.structs.replace(report, steps=steps))
    (found,) = merge(state(), (), (both,))
    assert any("nothing came back" in x for x in found.evidence)


def test_a_consequence_is_evidence_of_its_cause() -> None:
    stale, off = known("stale-bridge", "network net"), known("network-inactive", "network net")
    other = known("network-inactive", "network other")
    found = folded((off, stale, other))
    assert names(found) == [("network-inactive", "problem", "network other"),
                            ("stale-bridge", "problem", "network net")]  # fmt: skip
    assert "because of it: w" in found[1].evidence
    assert folded((stale, off, other)) == found


def beside(*steps: ProbeStep) -> Probed:
    """The probe of the guest web on network net."""
    one = probed(steps[0])
    assert one.report is not None
    return msgspec.structs.replace(
        one, report=msgspec.structs.replace(one.report, steps=steps),
        place=msgspec.structs.replace(one.place, guest="web", nic=1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((failed("guest"),), ["guest-not-running"]),
        ((failed("cable"),), ["guest-unplugged"]),
        ((failed("answers"),), ["guest-silent"]),
        ((failed("inside-address"),), ["guest-no-address"]),
        ((failed("inside-routes"),), ["guest-no-route"]),
        ((ProbeStep(name="inside-dns", verdict="warn"),), ["guest-no-dns"]),
        ((failed("inside-target"),), ["guest-blocks"]),
        ((failed("target"), failed("inside-target")), ["unexplained-loss"]),
        ((ProbeStep(name="known", verdict="warn"),), []),
    ],
)
def test_what_is_wrong_with_the_guest_itself_has_a_name(
    steps: tuple[ProbeStep, ...], expected: list[str]
) -> None:
    guest = Guest(connection="u", name="web", uuid="w", state="running", id=1)
    found = merge(state(guests=(guest,)), (), (beside(*steps),))
    assert [x.name for x in found] == expected
    cause = known("guest-link-down", "guest web")
    explained = merge(state(guests=(guest,)), (cause,), (beside(failed("cable")),))
    assert [x.name for x in explained] == ["guest-link-down"]
