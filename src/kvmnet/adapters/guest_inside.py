"""Looking at a guest's network from inside, through its agent.

Which commands an agent may carry out is the guest's choice: many distributions forbid `guest-exec`
and the reading of files. What is not allowed is told as `None`, not as an error.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from kvmnet.adapters import libvirt_guest_agent as agent
from kvmnet.adapters.libvirt import CALL_TIMEOUT_S, connect, within
from kvmnet.adapters.run import Completed
from kvmnet.errors import Failed, InvalidInput
from kvmnet.formats import inside, leases
from kvmnet.formats.inside import InsideRoute
from kvmnet.model.values import Ip
from kvmnet.model.virt import AgentAddress

WAIT_S = 2
"""For each answer: an agent that lives answers within a tenth of a second."""
_FILE_BYTES = 65536
_NOT_THERE = (126, 127)


class Told(Struct, frozen=True, kw_only=True):
    """What the agent said first."""

    version: str
    commands: frozenset[str]
    """Those that are allowed."""
    nics: tuple[tuple[str, str], ...]
    """Names and MAC addresses."""
    addresses: tuple[AgentAddress, ...]

    @property
    def can_execute(self) -> bool:
        return {"guest-exec", "guest-exec-status"} <= self.commands


class Agent:
    """A running guest's agent that answers."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        begin = time.monotonic()
        self.told = self._ask()
        self.took_ms = (time.monotonic() - begin) * 1000
        """Until it had told what it is and which NICs it has."""

    def _ask(self) -> Told:
        info = agent.call(self._domain, "guest-info", wait_s=WAIT_S)
        nics = agent.call(self._domain, "guest-network-get-interfaces", wait_s=WAIT_S)
        try:
            return Told(
                version=str(info["version"])[:40],
                commands=frozenset(x["name"] for x in info["supported_commands"] if x["enabled"]),
                nics=tuple(
                    (str(x["name"])[:64], str(x.get("hardware-address", "")).lower()) for x in nics
                ),
                addresses=leases.agent_addresses(_as_text(nics)),
            )
        except (KeyError, TypeError, InvalidInput):
            raise Failed("the guest agent's answer can not be understood") from None

    def default_routes(self) -> tuple[InsideRoute, ...] | None:
        """The guest's default routes of both families; None: nothing allowed tells."""
        if "guest-network-get-route" in self.told.commands:
            routes = agent.call(self._domain, "guest-network-get-route", wait_s=WAIT_S)
            return inside.agent_routes(routes)
        four = self._read("/proc/net/route")
        if four is None:
            return None
        six = self._read("/proc/net/ipv6_route") or ""
        return (*inside.default_routes4(four), *inside.default_routes6(six))

    def dns_servers(self) -> tuple[Ip, ...] | None:
        """The guest's DNS servers, those behind systemd-resolved where it has that."""
        text = self._read("/etc/resolv.conf")
        if text is None:
            return None
        servers = inside.dns_servers(text)
        if all(x.startswith("127.") for x in servers):
            real = self._read("/run/systemd/resolve/resolv.conf")
            servers = inside.dns_servers(real or "") or servers
        return servers

    def run_one_of(self, programs: Sequence[Sequence[str]], timeout_s: float) -> Completed | None:
        """What the first of them that the guest has ends with; None: it has none.

        Raises `TimedOut`, `Unavailable`.
        """
        for argv in programs:
            try:
                done = agent.execute(self._domain, argv, timeout=timeout_s)
            except Failed:
                continue  # there is no such program
            if done.status not in _NOT_THERE:
                return done
        return None

    def _read(self, path: str) -> str | None:
        """A file of the guest; None: it is not there, or reading it is not allowed."""
        if {"guest-file-open", "guest-file-read", "guest-file-close"} <= self.told.commands:
            with contextlib.suppress(Failed):
                return self._read_by_agent(path)
            return None
        if not self.told.can_execute:
            return None
        done = self.run_one_of([["cat", path]], WAIT_S)
        return done.stdout if done is not None and done.status == 0 else None

    def _read_by_agent(self, path: str) -> str:
        handle = agent.call(self._domain, "guest-file-open", {"path": path}, wait_s=WAIT_S)
        try:
            order: dict[str, object] = {"handle": handle, "count": _FILE_BYTES}
            answer = agent.call(self._domain, "guest-file-read", order, wait_s=WAIT_S)
        finally:
            agent.call(self._domain, "guest-file-close", {"handle": handle}, wait_s=WAIT_S)
        return base64.b64decode(answer.get("buf-b64", "")).decode("utf-8", "replace")


def _as_text(nics: Any) -> str:
    return json.dumps({"return": nics})


@contextlib.contextmanager
def ask(uri: str | None, uuid: str) -> Iterator[Agent]:
    """A guest's agent. Raises `Unavailable`, `TimedOut`, `Failed` where it does not answer."""
    with connect(uri) as connection:
        what = f"guest {uuid} can not be looked up"
        yield Agent(within(CALL_TIMEOUT_S, what, connection.lookupByUUIDString, uuid))
