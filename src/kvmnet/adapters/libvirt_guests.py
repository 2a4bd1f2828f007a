"""Changes libvirt's guests. Each function can be called twice without harm.

One connection serves all steps of a process: opening one costs more than a change of a guest.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from kvmnet.adapters.libvirt import CALL_TIMEOUT_S, connect, in_threads, translate, within
from kvmnet.adapters.libvirt_networks import RECONNECT_S, is_cut
from kvmnet.errors import Failed, KvmnetError, PermissionDenied, Unavailable
from kvmnet.formats import guest_xml
from kvmnet.model.guest_steps import MoveNic, PlugNic, RestoreGuest, SaveGuest, UnplugNic
from kvmnet.model.target import place
from kvmnet.model.values import Ip, Mac
from kvmnet.model.virt import GuestNic

T = TypeVar("T")

CABLE_S = 0.5
"""How long a cable is pulled: a guest whose programs look now and then has to notice."""
LET_GO_S = 20.0
"""How long a guest may take to let go of a NIC that is unplugged; measured: under a second."""

AGENT_S = 3

_kept: dict[str | None, tuple[contextlib.ExitStack, Any]] = {}
_opening = threading.Lock()


def _connection(uri: str | None) -> Any:
    with _opening:
        if uri not in _kept:
            stack = contextlib.ExitStack()
            _kept[uri] = (stack, stack.enter_context(connect(uri)))
        return _kept[uri][1]


def hang_up(uri: str | None) -> None:
    """Close the connection, if there is one: the next call opens another."""
    with _opening:
        stack, _ = _kept.pop(uri, (None, None))
    if stack is not None:
        with contextlib.suppress(Exception):
            stack.close()


@atexit.register
def _hang_up_all() -> None:
    for uri in list(_kept):
        hang_up(uri)


def with_connection(uri: str | None, what: str, call: Callable[[Any], T]) -> T:
    """The result of `call` on the connection, tried again while libvirtd is restarting."""
    end = time.monotonic() + RECONNECT_S
    while True:
        try:
            return within(CALL_TIMEOUT_S, what, call, _connection(uri))
        except KvmnetError as error:
            restarting = isinstance(error, Unavailable) and not isinstance(error, PermissionDenied)
            if not (restarting or is_cut(error)):
                raise
            hang_up(uri)
            if time.monotonic() > end:
                raise
        time.sleep(0.2)


class GuestXml(Struct, frozen=True, kw_only=True):
    """A guest's definitions as libvirt prints them, secrets included."""

    name: str
    uuid: str
    active: bool
    saved: str | None
    """None: a transient guest."""
    live: str | None


class Listed(Struct, frozen=True, kw_only=True):
    """A guest that libvirt knows."""

    name: str
    uuid: str
    active: bool


def listed(uri: str | None) -> tuple[Listed, ...]:
    """All guests, by their names."""

    def read(connection: Any) -> tuple[Listed, ...]:
        found = (
            Listed(name=x.name(), uuid=x.UUIDString(), active=x.ID() != -1)
            for x in connection.listAllDomains(0)
        )
        return tuple(sorted(found, key=lambda x: x.name))

    return with_connection(uri, "the guests could not be listed", read)


def read_all(uri: str | None, wanted: Callable[[str, str], bool]) -> tuple[GuestXml, ...]:
    """The guests whose name and UUID are `wanted`. One that ends meanwhile is left out."""
    import libvirt

    flags = libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE

    def read(connection: Any) -> tuple[GuestXml, ...]:
        lasting = libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT
        persistent = {x.UUIDString() for x in connection.listAllDomains(lasting)}
        named = [x for x in connection.listAllDomains(0) if wanted(x.name(), x.UUIDString())]
        named.sort(key=lambda x: str(x.name()))
        found = in_threads(lambda x: one(x, x.UUIDString() in persistent), named)
        return tuple(x for x in found if x is not None)

    def one(domain: Any, lasts: bool) -> GuestXml | None:
        active = domain.ID() != -1
        try:
            return GuestXml(
                name=domain.name(), uuid=domain.UUIDString(), active=active,
                saved=domain.XMLDesc(flags) if lasts else None,
                live=domain.XMLDesc(0) if active else None,
            )  # fmt: skip
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    return with_connection(uri, "the guests could not be read", read)


def _look_up(connection: Any, uuid: str) -> Any | None:
    import libvirt

    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _must_find(connection: Any, guest: str, uuid: str) -> Any:
    domain = _look_up(connection, uuid)
    if domain is None:
        raise Failed(f"guest {guest} is gone", why="somebody removed it meanwhile")
    if domain.name() != guest:
        raise Failed(f"guest {guest} was renamed meanwhile", why=f"it is {domain.name()} now")
    return domain


def save(uri: str | None, steps: Sequence[SaveGuest]) -> tuple[KvmnetError | None, ...]:
    """Save changed definitions; for each, why it failed: `Failed` if its guest is not as planned.

    One call with a time limit for all of them: a limit costs as much as saving one. Raises
    `Unavailable`.
    """

    def define(connection: Any) -> tuple[KvmnetError | None, ...]:
        return tuple(in_threads(lambda x: _why_not_saved(connection, x), steps))

    return with_connection(uri, "the definitions of guests could not be saved", define)


def _why_not_saved(connection: Any, step: SaveGuest) -> KvmnetError | None:
    import libvirt

    try:
        _check_running(_must_find(connection, step.guest, step.uuid), step)
        domain = connection.defineXML(step.xml)
        _check_running(domain, step)
        _check_saved(domain, step)
    except KvmnetError as error:
        return error
    except libvirt.libvirtError as error:
        why = translate(error, f"the definition of guest {step.guest} could not be saved")
        if is_cut(why) or isinstance(why, Unavailable):
            raise  # libvirtd is away: all of it is tried again
        return why
    return None


def _check_running(domain: Any, step: SaveGuest) -> None:
    """A handle that was just got knows the id: no call."""
    if (domain.ID() != -1) != step.active:
        did = "shut down" if step.active else "started"
        raise Failed(f"guest {step.guest} was {did} meanwhile")


def _check_saved(domain: Any, step: SaveGuest) -> None:
    import libvirt

    now = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
    if now == step.xml:  # as it is for a definition that libvirt has printed: nothing to read
        return
    saved, wanted = guest_xml.nics(now), guest_xml.nics(step.xml)
    if [(x.mac, place(x)) for x in saved] != [(x.mac, place(x)) for x in wanted]:
        raise Failed(f"libvirt saved something else for guest {step.guest} than it was given")


def restore(uri: str | None, step: RestoreGuest) -> None:
    """Save the definition that was there; a guest that is gone stays gone, a new name stays."""

    def define(connection: Any) -> None:
        domain = _look_up(connection, step.uuid)
        if domain is not None:
            connection.defineXML(guest_xml.renamed(step.xml, domain.name()))

    with_connection(uri, f"the definition of guest {step.guest} could not be restored", define)


def live_nic(uri: str | None, uuid: str, mac: Mac) -> GuestNic | None:
    """The running guest's NIC as it is now; None: it does not run, or has no such NIC."""

    def read(connection: Any) -> GuestNic | None:
        found = _running_nic(_look_up(connection, uuid), mac)
        return found[0] if found is not None else None

    return with_connection(uri, f"NIC {mac} could not be read", read)


def is_running(uri: str | None, uuid: str) -> bool:
    """Whether there is such a guest and it runs."""

    def look(connection: Any) -> bool:
        domain = _look_up(connection, uuid)
        return domain is not None and domain.ID() != -1

    return with_connection(uri, "the guest could not be looked up", look)


def _running_nic(domain: Any | None, mac: Mac) -> tuple[GuestNic, str] | None:
    if domain is None or domain.ID() == -1:
        return None
    return guest_xml.find(domain.XMLDesc(0), mac)


def _affect_running() -> int:
    import libvirt

    return int(libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _affect_saved() -> int:
    import libvirt

    return int(libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def leased(uri: str | None, network: str, mac: Mac) -> tuple[Ip, ...]:
    """What the network's DHCP server gave that address; nothing if it has none."""
    import libvirt

    def read(connection: Any) -> tuple[Ip, ...]:
        try:
            leases = connection.networkLookupByName(network).DHCPLeases(mac) or ()
        except libvirt.libvirtError:
            return ()
        return tuple(Ip(x["ipaddr"]) for x in leases)

    return with_connection(uri, "the leases could not be read", read)


def agent_answer(uri: str | None, uuid: str) -> str:
    """What the guest's agent says of its NICs. Raises `KvmnetError` where there is none."""
    import libvirt_qemu

    def ask(connection: Any) -> str:
        domain = connection.lookupByUUIDString(uuid)
        order = '{"execute":"guest-network-get-interfaces"}'
        return str(libvirt_qemu.qemuAgentCommand(domain, order, AGENT_S, 0))

    return within(AGENT_S + 2, "the guest's agent did not answer", ask, _connection(uri))


def move(uri: str | None, step: MoveNic) -> None:
    """Put a running guest's NIC elsewhere. Raises `Failed` if it has none or does not run."""
    what = f"NIC {step.mac} of guest {step.guest} could not be put on {step.place}"

    def change(connection: Any) -> str | None:
        """The NIC whose cable is to be pulled; None: none is."""
        domain = _look_up(connection, step.uuid)
        found = _running_nic(domain, step.mac)
        if domain is None or found is None:
            if step.if_off == "skip":
                return None
            raise Failed(what, why=_why_off(domain, step))
        nic, present = found
        xml = guest_xml.with_device_of(step.xml, present)
        domain.updateDeviceFlags(xml, _affect_running())
        return xml if place(nic) != step.place and nic_is_up(xml) else None

    pulled = with_connection(uri, what, change)
    if pulled is not None and step.cable == "pulled":
        _pull_cable(uri, step, pulled)


def nic_is_up(xml: str) -> bool:
    """Whether an `<interface>` has its cable in."""
    return "state='down'" not in xml and 'state="down"' not in xml


def _why_off(domain: Any | None, step: MoveNic | PlugNic) -> str:
    if domain is None:
        return f"guest {step.guest} is gone: somebody removed it meanwhile"
    if domain.ID() == -1:
        return f"guest {domain.name()} was shut down meanwhile"
    return f"guest {domain.name()} has no such NIC any more"


def _pull_cable(uri: str | None, step: MoveNic, xml: str) -> None:
    what = f"the cable of NIC {step.mac} of guest {step.guest} could not be pulled"
    for text, wait_s in (
        (guest_xml.with_link(xml, "down"), CABLE_S),
        (guest_xml.with_link(xml, "up"), 0.0),
    ):
        with_connection(uri, what, _updater(step.uuid, text))
        time.sleep(wait_s)


def _updater(uuid: str, xml: str) -> Callable[[Any], None]:
    def update(connection: Any) -> None:
        domain = _look_up(connection, uuid)
        if domain is not None and domain.ID() != -1:
            domain.updateDeviceFlags(xml, _affect_running())

    return update


def plug(uri: str | None, step: PlugNic) -> None:
    """Give a guest a NIC, unless it has it. Raises `Failed`."""
    what = f"NIC {step.mac} could not be given to guest {step.guest}"

    def attach(connection: Any) -> None:
        domain = _look_up(connection, step.uuid)
        off = domain is None or (step.where == "running" and domain.ID() == -1)
        if domain is None or off:
            if step.if_off == "skip":
                return
            raise Failed(what, why=_why_off(domain, step))
        if guest_xml.find(_printed(domain, step.where), step.mac) is None:
            flag = _affect_running() if step.where == "running" else _affect_saved()
            domain.attachDeviceFlags(step.xml, flag)

    with_connection(uri, what, attach)


def _printed(domain: Any, where: str) -> str:
    import libvirt

    return str(domain.XMLDesc(0 if where == "running" else libvirt.VIR_DOMAIN_XML_INACTIVE))


def unplug(uri: str | None, step: UnplugNic) -> None:
    """Take a NIC from a guest and wait until it is gone. Raises `Failed` if the guest keeps it."""
    what = f"NIC {step.mac} could not be taken from guest {step.guest}"

    def present(connection: Any) -> tuple[Any, str] | None:
        domain = _look_up(connection, step.uuid)
        if domain is None or (step.where == "running" and domain.ID() == -1):
            return None
        found = guest_xml.find(_printed(domain, step.where), step.mac)
        return None if found is None else (domain, found[1])

    def detach(connection: Any) -> None:
        found = present(connection)
        if found is not None:
            domain, text = found
            domain.detachDeviceFlags(
                text, _affect_running() if step.where == "running" else _affect_saved()
            )

    with_connection(uri, what, detach)
    end = time.monotonic() + LET_GO_S
    while with_connection(uri, what, present) is not None:
        if time.monotonic() > end:
            raise Failed(
                what, why=f"the guest did not let go of it within {LET_GO_S:g} seconds",
                hint="a guest that does not run an operating system can not; --next-boot",
            )  # fmt: skip
        time.sleep(0.1)
