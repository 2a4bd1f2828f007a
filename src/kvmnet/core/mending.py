"""The steps that mend findings, each with its undo: what `kvmnet doctor --fix` takes."""

from __future__ import annotations

from kvmnet.core.bridge_picture import as_is
from kvmnet.model.arrangement import Arrangement
from kvmnet.model.host import Address, Link
from kvmnet.model.link_steps import (
    AddAddress,
    BridgeAttribute,
    Feature,
    PlugTap,
    RemoveAddress,
    SetBridge,
    SetLink,
    SetOffload,
    UnplugTap,
)
from kvmnet.model.plan import (
    Arrange,
    PlannedStep,
    SetAutostart,
    SetSysctl,
    StartNetwork,
    StopNetwork,
)
from kvmnet.model.state import State
from kvmnet.model.values import Cidr


def start_network(name: str, plug: tuple[str, ...] = ()) -> PlannedStep:
    """Start a network that is off; `plug` are taps of running guests that belong into it."""
    return PlannedStep(step=StartNetwork(name=name, plug=plug), undo=StopNetwork(name=name))


def autostart(name: str) -> PlannedStep:
    """Have a network started with the host that is not yet."""
    return PlannedStep(
        step=SetAutostart(name=name, on=True), undo=SetAutostart(name=name, on=False)
    )


def plug(tap: Link, bridge: str, guest: str) -> PlannedStep:
    """Put a tap into the bridge that it belongs into."""
    old = tap.master
    undo = PlugTap(tap=tap.name, bridge=old) if old else UnplugTap(tap=tap.name, bridge=bridge)
    disturbs = "nobody: it is unplugged" if old is None else f"guest {guest}: it leaves {old}"
    return PlannedStep(step=PlugTap(tap=tap.name, bridge=bridge), undo=undo, disturbs=disturbs)


def no_spanning_tree(bridge: Link) -> tuple[PlannedStep, ...]:
    """Spanning tree off, and then the delay that a port would wait if it came on again."""
    if bridge.bridge is None:
        return ()
    delay = round(bridge.bridge.forward_delay_s * 100)
    return (
        set_bridge(bridge.name, "stp_state", 0, 1),
        set_bridge(bridge.name, "forward_delay", 0, delay),
    )


def set_bridge(
    bridge: str, attribute: BridgeAttribute, value: int, old: int, disturbs: str = "nobody"
) -> PlannedStep:
    """Set an attribute of a bridge that has the value `old` now."""
    return PlannedStep(
        step=SetBridge(bridge=bridge, attribute=attribute, value=value),
        undo=SetBridge(bridge=bridge, attribute=attribute, value=old),
        disturbs=disturbs,
    )


def set_sysctl(path: str, value: str, old: str, disturbs: str = "nobody") -> PlannedStep:
    """Set a kernel setting, named by its file below /proc/sys, that has the value `old` now."""
    name = ".".join(path.split("/"))
    return PlannedStep(
        step=SetSysctl(name=name, value=value, path=path),
        undo=SetSysctl(name=name, value=old, path=path),
        disturbs=disturbs,
    )


def switch_off(nic: str, feature: Feature) -> PlannedStep:
    """Have a NIC cease to do work for the kernel that it does now."""
    return PlannedStep(
        step=SetOffload(nic=nic, feature=feature, on=False),
        undo=SetOffload(nic=nic, feature=feature, on=True),
        disturbs=f"{nic}: some drivers reset it for a moment" if feature == "lro" else "nobody",
    )


def switch_on(link: str) -> PlannedStep:
    """Switch a link on that is off."""
    return PlannedStep(step=SetLink(link=link, up=True), undo=SetLink(link=link, up=False))


def remove_address(address: Address) -> PlannedStep:
    """Take an address from a link that has no use for it."""
    return PlannedStep(
        step=RemoveAddress(link=address.link, address=Cidr(f"{address.ip}/{address.prefix_len}")),
        undo=AddAddress(address=address),
    )


def remove_bridge(state: State, name: str) -> PlannedStep:
    """Take a bridge without ports away."""
    return PlannedStep(
        step=Arrange(
            what=f"remove the bridge {name}, which has no ports",
            target=Arrangement(links=(), absent=(name,)),
        ),
        undo=Arrange(what=f"make the bridge {name} as it was", target=as_is(state, (name,))),
    )
