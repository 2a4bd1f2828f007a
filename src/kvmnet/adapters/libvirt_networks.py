"""Changes libvirt's networks. Each function can be called twice without harm."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kvmnet.adapters.libvirt import CALL_TIMEOUT_S, connect, within
from kvmnet.adapters.run import run
from kvmnet.errors import (
    Failed,
    KvmnetError,
    NotFound,
    PermissionDenied,
    Refused,
    Unavailable,
)
from kvmnet.formats import network_xml
from kvmnet.model.virt import NetworkConfig

T = TypeVar("T")

RECONNECT_S = 15.0
"""How long a libvirtd that is restarting is waited for."""
ANSWER_S = 2.0
"""How long a libvirtd may take to say a word; measured: 5 ms."""

_GONE_MEANWHILE = (
    "End of file while reading data",
    "client socket is closed",
    "connection closed",
    "Cannot write data",
    "Cannot recv data",
    "internal error: connection",
)


def is_cut(error: KvmnetError) -> bool:
    """Whether libvirtd went away in the middle of a call."""
    return isinstance(error, Failed) and any(text in error.why for text in _GONE_MEANWHILE)


def _with_network(uri: str | None, what: str, call: Callable[[Any], T]) -> T:
    """The result of `call` on an open connection, tried again while libvirtd is restarting."""
    end = time.monotonic() + RECONNECT_S
    while True:
        try:
            with connect(uri) as connection:
                return within(CALL_TIMEOUT_S, what, call, connection)
        except KvmnetError as error:
            restarting = isinstance(error, Unavailable) and not isinstance(error, PermissionDenied)
            if not (restarting or is_cut(error)) or time.monotonic() > end:
                raise
        time.sleep(0.2)


def _look_up(connection: Any, name: str, uuid: str | None = None) -> Any | None:
    """The network of that name (and UUID), or None; libvirt's own look-up raises where none is."""
    for network in connection.listAllNetworks(0):
        if network.name() == name and uuid in (None, network.UUIDString()):
            return network
    return None


def saved_xml(uri: str | None, name: str) -> str | None:
    """The network's saved definition as libvirt prints it; None if it has none."""
    import libvirt

    def read(connection: Any) -> str | None:
        network = _look_up(connection, name)
        if network is None or not network.isPersistent():
            return None
        return str(network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))

    return _with_network(uri, f"network {name} could not be read", read)


def transient_xml(uri: str | None, name: str) -> str | None:
    """The running definition of a network that is saved nowhere; None for all others."""

    def read(connection: Any) -> str | None:
        network = _look_up(connection, name)
        if network is None or network.isPersistent():
            return None
        return str(network.XMLDesc(0))

    return _with_network(uri, f"network {name} could not be read", read)


def define(uri: str | None, name: str, uuid: str, config: NetworkConfig) -> None:
    """Save a network's definition, replacing one of that name and UUID."""
    define_xml(uri, name, network_xml.render(name, config, uuid))


def define_xml(uri: str | None, name: str, xml: str) -> None:
    """Save a network's definition from libvirt's own XML."""
    _with_network(uri, f"network {name} could not be defined", lambda c: c.networkDefineXML(xml))


def undefine(uri: str | None, name: str, uuid: str | None) -> None:
    """Forget a network's saved definition; it is no error if there is none (of that UUID)."""

    def forget(connection: Any) -> None:
        network = _look_up(connection, name, uuid)
        if network is not None and network.isPersistent():
            network.undefine()

    _with_network(uri, f"the definition of network {name} could not be removed", forget)


def start(uri: str | None, name: str) -> None:
    """Start a network unless it is active. Raises `NotFound`, `Failed` with libvirt's reason."""

    def make_active(connection: Any) -> None:
        network = _look_up(connection, name)
        if network is None:
            raise NotFound(f"there is no network {name}")
        if not network.isActive():
            network.create()

    try:
        _with_network(uri, f"network {name} could not be started", make_active)
    except Failed as error:
        raise Failed(error.what, why=error.why, hint=start_hint(error.why)) from None


def plug(uri: str | None, name: str, taps: Sequence[str]) -> None:
    """Put taps into the network's bridge; those of guests that have ended are passed over."""
    if not taps:
        return

    def bridge_name(connection: Any) -> str:
        network = _look_up(connection, name)
        if network is None:
            raise NotFound(f"there is no network {name}")
        return str(network.bridgeName())

    bridge = _with_network(uri, f"the bridge of network {name} could not be read", bridge_name)
    for tap in taps:
        if Path("/sys/class/net", tap).exists():
            run(["ip", "link", "set", "dev", tap, "master", bridge])


_START_HINTS = (
    ("already in use by interface",
     "its subnet is in use (subnet-overlap): give it another one, or remove that address"),
    ("Address already in use",
     "another DNS or DHCP server holds port 53 or 67 (dns-port-taken): ss -lnptu 'sport = 53'"),
    ("failed to create listening socket",
     "another DNS or DHCP server holds port 53 or 67 (dns-port-taken): ss -lnptu 'sport = 53'"),
    ("File exists", "a bridge of that name is left over (stale-bridge): ip link show type bridge"),
    ("No chain/target/match", "the firewall's tools do not fit the kernel (firewall-backend): "
     "iptables -V, and firewall_backend in /etc/libvirt/network.conf"),
    ("firewall backend", "libvirt finds no firewall tool (firewall-backend): install iptables or "
     "nftables, then restart libvirtd"),
    ("accept_ra", "the host's own IPv6 address would run out (accept-ra): "
     "sysctl net.ipv6.conf.NIC.accept_ra=2"),
)  # fmt: skip


def start_hint(why: str) -> str:
    """What helps against libvirt's reason for not starting a network."""
    return next((hint for text, hint in _START_HINTS if text in why), "")


def stop(uri: str | None, name: str, uuid: str | None) -> None:
    """Stop a network; it is no error if it is not active or gone (or not of that UUID)."""

    def make_inactive(connection: Any) -> None:
        network = _look_up(connection, name, uuid)
        if network is not None and network.isActive():
            network.destroy()

    _with_network(uri, f"network {name} could not be stopped", make_inactive)


def set_autostart(uri: str | None, name: str, on: bool) -> None:
    """Have the network started, or not, when the host starts; no error if it is gone."""

    def set_flag(connection: Any) -> None:
        network = _look_up(connection, name)
        if network is not None and network.isPersistent():
            network.setAutostart(int(on))

    try:
        _with_network(uri, f"autostart of network {name} could not be set", set_flag)
    except Failed as error:
        stale = "create symlink" in error.why and "File exists" in error.why
        hint = f"a link is left over: rm /etc/libvirt/qemu/networks/autostart/{name}.xml"
        raise Failed(error.what, why=error.why, hint=hint if stale else "") from None


def wait_until_answering(uri: str | None) -> None:
    """Return when libvirt answers; a restarting one is waited for. Raises `Unavailable`."""
    _with_network(uri, "libvirt does not answer", lambda connection: connection.getLibVersion())


def check_answering(uri: str | None) -> None:
    """Raise `Unavailable` unless libvirt answers at once."""
    with connect(uri, timeout_s=ANSWER_S) as connection:
        within(ANSWER_S, "libvirt does not answer", connection.getLibVersion)


def check_writable(uri: str | None) -> None:
    """Raise unless networks with bridges can be changed on this connection.

    `Refused` for a user's session: its daemon has no right to make bridges (https://libvirt.org/uri.html).
    """
    with connect(uri) as connection:
        name = str(within(CALL_TIMEOUT_S, "libvirt does not answer", connection.getURI))
    if name.split("?")[0].endswith("/session"):
        raise Refused(
            "networks can not be made on a user's own libvirt session",
            why="they need a bridge and firewall rules, which only the system's libvirt may make",
            hint="run it as root, or on the system's libvirt: --connect qemu:///system",
        )
