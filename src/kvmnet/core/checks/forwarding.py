"""Kernel settings that keep the host from forwarding for its guests, and files that say otherwise:
ip-forward-off, bridge-nf-ignored.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core import mending
from kvmnet.core.finding import Finding, command
from kvmnet.core.firewall_places import FORWARDING, uplinks
from kvmnet.core.firewall_ways import Family
from kvmnet.model.state import State
from kvmnet.model.virt import Network, NetworkConfig

_ALL: dict[Family, str] = {"ip": "net/ipv4/ip_forward", "ip6": "net/ipv6/conf/all/forwarding"}
_ONE: dict[Family, str] = {
    "ip": "net/ipv4/conf/{}/forwarding",
    "ip6": "net/ipv6/conf/{}/forwarding",
}
BRIDGE_NF = "net.bridge.bridge-nf-call-"


def ip_forward_off(state: State) -> Iterator[Finding]:
    """The host, or one of the links that guests' packets take, does not forward."""
    for network in state.networks:
        config = network.live
        if not network.active or config is None or config.mode not in FORWARDING:
            continue
        families: list[Family] = ["ip"] if any(x.family == 4 for x in config.ips) else []
        families += ["ip6"] if any(x.family == 6 for x in config.ips) else []
        for family in families:
            yield from _off(state, network, config, family)


def _off(
    state: State, network: Network, config: NetworkConfig, family: Family
) -> Iterator[Finding]:
    links = [config.bridge, uplinks(state, config).get(family)]
    paths = [_ALL[family], *(_ONE[family].format(x) for x in links if x is not None)]
    # Of IPv6 the kernel asks the link that a packet comes in by; of IPv4 too. Setting the one for
    # all sets each of them, so one that is 0 beside it was set afterwards.
    off = [x for x in paths if state.sysctl(x.replace("/", ".")) == "0"]
    if off and off[0] == _ALL[family]:
        off = off[:1]
    if not off:
        return
    names = [x.replace("/", ".") for x in off]
    yield Finding(
        name="ip-forward-off",
        severity="problem",
        subject=f"network {network.name}",
        what=f"the host does not forward {'IPv6' if family == 'ip6' else 'IPv4'}"
        + ("" if off == [_ALL[family]] else " on a link that its guests' packets take"),
        breaks=f"guests on {network.name} reach nothing beyond the host"
        + (" by IPv6" if family == "ip6" else ""),
        evidence=tuple(f"{x} = 0{_said(state, x)}" for x in names),
        fix=tuple(command("sysctl", "-w", f"{x}=1") for x in names),
        mend=tuple(mending.set_sysctl(x, "1", "0") for x in off),
    )


def _said(state: State, name: str) -> str:
    """The file that has the setting so, or the other way."""
    told = next((x for x in state.sysctl_files if x.name == name), None)
    return "" if told is None else f" ({told.path} says {told.value})"


def bridge_nf_ignored(state: State) -> Iterator[Finding]:
    """A file sets br_netfilter's settings, which were applied before the module was there.

    Docker, Kubernetes and others load it later, with its own values (kernel:
    Documentation/networking/ip-sysctl.rst; libvirt's wiki names the case).
    """
    for told in state.sysctl_files:
        now = state.sysctl(told.name)
        if not told.name.startswith(BRIDGE_NF) or now is None or now == told.value:
            continue
        on = now == "1"
        yield Finding(
            name="bridge-nf-ignored",
            severity="warning",
            subject="the host",
            what=f"{told.name} is {now}, although {told.path} sets {told.value}: the module "
            "br_netfilter was loaded later, or it was set anew",
            breaks="the host's firewall sees frames between guests and the LAN" if on else
            "the host's firewall does not see frames between guests and the LAN",
            evidence=(f"{told.path}: {told.name} = {told.value}", f"in force: {now}"),
            fix=(command("sysctl", "-w", f"{told.name}={told.value}"),
                 "echo br_netfilter > /etc/modules-load.d/br_netfilter.conf"),
            mend=(mending.set_sysctl(told.name.replace(".", "/"), told.value, now),)
            if told.value in {"0", "1"} else (),
        )  # fmt: skip
