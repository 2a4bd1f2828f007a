"""The stages on which faults are made, and the needs that several of them share."""

from __future__ import annotations

from kvmnet.lab import topology as t
from kvmnet.lab.faults.fault import Need, Stage, command

GUEST = "web"
"""The guest that is started where a fault needs one that runs."""

NETWORK = Stage(
    what="the network default, active",
    check=command("test", "-e", "/run/libvirt/network/default.xml"),
    make=(command("kvmnet", "up", "--yes"),),
)
BRIDGE = Stage(
    what=f"the bridge br0 with the port {t.HOST_NIC}",
    check=command("test", "-e", f"/sys/class/net/br0/brif/{t.HOST_NIC}"),
    make=(command("kvmnet", "bridge", "create", "br0", "--port", t.HOST_NIC, "--yes"),),
)
PLAIN = Stage(
    what=f"{t.HOST_NIC} with the host's address, in no bridge",
    check=command("test", "!", "-e", f"/sys/class/net/{t.HOST_NIC}/master"),
)
RUNNING_GUEST = Stage(
    what=f"a running guest {GUEST} on the network default",
    check=command("virsh", "domid", GUEST),
    make=(),
    guest=GUEST,
)


def program(name: str, package: str) -> Need:
    """A program that has to be installed on the machine."""
    return Need(
        what=f"the program {name}",
        check=command("which", name),
        hint=f"apt-get install --no-install-recommends {package}",
    )


BRIDGE_FIREWALL = Need(
    what="br_netfilter in the kernel",
    check=command("test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables"),
    hint="modprobe br_netfilter",
)
