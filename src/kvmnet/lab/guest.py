"""Guests of a lab: small real QEMU guests in the lab's libvirtd, driven through their agents."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from xml.sax.saxutils import quoteattr

from kvmnet.adapters import libvirt_guest_agent as agent
from kvmnet.adapters.libvirt import connect, within
from kvmnet.adapters.run import Completed
from kvmnet.errors import (
    CommandFailed,
    Failed,
    InvalidInput,
    KvmnetError,
    Refused,
    TimedOut,
    Unavailable,
)
from kvmnet.lab import accelerator, image, topology
from kvmnet.lab.machine import machine
from kvmnet.lab.record import Record
from kvmnet.model.values import parse_nic_name, parse_object_name

T = TypeVar("T")

MEMORY_MIB = 160
MAX_NICS = 8
CALL_S = 30.0
IMAGES = "/var/lib/libvirt/images"

_XML = """\
<domain type={kind}>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='{arch}' machine='{machine}'>hvm</type>
    <kernel>{images}/{key}.kernel</kernel>
    <initrd>{images}/{key}.initrd</initrd>
    <cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='{cpu}'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
{nics}    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='file'><source path='/var/log/libvirt/{name}.console'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def add(record: Record, name: str, on: str, nics: int, say: Callable[[str], None]) -> LabGuest:
    """Define and start a guest; see `Lab.add_guest`."""
    parse_object_name(name, "guest")
    kind, source = parse_target(on)
    if not 1 <= nics <= MAX_NICS:
        raise InvalidInput(f"{nics} NICs can not be given", why=f"1 to {MAX_NICS} are possible")
    built = image.ensure(say)
    _copy(record, built)
    accelerated = accelerator.kvm_works(built.kernel)
    xml = domain_xml(name, kind, source, nics, key=built.key, accelerated=accelerated)
    with connect(record.libvirt_uri) as connection:
        if name in {x.name() for x in within(CALL_S, "guests", connection.listAllDomains)}:
            raise Refused(
                f"the lab has a guest {name} already",
                hint=f"kvmnet lab guest remove --name {record.name} {name}",
            )
        domain = within(CALL_S, f"guest {name} was not defined", connection.defineXML, xml)
        try:
            within(CALL_S, f"guest {name} did not start", domain.create)
        except KvmnetError:
            within(CALL_S, f"guest {name} was not removed", domain.undefine)
            raise
    return LabGuest(record, name)


def parse_target(text: str) -> tuple[str, str]:
    """`network:NAME` or `bridge:NAME` as (kind, name). Raises `InvalidInput`."""
    kind, colon, source = text.partition(":")
    if colon and kind == "network":
        return kind, parse_object_name(source, "network")
    if colon and kind == "bridge":
        return kind, parse_nic_name(source)
    raise InvalidInput(
        f"{text[:60]!a} is not a target",
        why="network:NAME or bridge:NAME is expected",
        hint="an example: --on network:default",
    )


def domain_xml(name: str, kind: str, source: str, nics: int, *, key: str, accelerated: bool) -> str:
    """The libvirt definition of a guest."""
    here = machine()
    nic = (
        f"    <interface type='{kind}'><source {kind}={quoteattr(source)}/>"
        "<model type='virtio'/><rom enabled='no'/></interface>\n"
    )
    return _XML.format(
        kind=quoteattr("kvm" if accelerated else "qemu"),
        name=name,
        memory=MEMORY_MIB,
        arch=here.arch,
        machine=here.machine,
        cpu="host-passthrough" if accelerated else "maximum",
        images=IMAGES,
        key=key,
        cmdline=f"console={here.console} {image.KERNEL_OPTIONS} guest={name}",
        nics=nic * nics,
    )


def _copy(record: Record, built: image.Image) -> None:
    """Put kernel and initramfs where the lab's QEMU finds them, and let the guests' key in."""
    folder = Path(record.path(IMAGES))
    for source, name in (
        (built.kernel, f"{built.key}.kernel"),
        (built.initrd, f"{built.key}.initrd"),
    ):
        target = folder / name
        if not target.exists():
            partial = folder / f".{name}"
            shutil.copyfile(source, partial)
            partial.rename(target)
    keys = Path(record.path(f"{topology.USER_HOME}/.ssh/authorized_keys"))
    line = built.public_key.read_text()
    if line not in keys.read_text():
        with keys.open("a") as stream:
            stream.write(line)


class LabGuest:
    """One guest of a lab, running or not."""

    def __init__(self, record: Record, name: str) -> None:
        self.record = record
        self.name = name

    @contextlib.contextmanager
    def domain(self) -> Iterator[Any]:
        """The guest's `virDomain`, on a connection of its own. Raises `NotFound`."""
        with connect(self.record.libvirt_uri) as connection:
            what = f"the lab has no guest {self.name}"
            yield within(CALL_S, what, connection.lookupByName, self.name)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 30.0,
        accept: Sequence[int] = (0,),
        stdin: str = "",
    ) -> Completed:
        """Run a program inside the guest through its agent.

        Raises `TimedOut`, `CommandFailed`, and `Unavailable` or `Failed` without an agent.
        """
        with self.domain() as domain:
            done = agent.execute(domain, argv, timeout=timeout, stdin=stdin)
        if done.status not in accept:
            raise CommandFailed(tuple(argv), done.status, done.stderr or done.stdout)
        return done

    def shell(self, script: str, *, timeout: float = 30.0, accept: Sequence[int] = (0,)) -> str:
        """What a shell script prints inside the guest."""
        return self.run(["/bin/sh", "-c", script], timeout=timeout, accept=accept).stdout

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until its agent answers. Raises `TimedOut` with the end of its console."""

        def answers(domain: Any) -> bool:
            try:
                agent.call(domain, "guest-ping")
            except (Unavailable, Failed):
                return False
            return True

        self._wait(timeout, "its agent does not answer", answers)

    def wait_address(self, timeout: float = 60.0, *, nic: int = 0, other_than: str = "") -> str:
        """The IPv4 address of its NIC number `nic`, as soon as it has one.

        `other_than` waits for an address that is not this one.
        """

        def address(domain: Any) -> str:
            found = self._addresses(domain, nic)
            return next((x for x in found if x != other_than), "")

        return self._wait(timeout, f"eth{nic} has no IPv4 address", address)

    def _addresses(self, domain: Any, nic: int) -> list[str]:
        try:
            links = agent.call(domain, "guest-network-get-interfaces")
        except (Unavailable, Failed):
            return []
        return [
            entry["ip-address"]
            for link in links
            if link["name"] == f"eth{nic}"
            for entry in link.get("ip-addresses", ())
            if ipaddress.ip_address(entry["ip-address"]).version == 4
        ]

    def _wait(self, timeout: float, why: str, check: Callable[[Any], T]) -> T:
        deadline = time.monotonic() + timeout
        with self.domain() as domain:
            while True:
                result = check(domain)
                if result:
                    return result
                if time.monotonic() > deadline:
                    raise TimedOut(
                        f"the guest {self.name} was not ready within {timeout:g} seconds",
                        why=f"{why}; last on its console: {self.console().strip()[-300:]!a}",
                    )
                time.sleep(0.1)

    def console(self) -> str:
        """What it wrote to its serial console so far."""
        path = Path(self.record.path(f"/var/log/libvirt/{self.name}.console"))
        return path.read_text(errors="replace") if path.exists() else ""

    def set_link(self, up: bool, *, nic: int = 0) -> None:
        """Plug the cable of NIC number `nic` in or out."""
        with self.domain() as domain:
            xml = domain.XMLDesc(0)
            part = re.findall(r"<interface .*?</interface>", xml, re.DOTALL)[nic]
            part = re.sub(r"<link state=[^>]*/>", "", part)
            state = f"<link state='{'up' if up else 'down'}'/></interface>"
            part = part.replace("</interface>", state)
            within(
                CALL_S, f"the link of {self.name} was not set", domain.updateDeviceFlags, part, 1
            )

    def shutdown(self, timeout: float = 30.0) -> None:
        """Ask it to power off and wait until it has. Raises `TimedOut`."""
        with self.domain() as domain:
            what = f"guest {self.name} could not be asked to power off"
            within(CALL_S, what, domain.shutdownFlags, _SHUTDOWN_BY_AGENT)
            deadline = time.monotonic() + timeout
            while domain.isActive():
                if time.monotonic() > deadline:
                    raise TimedOut(f"guest {self.name} did not power off")
                time.sleep(0.1)

    def destroy(self) -> None:
        """Pull its plug; no error if it is off."""
        with self.domain() as domain:
            if domain.isActive():
                within(CALL_S, f"guest {self.name} could not be ended", domain.destroy)

    def remove(self) -> None:
        """End it and forget its definition."""
        self.destroy()
        with self.domain() as domain:
            within(CALL_S, f"guest {self.name} could not be removed", domain.undefine)
        Path(self.record.path(f"/var/log/libvirt/{self.name}.console")).unlink(missing_ok=True)


_SHUTDOWN_BY_AGENT = 2
"""VIR_DOMAIN_SHUTDOWN_GUEST_AGENT: the guest has no ACPI daemon that would obey the button."""
