"""Settings of the host's kernel and of its NIC: router advertisements, br_netfilter, macvtap."""

from __future__ import annotations

import re

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import (
    Breakage,
    Command,
    Fault,
    Look,
    Trial,
    back,
    command,
    ping,
    set_sysctl,
    tolerant,
)
from kvmnet.lab.faults.guests import define, forget
from kvmnet.lab.faults.stages import BRIDGE_FIREWALL, PLAIN

_FORWARD6 = "net/ipv6/conf/all/forwarding"


def _accept_ra(look: Look) -> Breakage:
    links = look.out("ls", "/proc/sys/net/ipv6/conf").split()
    keys = [f"net/ipv6/conf/{x}/forwarding" for x in links]
    learnt = look.out("ip", "-o", "-6", "route", "show", "default", "proto", "ra").splitlines()
    routes = [re.sub(r"expires (\d+)sec", r"expires \1", x).split() for x in learnt]
    return Breakage(
        make=(set_sysctl(_FORWARD6, "1"),),
        mend=(
            *back(look, _FORWARD6, *keys),
            *(tolerant("ip", "-6", "route", "replace", *x, "proto", "ra") for x in routes),
        ),
    )


_SYSCTL_FILE = "/etc/sysctl.d/60-bridge.conf"
_CALL = "net/bridge/bridge-nf-call-iptables"


def _nf_ignored(look: Look) -> Breakage:
    text = f"# bridged guests are none of this firewall's business\n{_CALL.replace('/', '.')} = 0\n"
    return Breakage(
        make=(
            command("mkdir", "-p", "/etc/sysctl.d"),
            command("tee", _SYSCTL_FILE, stdin=text),
            set_sysctl(_CALL, "1"),
        ),
        mend=(tolerant("rm", "-f", _SYSCTL_FILE), *back(look, _CALL)),
    )


_TENANT = "kvmnet-fault-tenant"
_TENANT_IP = "192.168.77.66"


def _macvtap(look: Look) -> Breakage:
    del look
    inside = ("ip", "-n", _TENANT)
    return Breakage(
        make=(
            define("aside", "direct", f"dev='{t.HOST_NIC}' mode='bridge'", 6),
            command("virsh", "start", "aside"),
            # What a system in the guest would live through: the guest has none.
            command("ip", "netns", "add", _TENANT),
            command("ip", "link", "add", "mv0", "link", t.HOST_NIC, "netns", _TENANT,
                    "type", "macvlan", "mode", "bridge"),
            command(*inside, "address", "add", f"{_TENANT_IP}/{t.LAN_PREFIX_LEN}", "dev", "mv0"),
            command(*inside, "link", "set", "mv0", "up"),
        ),
        mend=(
            *forget("aside"),
            tolerant("ip", "netns", "delete", _TENANT),
        ),
    )  # fmt: skip


def _from_tenant(look: Look) -> Command:
    del look
    return command("ip", "netns", "exec", _TENANT, *ping(t.HOST_IP).argv)


FAULTS = (
    Fault(
        name="accept-ra",
        problem="accept-ra",
        seen="since IPv6 forwarding is on the host has no IPv6 route any more",
        how="net.ipv6.conf.all.forwarding = 1, and accept_ra is 1: the kernel ignores the router's "
        "advertisements from then on",
        trial=Trial(command=lambda look: ping(t.WEB_IP6), later=True),
        stages=(PLAIN,),
        prepare=_accept_ra,
    ),
    Fault(
        name="macvtap-host",
        problem="macvtap-host",
        seen="a guest on macvtap reaches the LAN and the internet, but not its own host",
        how=f"the guest `aside` is on macvtap over {t.HOST_NIC}, by which the host has its address",
        trial=Trial(command=_from_tenant, gone=True),
        stages=(PLAIN,),
        prepare=_macvtap,
    ),
    Fault(
        name="bridge-nf-ignored",
        problem="bridge-nf-ignored",
        seen="after br_netfilter was loaded the firewall sees what guests send over a bridge, "
        "though a file says that it does not",
        how=f"{_SYSCTL_FILE} was applied before the module was there; bridge-nf-call-iptables is 1",
        trial=None,
        needs=(BRIDGE_FIREWALL,),
        touches=("bridge-nf-call",),
        prepare=_nf_ignored,
    ),
)
