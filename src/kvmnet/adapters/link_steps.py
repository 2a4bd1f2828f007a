"""Takes those steps of a plan that change single attributes of the kernel's links."""

from __future__ import annotations

from kvmnet.adapters import arrange, kernel, offloads
from kvmnet.adapters.run import run
from kvmnet.formats import ip_batch
from kvmnet.model import link_steps
from kvmnet.model.host import Link


def take(step: link_steps.LinkStep) -> None:
    """Do what the step says. Raises `KvmnetError`."""
    match step:
        case link_steps.PlugTap():
            _plug(step.tap, step.bridge)
        case link_steps.UnplugTap():
            _unplug(step.tap, step.bridge)
        case link_steps.SetBridge():
            _set_bridge(step)
        case link_steps.SetOffload():
            offloads.switch(step.nic, step.feature, on=step.on)
        case link_steps.SetLink():
            link = _link(step.link)
            if link is not None and link.up != step.up:
                run(["ip", "link", "set", "dev", step.link, "up" if step.up else "down"])
        case link_steps.AddAddress():
            if _link(step.address.link) is not None and not _has(step.address.link, step.cidr):
                run(["ip", "-batch", "-"], stdin=ip_batch.add_address(step.address) + "\n")
        case link_steps.RemoveAddress():
            if _has(step.link, step.address):
                run(["ip", "address", "delete", step.address, "dev", step.link])
        case link_steps.SetPorts():
            arrange.set_ports(step.links)


def _link(name: str) -> Link | None:
    return next((x for x in kernel.read_links()[0] if x.name == name), None)


def _has(link: str, address: str) -> bool:
    return any(x.link == link and f"{x.ip}/{x.prefix_len}" == address
               for x in kernel.read_links()[1])  # fmt: skip


def _plug(tap: str, bridge: str) -> None:
    link = _link(tap)
    if link is not None and link.master != bridge:
        run(["ip", "link", "set", "dev", tap, "master", bridge])


def _unplug(tap: str, bridge: str) -> None:
    link = _link(tap)
    if link is not None and link.master == bridge:
        run(["ip", "link", "set", "dev", tap, "nomaster"])


def _set_bridge(step: link_steps.SetBridge) -> None:
    link = _link(step.bridge)
    if link is not None and link.bridge is not None:
        run(["ip", "link", "set", "dev", step.bridge, "type", "bridge", step.attribute,
             str(step.value)])  # fmt: skip
        if step.attribute == "stp_state" and step.value == 0:
            _let_wait_no_longer(step.bridge)


def _let_wait_no_longer(bridge: str) -> None:
    """Let ports forward that spanning tree made wait: when it is switched off the kernel leaves
    them as they are, for good.
    """
    for link in kernel.read_links()[0]:
        waits = link.port is not None and link.port.state in {"listening", "learning"}
        if link.master == bridge and waits:
            run(["bridge", "link", "set", "dev", link.name, "state", "3"], accept=(0, 255))
