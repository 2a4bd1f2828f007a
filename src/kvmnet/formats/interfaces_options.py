"""The lines of a stanza that make a bridge: bridge-utils' options, or hooks that do the same."""

from __future__ import annotations

from kvmnet.formats.interfaces_hooks import HOOKS
from kvmnet.formats.interfaces_lines import Line
from kvmnet.model.takeover import Takeover

WAIT_S = 30
"""How long the boot waits for a NIC that is plugged in late, as USB's are."""

_OWN_HOOKS = (
    " master $IFACE up",
    " addrgenmode none || true",
    "ip link show dev $IFACE >/dev/null 2>&1 || ip link add name $IFACE ",
    "ip link delete dev $IFACE",
    "while [ ! -e /sys/class/net/",
)


def bridge_options(takeover: Takeover, *, late: tuple[str, ...]) -> tuple[str, ...]:
    """bridge-utils-interfaces(5); `late` are ports that may be plugged in after the boot began.

    `bridge_hw` pins the MAC before the bridge comes up and costs the boot a second, in which
    udev may give the bridge its own; ifupdown's `hwaddress` would come after that at random.
    """
    ports = tuple(x.name for x in takeover.ports)
    lines = [f"bridge_ports {' '.join(ports) or 'none'}"]
    lines.append(f"bridge_stp {'on' if takeover.stp else 'off'}")
    delay = _delay(takeover)
    lines += [f"bridge_fd {delay:g}"] if delay is not None else []
    lines += ["bridge_maxwait 0", f"bridge_hw {takeover.mac}"]
    lines += ["bridge_vlan_aware yes"] if takeover.vlan_filtering else []
    lines += [f"bridge_waitport {WAIT_S} {' '.join(late)}"] if late else []
    return tuple(lines)


def bridge_options2(takeover: Takeover, *, late: tuple[str, ...]) -> tuple[str, ...]:
    """ifupdown2's own words (ifupdown-addons-interfaces(5)); it needs no bridge-utils."""
    ports = tuple(x.name for x in takeover.ports)
    delay = _delay(takeover)
    lines = [f"bridge-ports {' '.join(ports) or 'none'}"]
    lines.append(f"bridge-stp {'on' if takeover.stp else 'off'}")
    lines += [f"bridge-fd {delay:g}"] if delay is not None else []
    lines += [f"hwaddress {takeover.mac}"]
    lines += ["bridge-vlan-aware yes"] if takeover.vlan_filtering else []
    lines += [f"bridge-waitport {WAIT_S} {' '.join(late)}"] if late else []
    return tuple(lines)


def bridge_hooks(takeover: Takeover, *, late: tuple[str, ...]) -> tuple[str, ...]:
    """The same with nothing but ip(8). Times are in hundredths of a second there."""
    delay = _delay(takeover)
    kind = f"bridge stp_state {int(takeover.stp)}"
    kind += f" forward_delay {round(delay * 100)}" if delay is not None else ""
    kind += " vlan_filtering 1" if takeover.vlan_filtering else ""
    lines = [
        f"pre-up n=0; while [ ! -e /sys/class/net/{port} ] && [ $n -lt {WAIT_S} ]; "
        "do n=$((n+1)); sleep 1; done"
        for port in late
    ]
    lines.append(
        "pre-up ip link show dev $IFACE >/dev/null 2>&1 || "
        f"ip link add name $IFACE address {takeover.mac} mtu {takeover.mtu} type {kind}"
    )
    for port in takeover.ports:
        lines += port_hooks(port.name)
    return (*lines, "post-down ip link delete dev $IFACE")


def port_hooks(port: str) -> tuple[str, ...]:
    """What puts one port into the bridge; it takes no address of its own, as with bridge-utils."""
    return (
        f"pre-up ip link set dev {port} addrgenmode none || true",
        f"pre-up ip link set dev {port} master $IFACE up",
    )


def is_bridge_option(line: Line) -> bool:
    """Whether an option of a stanza makes the bridge, and is not the host's configuration."""
    if line.option in HOOKS:
        return any(x in line.value for x in _OWN_HOOKS)
    return line.option.startswith("bridge-")


def _delay(takeover: Takeover) -> float | None:
    if takeover.forward_delay_s is not None:
        return takeover.forward_delay_s
    return None if takeover.stp else 0.0
