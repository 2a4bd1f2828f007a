"""What each step of a probe that did not go well is called, where nothing else explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

import msgspec

from kvmnet.core import mending
from kvmnet.core.causes import with_evidence
from kvmnet.core.finding import command
from kvmnet.core.probed import Probed, Symptom
from kvmnet.core.symptom import finding_of, unexplained, users
from kvmnet.core.symptoms_beyond import black_hole, no_target, no_target6
from kvmnet.model.probe import ProbeStep
from kvmnet.model.state import State
from kvmnet.model.virt import NetworkConfig

SILENT = "no DHCP server answered"
"""How the probe says so."""
ALIVE = "is alive but says"
"""The same of a DNS server that answers, and knows nothing."""


def symptoms(state: State, probed: Probed) -> Iterator[Symptom]:
    """What did not go well in a probe, in its order."""
    report = probed.report
    if report is None:
        return
    for step in report.steps:
        if step.verdict in {"failed", "warn"}:
            teller = _TELLERS.get((step.name, step.verdict))
            if teller is not None:
                yield from teller(state, probed, step)


def _link(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    bridge = state.link(probed.place.bridge)
    if bridge is not None and not bridge.up:
        base = finding_of("bridge-down", probed, step, f"the bridge {bridge.name} is switched off",
                        f"{users(probed.place)} have no network at all")  # fmt: skip
        finding = msgspec.structs.replace(
            base, subject=f"bridge {bridge.name}",
            fix=(command("ip", "link", "set", bridge.name, "up"),),
            mend=(mending.switch_on(bridge.name),),
        )  # fmt: skip
        yield Symptom(step=step.name, finding=finding, certain=True)
    else:
        yield unexplained(probed, step, "a guest's port never forwards")


def _slow_link(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    bridge = state.link(probed.place.bridge)
    if bridge is None or bridge.bridge is None or not bridge.bridge.stp:
        return
    delay = bridge.bridge.forward_delay_s
    base = finding_of("stp-delay", probed, step,
                    f"a guest that is plugged in hears nothing for {2 * delay:g} s",
                    "DHCP and PXE clients of guests give up before that")  # fmt: skip
    yield Symptom(
        step=step.name,
        finding=msgspec.structs.replace(
            base, severity="warning", subject=f"bridge {bridge.name}", fix=(step.hint,),
            mend=mending.no_spanning_tree(bridge),
        ),
    )  # fmt: skip


def _no_lease(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    place = probed.place
    breaks = f"{users(place)} get no address"
    if not step.detail.startswith(SILENT):
        yield Symptom(
            step=step.name, certain=True,
            finding=finding_of("dhcp-refused", probed, step, f"the DHCP server of {place} gives no "
                             "lease", breaks),
        )  # fmt: skip
        return
    network = state.network(place.name) if place.kind == "network" else None
    config = network.live if network is not None else None
    if config is not None and config.mode != "bridge":
        yield from _no_lease_of_libvirt(state, probed, step, config)
        return
    yield _no_lease_of_lan(state, probed, step)


def _no_lease_of_libvirt(
    state: State, probed: Probed, step: ProbeStep, config: NetworkConfig
) -> Iterator[Symptom]:
    place = probed.place
    breaks = f"{users(place)} get no address"
    four = [x for x in config.ips if x.family == 4]
    if not any(x.ranges for x in four):
        return  # it is made to give out none, or only to those that it knows
    room = sum(
        int(ip_address(y.end)) - int(ip_address(y.start)) + 1 for x in four for y in x.ranges
    )
    leases = [x for x in state.leases if x.network == place.name and x.family == 4]
    if len(leases) >= room:
        base = finding_of("dhcp-range-full", probed, step,
                        f"all {room} addresses of its DHCP range are leased", breaks)  # fmt: skip
        yield Symptom(
            step=step.name, certain=True,
            finding=msgspec.structs.replace(
                base, evidence=(*base.evidence, f"{len(leases)} leases in a range of {room}"),
                fix=(command("virsh", "net-edit", place.name),),
            ),
        )  # fmt: skip
        return
    unread = any(x.what.startswith("listen") for x in state.unread)
    if not unread and not any(x.port == 67 for x in state.listeners):
        base = finding_of("dhcp-server-down", probed, step,
                        "its DHCP server, libvirt's dnsmasq, does not run", breaks)  # fmt: skip
        yield Symptom(
            step=step.name,
            finding=msgspec.structs.replace(
                base, evidence=(*base.evidence, "no socket listens on UDP port 67"),
                fix=(command("virsh", "net-destroy", place.name),
                     command("kvmnet", "network", "start", place.name)),
            ),
        )  # fmt: skip
        return
    yield unexplained(probed, step, "a guest's DHCP request gets no answer")


def _no_lease_of_lan(state: State, probed: Probed, step: ProbeStep) -> Symptom:
    """On a bridge: a LAN that leaves guests out, or one where nobody gives out addresses."""
    place = probed.place
    host = [x for x in state.addresses if x.link == place.bridge and x.family == 4]
    if any(x.dynamic for x in host):
        own = next(x for x in host if x.dynamic)
        if not probed.way.left and probed.way.last_seen:
            return unexplained(probed, step, "a guest's DHCP request gets no answer")
        base = finding_of(
            "mac-locked-uplink", probed, step,
            "the LAN answers the host, and no other MAC address behind its port",
            f"{users(place)} get no address",
        )  # fmt: skip
        return Symptom(
            step=step.name,
            finding=msgspec.structs.replace(
                base,
                evidence=(*base.evidence, f"the host itself has {own.ip} there by DHCP",
                          *probed.way.lines),
                fix=("kvmnet network create lan --mode route --uplink NIC --lan-range A-B",),
            ),
        )  # fmt: skip
    base = finding_of("no-dhcp", probed, step, "nobody gives out addresses on this bridge",
                    f"{users(place)} need static addresses")  # fmt: skip
    return Symptom(step=step.name, finding=msgspec.structs.replace(base, severity="note"))


def _doubtful_lease(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    place, report = probed.place, probed.report
    lease = report.lease if report is not None else None
    if lease is not None and lease.bad_checksum:
        base = finding_of("bad-checksum", probed, step,
                        "the DHCP server's packets have wrong UDP checksums",
                        f"{users(place)} that check them (BSD, some Linux clients) get no "
                        "address")  # fmt: skip
        yield Symptom(
            step=step.name, certain=True,
            finding=msgspec.structs.replace(
                base,
                fix=(command("ethtool", "-K", place.bridge, "tx", "off"),),
                mend=(mending.switch_off(place.bridge, "tx"),) if place.kind == "network" else (),
            ),
        )  # fmt: skip


def _rivals(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    """More DHCP servers or IPv6 routers than there should be, or another one than that."""
    del state
    is_dhcp = step.name == "dhcp-servers"
    base = finding_of(
        "rogue-dhcp" if is_dhcp else "rogue-router", probed, step, step.detail,
        f"{users(probed.place)} take their address, router and DNS of whichever is faster"
        if is_dhcp else f"{users(probed.place)} take addresses and routes of all of them",
    )  # fmt: skip
    certain = step.verdict == "failed"
    finding = msgspec.structs.replace(
        base, severity="problem" if certain else "warning",
        fix=(step.hint.removeprefix("find it: "),) if step.hint else base.fix,
    )  # fmt: skip
    yield Symptom(step=step.name, certain=True, finding=finding)


def _taken_address(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    yield Symptom(
        step=step.name, certain=True,
        finding=finding_of("address-conflict", probed, step, step.detail,
                         f"the guest that the DHCP server of {probed.place} gives it to"),
    )  # fmt: skip


def _no_router(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    finding = finding_of("router-absent", probed, step,
                       f"the router that guests are told of is not there: {step.detail}",
                       f"{users(probed.place)} reach nothing beyond")  # fmt: skip
    yield Symptom(step=step.name, finding=finding)


def _no_host(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    yield unexplained(probed, step, "a guest gets no answer from the host itself")


def _no_dns(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    how = "resolves no names" if ALIVE in step.detail else "is silent"
    finding = finding_of("dns-silent", probed, step,
                       f"the DNS server that guests are told of {how}: {step.detail}",
                       f"{users(probed.place)} can not resolve names")  # fmt: skip
    if probed.way.by_rule:
        yield unexplained(probed, step, "a guest's questions get no answer")
    else:
        yield Symptom(step=step.name, finding=with_evidence(finding, *probed.way.lines))


def _no_ipv6(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    finding = finding_of("ipv6-no-address", probed, step, step.detail,
                       f"{users(probed.place)} have no IPv6")  # fmt: skip
    yield Symptom(step=step.name, finding=msgspec.structs.replace(finding, severity="warning"))


def _no_router6(state: State, probed: Probed, step: ProbeStep) -> Iterator[Symptom]:
    del state
    finding = finding_of("router-absent", probed, step, step.detail,
                       f"{users(probed.place)} reach nothing beyond by IPv6")  # fmt: skip
    yield Symptom(step=step.name, finding=finding)


Teller = Callable[[State, Probed, ProbeStep], Iterator[Symptom]]

_TELLERS: dict[tuple[str, str], Teller] = {
    ("link", "failed"): _link,
    ("link", "warn"): _slow_link,
    ("dhcp", "failed"): _no_lease,
    ("dhcp", "warn"): _doubtful_lease,
    ("address", "failed"): _taken_address,
    ("gateway", "failed"): _no_router,
    ("host", "failed"): _no_host,
    ("dns", "failed"): _no_dns,
    ("target", "failed"): no_target,
    ("path-mtu", "failed"): black_hole,
    ("dhcp-servers", "failed"): _rivals,
    ("dhcp-servers", "warn"): _rivals,
    ("ipv6-routers", "failed"): _rivals,
    ("ipv6-routers", "warn"): _rivals,
    ("ipv6", "failed"): _no_ipv6,
    ("address6", "failed"): _taken_address,
    ("gateway6", "failed"): _no_router6,
    ("dns6", "failed"): _no_dns,
    ("target6", "failed"): no_target6,
    ("path-mtu6", "failed"): black_hole,
}
"""A step and how it went, and who names it. Others are opinions: the host may keep its pings."""
