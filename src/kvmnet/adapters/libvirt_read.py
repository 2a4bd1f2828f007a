"""Reads networks, guests, leases and agents' answers from one libvirt connection.

Lists are asked for with libvirt's own filters, so that a host of hundreds of guests costs one call
a definition and not six. A definition that can't be understood becomes an `Unread` that names it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from kvmnet.adapters.libvirt import absence, connect, leave_behind, translate, wait_for_answer
from kvmnet.adapters.virt_read import Kind, VirtRead, named, unread
from kvmnet.errors import Failed, InvalidInput, KvmnetError, NotFound, PermissionDenied, TimedOut
from kvmnet.formats import domain_xml, leases, network_xml
from kvmnet.model.state import Connection, Unread
from kvmnet.model.virt import AgentAddress, Guest, Network, NetworkConfig

CONNECT_S = 2.5
SILENCE_S = 2.5
"""After so long without any answer the rest is given up; a slow but living libvirt is not."""
AGENT_S = 2
AGENTS_S = 2.5
AGENT_WORKERS = 4
"""libvirtd serves five calls of one client at a time (`max_client_requests`)."""

_STATES = ("no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed",
           "pmsuspended")  # fmt: skip


class _Reader:
    """One pass over one open connection."""

    def __init__(self, handle: Any, uri: str) -> None:
        import libvirt

        self.libvirt = libvirt
        self.handle = handle
        self.uri = uri
        self.result = VirtRead()
        self.heard = time.monotonic()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """The answer of libvirt, and a note that it is alive."""
        answer = function(*args)
        self.heard = time.monotonic()
        return answer

    @contextlib.contextmanager
    def naming(self, what: str) -> Iterator[None]:
        """An error inside becomes an `Unread`; what is gone meanwhile simply is not there."""
        try:
            yield
        except self.libvirt.libvirtError as error:
            failure = translate(error, what)
            if not isinstance(failure, NotFound):
                self.result.unread.append(unread(what, failure))
        except InvalidInput as error:
            self.result.unread.append(unread(what, error))

    def read(self, kinds: frozenset[Kind]) -> None:
        if kinds & {Kind.NETWORKS, Kind.LEASES}:
            with self.naming("libvirt networks"):
                for net in self.call(self.handle.listAllNetworks, 0):
                    self.network(net, kinds)
        if kinds & {Kind.GUESTS, Kind.AGENTS}:
            with self.naming("libvirt guests"):
                self.guests()

    def network(self, net: Any, kinds: frozenset[Kind]) -> None:
        name, active = net.name(), False
        with self.naming(f"network {name}"):
            active = bool(self.call(net.isActive))
        if Kind.NETWORKS in kinds:
            with self.naming(f"network {name}"):
                persistent = bool(self.call(net.isPersistent))
                inactive = self.libvirt.VIR_NETWORK_XML_INACTIVE
                self.result.networks.append(
                    Network(
                        connection=self.uri,
                        name=name,
                        uuid=net.UUIDString(),
                        active=active,
                        persistent=persistent,
                        autostart=bool(self.call(net.autostart)) if persistent else False,
                        live=self.network_config(net, 0) if active else None,
                        saved=self.network_config(net, inactive) if persistent else None,
                    )
                )
        if active and Kind.LEASES in kinds:
            with self.naming(f"network {name}: leases"):
                for raw in self.call(net.DHCPLeases) or ():
                    self.result.leases.append(leases.lease(raw, connection=self.uri, network=name))

    def network_config(self, net: Any, flags: int) -> NetworkConfig:
        try:
            text = self.call(net.XMLDesc, flags)
        except self.libvirt.libvirtError as error:
            if not flags or error.get_error_code() != self.libvirt.VIR_ERR_INVALID_ARG:
                raise
            text = self.call(net.XMLDesc, 0)  # a driver that keeps only one definition
        return network_xml.parse(text).config

    def guests(self) -> None:
        lv, handle = self.libvirt, self.handle
        everyone = self.call(handle.listAllDomains, 0)
        starting = self._uuids(lv.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
        transient = self._uuids(lv.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)
        states = self._states()
        for domain in everyone:
            name, uuid = domain.name(), domain.UUIDString()
            with self.naming(f"guest {name}"):
                self.result.guests.append(
                    self.guest(
                        domain,
                        state=states.get(uuid),
                        autostart=uuid in starting,
                        persistent=uuid not in transient,
                    )
                )

    def guest(self, domain: Any, *, state: int | None, autostart: bool, persistent: bool) -> Guest:
        # A handle that a list returned knows the id already: no call.
        number = domain.ID()
        active = number != -1
        if state is None:
            state = int(self.call(domain.state)[0])
        live = domain_xml.parse(self.call(domain.XMLDesc, 0)) if active else None
        saved = None
        if persistent:
            inactive = self.libvirt.VIR_DOMAIN_XML_INACTIVE
            saved = domain_xml.parse(self.call(domain.XMLDesc, inactive))
        parsed = live or saved
        return Guest(
            connection=self.uri,
            name=domain.name(),
            uuid=domain.UUIDString(),
            state=_STATES[state] if 0 <= state < len(_STATES) else f"state {state}",
            id=number if active else None,
            autostart=autostart,
            persistent=persistent,
            live_nics=live.nics if live else (),
            saved_nics=saved.nics if saved else (),
            agent=parsed.agent if parsed else "none",
        )

    def _uuids(self, flags: int) -> frozenset[str]:
        return frozenset(x.UUIDString() for x in self.call(self.handle.listAllDomains, flags))

    def _states(self) -> dict[str, int]:
        """The state of all guests in one call; a driver without that call is asked one by one."""
        try:
            answers = self.call(
                self.handle.getAllDomainStats, self.libvirt.VIR_DOMAIN_STATS_STATE, 0
            )
        except self.libvirt.libvirtError as error:
            if error.get_error_code() != self.libvirt.VIR_ERR_NO_SUPPORT:
                raise
            return {}
        return {d.UUIDString(): int(s["state.state"]) for d, s in answers if "state.state" in s}


def read(uri: str | None, kinds: frozenset[Kind]) -> VirtRead:
    """One pass over libvirt; whatever can't be read is in `unread`, nothing is raised.

    `uri` None is libvirt's own default for this user. Where this user may not change anything the
    connection is read-only, and agents can't be asked.
    """
    name = named(uri)
    with contextlib.ExitStack() as stack:
        try:
            handle, read_only = _open(stack, uri)
        except KvmnetError as error:
            return VirtRead(unread=[unread(name, absence(uri) or error)])
        return _read_open(handle, read_only, name, kinds)


def _open(stack: contextlib.ExitStack, uri: str | None) -> tuple[Any, bool]:
    try:
        return stack.enter_context(connect(uri, timeout_s=CONNECT_S)), False
    except (PermissionDenied, Failed) as denied:
        # A machine without polkit fails in asking it; the read-only socket asks nobody.
        try:
            opened = connect(uri, read_only=True, timeout_s=CONNECT_S)
            return stack.enter_context(opened), True
        except KvmnetError:
            raise denied from None


def _read_open(handle: Any, read_only: bool, name: str, kinds: frozenset[Kind]) -> VirtRead:
    try:
        reader = _attended(handle, read_only, kinds)
    except _Silent as silent:
        silent.result.unread.append(unread(name, silent.error))
        return silent.result
    result = reader.result
    if Kind.AGENTS in kinds:
        if read_only:
            reader.result.unread.extend(
                Unread(
                    what=f"guest {x.name}: agent",
                    why="a read-only connection can not ask guest agents",
                    hint="run it as root, or join the group libvirt",
                )
                for x in result.guests
                if x.active and x.agent == "connected"
            )
        else:
            _ask_agents(reader)
    return result


class _Silent(Exception):
    """libvirt stopped answering in the middle."""

    def __init__(self, result: VirtRead, error: KvmnetError) -> None:
        super().__init__(str(error))
        self.result = result
        self.error = error


def _is_done(done: threading.Event, wait_s: float) -> bool:
    """Wait for the reading thread; interrupted, leave it behind in order."""
    try:
        return wait_for_answer(done, wait_s)
    except KeyboardInterrupt:
        leave_behind(done)
        raise


def _attended(handle: Any, read_only: bool, kinds: frozenset[Kind]) -> _Reader:
    """Reads in a thread of its own, watched: raises `_Silent` when libvirt falls silent."""
    reader = _Reader(handle, "")
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            reader.uri = reader.call(handle.getURI)
            reader.result.connections.append(_connection(reader, read_only))
            reader.read(kinds)
        except BaseException as error:  # handed over to the caller below
            failures.append(error)
        finally:
            done.set()

    # Never Thread.join: interrupted, it takes a running thread for ended (Python 3.11).
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while not _is_done(done, reader.heard + SILENCE_S - time.monotonic()):
        if reader.heard + SILENCE_S <= time.monotonic():
            leave_behind(done)
            error = TimedOut(
                "libvirt stopped answering",
                why=f"libvirt did not answer within {SILENCE_S:g} seconds",
                hint="look whether libvirtd hangs: systemctl status libvirtd",
            )
            # A copy: the thread may come back to life.
            raise _Silent(msgspec.json.decode(msgspec.json.encode(reader.result), type=VirtRead),
                          error)  # fmt: skip
    if failures:
        failure = failures[0]
        if not isinstance(failure, reader.libvirt.libvirtError):
            raise failure
        raise _Silent(reader.result, translate(failure, "libvirt can not be read"))
    return reader


def _connection(reader: _Reader, read_only: bool) -> Connection:
    number = int(reader.call(reader.handle.getLibVersion))
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    return Connection(
        uri=reader.uri,
        libvirt_version=version,
        hypervisor=str(reader.call(reader.handle.getType)),
        read_only=read_only,
    )


def _ask_agents(reader: _Reader) -> None:
    """Asks all connected agents, a few at a time, for at most `AGENTS_S` seconds together."""
    asked = [x for x in reader.result.guests if x.active and x.agent == "connected"]
    waiting: queue.SimpleQueue[Guest] = queue.SimpleQueue()
    answers: dict[str, tuple[AgentAddress, ...] | KvmnetError] = {}
    for guest in asked:
        waiting.put(guest)
    ends = time.monotonic() + AGENTS_S

    def work(done: threading.Event) -> None:
        try:
            while time.monotonic() < ends:
                guest = waiting.get_nowait()
                answers[guest.uuid] = _ask_agent(reader, guest)
        except queue.Empty:
            return
        finally:
            done.set()

    workers = [threading.Event() for _ in asked[:AGENT_WORKERS]]
    for done in workers:
        threading.Thread(target=work, args=(done,), daemon=True).start()
    for done in workers:
        if not _is_done(done, ends + AGENT_S - time.monotonic()):
            leave_behind(done)
    known = dict(answers)
    reader.result.guests = [_with_answer(reader, x, known) for x in reader.result.guests]


def _ask_agent(reader: _Reader, guest: Guest) -> tuple[AgentAddress, ...] | KvmnetError:
    import libvirt_qemu

    what = f"guest {guest.name}: agent"
    try:
        domain = reader.handle.lookupByUUIDString(guest.uuid)
        command = '{"execute":"guest-network-get-interfaces"}'
        answer = libvirt_qemu.qemuAgentCommand(domain, command, AGENT_S, 0)
        return leases.agent_addresses(answer)
    except reader.libvirt.libvirtError as error:
        return translate(error, what)
    except InvalidInput as error:
        return error


def _with_answer(
    reader: _Reader, guest: Guest, answers: dict[str, tuple[AgentAddress, ...] | KvmnetError]
) -> Guest:
    if not guest.active or guest.agent != "connected":
        return guest
    late = TimedOut("no answer", why=f"not answered in the {AGENTS_S:g} seconds for all agents")
    answer = answers.get(guest.uuid, late)
    if not isinstance(answer, KvmnetError):
        return msgspec.structs.replace(guest, agent_addresses=answer)
    reader.result.unread.append(unread(f"guest {guest.name}: agent", answer))
    return msgspec.structs.replace(guest, agent="silent")
