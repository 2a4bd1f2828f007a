"""The stand-in guest: `python -m kvmnet.adapters.standin`, a process in a network of its own.

It makes a network namespace without a name, tells its parent, gets a NIC called `eth0`, and does
what it is told, a JSON document a line. Its standard input is its lifeline: when the other end
closes, or the parent dies in any other way, it gives its lease back and ends, and with it the
kernel removes the namespace and the NIC.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from ipaddress import IPv6Address
from pathlib import Path
from types import FrameType

import msgspec

from kvmnet.adapters import dhcp_client, neighbours, reach
from kvmnet.adapters.files import read_optional
from kvmnet.adapters.netns import die_with_parent, leave_network
from kvmnet.adapters.packets import OwnerGone, PacketSocket
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, KvmnetError
from kvmnet.formats.ethernet import IPV4
from kvmnet.model.probe import ProbeLease
from kvmnet.model.standin import (
    AnyAnswer,
    AnyCall,
    AskLease,
    AskName,
    AwaitRouter,
    BringUp,
    CheckAddress,
    Configure,
    Connect,
    Done,
    Fault,
    FindMac,
    GiveBack,
    MeasureMtu,
    Ping,
    Ready,
    RouterResult,
    Solicit,
)
from kvmnet.model.values import Ip

NIC = "eth0"
_LIFELINE = 0
_IFA_F_TENTATIVE = 0x40
_GLOBAL_SCOPE, _LINK_SCOPE = "00", "20"
_IPV6 = Path("/proc/sys/net/ipv6/conf") / NIC
_QUICK_IPV6 = {
    "accept_dad": "0",  # its MAC is known to be unused; the check would cost a second or two
    "accept_ra": "1",
    "addr_gen_mode": "0",
    "disable_ipv6": "0",
    "forwarding": "0",
    "router_solicitations": "0",  # `Solicit` does it, at a moment that is known
}


class StandInGuest:
    """What the process remembers between two orders."""

    def __init__(self) -> None:
        self._lease: ProbeLease | None = None
        self._client: dhcp_client.DhcpClient | None = None
        self._routers: neighbours.RouterSearch | None = None

    def obey(self, call: AnyCall) -> AnyAnswer:
        """Carry out one order. Raises `KvmnetError`, `OwnerGone`."""
        match call:
            case BringUp():
                return _bring_up()
            case Solicit():
                self._routers = neighbours.RouterSearch(NIC, _LIFELINE)
                # What is sent to this address is dropped before the kernel uses it.
                _await_addresses6(_LINK_SCOPE, 0.2)
                self._routers.solicit()
                return Done()
            case AwaitRouter():
                return self._await_router(call.wait_s)
            case AskLease():
                return self._ask_lease(call)
            case CheckAddress():
                return neighbours.find_mac(NIC, _LIFELINE, call.ip, neighbours.NO_IP, call.wait_s)
            case Configure():
                return self._configure()
            case FindMac():
                own = self._lease.address if self._lease is not None else neighbours.NO_IP
                return neighbours.find_mac(NIC, _LIFELINE, call.ip, own, call.wait_s)
            case GiveBack():
                self.give_back()
                return Done()
            case _:
                return _reach(call)

    def _ask_lease(self, call: AskLease) -> AnyAnswer:
        with PacketSocket(NIC, IPV4, lifeline=_LIFELINE) as sock:
            self._client = dhcp_client.DhcpClient(sock, call.lease_s)
            result = self._client.ask(call.wait_s)
        self._lease = self._client.claimed if result.outcome == "bound" else None
        return result

    def _configure(self) -> AnyAnswer:
        lease = self._lease
        if lease is None:
            raise Failed("there is no lease to configure")
        lines = [f"address add {lease.address}/{lease.prefix_len} dev {NIC}"]
        if lease.mtu is not None and 68 <= lease.mtu <= 65535:
            lines.append(f"link set {NIC} mtu {lease.mtu}")
        if lease.router is not None:
            lines.append(f"route add default via {lease.router} dev {NIC} onlink")
        run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
        return Done()

    def _await_router(self, wait_s: float) -> RouterResult:
        if self._routers is None:
            raise Failed("no router was asked for")
        found = self._routers.wait(wait_s)
        if found.ip is None or not found.prefixes:
            return found
        return msgspec.structs.replace(found, addresses=_await_addresses6(_GLOBAL_SCOPE, 0.1))

    def give_back(self) -> None:
        """Release what was leased, and what was asked for without being confirmed."""
        lease = self._client.claimed if self._client is not None else None
        if lease is None:
            return
        with PacketSocket(NIC, IPV4) as sock:
            dhcp_client.give_back(sock, lease)
        self._client = None
        self._lease = None


def _bring_up() -> AnyAnswer:
    for name, value in _QUICK_IPV6.items():
        with contextlib.suppress(OSError):  # a kernel without IPv6, or without that setting
            (_IPV6 / name).write_text(value)
    run(["ip", "-batch", "-"], stdin=f"link set lo up\nlink set {NIC} up\n")
    return Done()


def _addresses6(scope: str) -> tuple[Ip, ...]:
    """The NIC's IPv6 addresses of a scope, as /proc/net/if_inet6 has it: 00 global, 20 link."""
    text = read_optional(Path("/proc/self/net/if_inet6")) or ""
    rows = [line.split() for line in text.splitlines()]
    return tuple(
        Ip(str(IPv6Address(bytes.fromhex(row[0]))))
        for row in rows
        if len(row) == 6
        and row[5] == NIC
        and row[3] == scope
        and not int(row[4], 16) & _IFA_F_TENTATIVE
    )


def _await_addresses6(scope: str, wait_s: float) -> tuple[Ip, ...]:
    """The same, waiting for the first: the kernel makes them a moment after their cause."""
    end = time.monotonic() + wait_s
    while not (found := _addresses6(scope)) and time.monotonic() < end:
        time.sleep(0.005)
    return found


def _reach(call: AnyCall) -> AnyAnswer:
    match call:
        case Ping():
            return reach.ping(call.ip, NIC, _LIFELINE, call.wait_s)
        case AskName():
            return reach.ask_name(call.server, call.name, NIC, _LIFELINE, call.wait_s)
        case Connect():
            return reach.connect(call.ip, call.port, NIC, _LIFELINE, call.wait_s)
        case MeasureMtu():
            return reach.measure_mtu(call.ip, _LIFELINE, call.wait_s)
        case _:
            raise Failed(f"the stand-in does not know {type(call).__name__}")


def _say(answer: AnyAnswer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def _owner_is_gone(signum: int, frame: FrameType | None) -> None:
    raise OwnerGone


def _serve(guest: StandInGuest) -> None:
    """Carry out orders until the lifeline closes."""
    decoder = msgspec.json.Decoder(AnyCall)
    for line in sys.stdin.buffer:
        try:
            answer = guest.obey(decoder.decode(line))
        except KvmnetError as error:
            answer = Fault(what=error.what, why=error.why)
        except OSError as error:
            answer = Fault(what="the stand-in guest failed", why=error.strerror or str(error))
        _say(answer)


def main() -> int:
    signal.signal(signal.SIGTERM, _owner_is_gone)
    guest = StandInGuest()
    try:
        die_with_parent(signal.SIGTERM)
        leave_network()
        _say(Ready())
        _serve(guest)
    except KvmnetError as error:
        _say(Fault(what=error.what, why=error.why))
        return 1
    except (OwnerGone, BrokenPipeError):
        pass  # nobody is left to tell: clean up and end
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(KvmnetError):  # the NIC may be gone, then nothing can be sent
            guest.give_back()
        with contextlib.suppress(KvmnetError):
            run(["ip", "link", "delete", NIC], accept=(0, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
