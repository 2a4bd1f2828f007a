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

from kvmnet.adapters import dhcp6_client, dhcp_client, neighbours, path_mtu, reach, trace_send
from kvmnet.adapters.files import read_optional
from kvmnet.adapters.latency import latency
from kvmnet.adapters.netns import die_with_parent, leave_network
from kvmnet.adapters.packets import OwnerGone, PacketSocket
from kvmnet.adapters.routers import RouterSearch
from kvmnet.adapters.run import run
from kvmnet.errors import Failed, KvmnetError
from kvmnet.formats.ethernet import IPV4, mac_text
from kvmnet.formats.icmp import UNSPECIFIED
from kvmnet.model.probe import ProbeLease
from kvmnet.model.standin import (
    AddRoute,
    AnyAnswer,
    AnyCall,
    AskLease,
    AskLease6,
    AskName,
    AwaitRouter,
    BeQuiet,
    BringUp,
    CheckAddress,
    CollectOffers,
    CollectRouters,
    Configure,
    Connect,
    Done,
    Fault,
    FindMac,
    GiveBack,
    LatencyResult,
    Lease6Result,
    MeasureLatency,
    MeasureMtu,
    OffersResult,
    Ping,
    Ready,
    RouterResult,
    RoutersResult,
    SendFrames,
    SendPackets,
    Solicit,
    TakeAddress,
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
        self._client6: dhcp6_client.Dhcp6Client | None = None
        self._routers: RouterSearch | None = None

    def obey(self, call: AnyCall) -> AnyAnswer:
        """Carry out one order. Raises `KvmnetError`, `OwnerGone`."""
        match call:
            case BringUp():
                return _bring_up()
            case Solicit():
                self._routers = RouterSearch(NIC, _LIFELINE)
                if _IPV6.exists():
                    # What is sent to this address is dropped before the kernel uses it.
                    _await_addresses6(_LINK_SCOPE, 0.5)
                self._routers.solicit()
                return Done()
            case AwaitRouter():
                return self._await_router(call.wait_s)
            case CollectRouters():
                found = () if self._routers is None else self._routers.all()
                return RoutersResult(routers=found)
            case AskLease():
                return self._ask_lease(call)
            case CollectOffers():
                offers = () if self._client is None else self._client.more_offers(call.linger_s)
                return OffersResult(servers=offers)
            case AskLease6():
                return self._ask_lease6(call)
            case Configure():
                return self._configure()
            case CheckAddress():
                return _find(call.ip, neighbours.NO_IP, UNSPECIFIED, call.wait_s)
            case FindMac():
                own = self._lease.address if self._lease is not None else neighbours.NO_IP
                own6 = next(iter(_addresses6(_LINK_SCOPE)), UNSPECIFIED)
                return _find(call.ip, own, own6, call.wait_s)
            case GiveBack():
                self.give_back()
                return Done()
            case _:
                return _reach(call)

    def _ask_lease(self, call: AskLease) -> AnyAnswer:
        # The socket stays open: more servers may make an offer.
        sock = PacketSocket(NIC, IPV4, lifeline=_LIFELINE)
        self._client = dhcp_client.DhcpClient(sock, call.lease_s)
        result = self._client.ask(call.wait_s)
        self._lease = self._client.claimed if result.outcome == "bound" else None
        return result

    def _ask_lease6(self, call: AskLease6) -> Lease6Result:
        with PacketSocket(NIC, IPV4) as sock:
            mac = mac_text(sock.mac)
        self._client6 = dhcp6_client.Dhcp6Client(NIC, mac, _LIFELINE)
        if call.settings_only:
            return self._client6.ask_settings(call.wait_s)
        result = self._client6.ask(call.wait_s)
        if result.lease is not None and result.lease.address is not None:
            run(["ip", "address", "add", f"{result.lease.address}/128", "dev", NIC, "nodad"])
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
        if found.router is None or not found.router.prefixes:
            return found
        return msgspec.structs.replace(found, addresses=_await_addresses6(_GLOBAL_SCOPE, 0.5))

    def give_back(self) -> None:
        """Release what was leased, and what was asked for without being confirmed."""
        if self._client6 is not None:
            with contextlib.suppress(OSError):  # the NIC or its address is gone
                self._client6.give_back()
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


def _take_address(call: TakeAddress) -> AnyAnswer:
    family = "-6" if ":" in call.address else "-4"
    nodad = " nodad" if family == "-6" else ""
    run(["ip", family, "-batch", "-"], stdin=f"address add {call.address} dev {NIC}{nodad}\n")
    if call.router is not None:
        line = f"route replace default via {call.router} dev {NIC} onlink\n"
        run(["ip", family, "-batch", "-"], stdin=line)
    return Done()


def _be_quiet() -> AnyAnswer:
    with contextlib.suppress(OSError):  # a kernel without IPv6
        (_IPV6 / "disable_ipv6").write_text("1")
    run(["ip", "link", "set", NIC, "arp", "off", "up"])
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


def _find(ip: Ip, own: Ip, own6: Ip, wait_s: float) -> AnyAnswer:
    if ":" in ip:
        return neighbours.find_mac6(NIC, ip, own6, wait_s, _LIFELINE)
    return neighbours.find_mac(NIC, _LIFELINE, ip, own, wait_s)


def _reach(call: AnyCall) -> AnyAnswer:
    match call:
        case AddRoute():
            run(["ip", "route", "replace", call.ip, "via", call.via, "dev", NIC, "onlink"])
            return Done()
        case MeasureLatency():
            found = latency(
                call.ips, NIC, _LIFELINE, count=call.count, every_s=call.every_s,
                wait_s=call.wait_s,
            )  # fmt: skip
            return LatencyResult(latencies=found)
        case Ping():
            return reach.ping(call.ip, NIC, _LIFELINE, call.wait_s)
        case AskName():
            return reach.ask_name(call.server, call.name, NIC, _LIFELINE, call.wait_s)
        case Connect():
            return reach.connect(call.ip, call.port, NIC, _LIFELINE, call.wait_s)
        case MeasureMtu():
            return path_mtu.measure_mtu(call.ip, NIC, _LIFELINE, call.wait_s)
        case TakeAddress():
            return _take_address(call)
        case BeQuiet():
            return _be_quiet()
        case SendPackets():
            return trace_send.packets(map(bytes.fromhex, call.packets), call.gaps_s)
        case SendFrames():
            return trace_send.frames(NIC, map(bytes.fromhex, call.frames), call.gaps_s)
        case _:
            raise Failed(f"the stand-in does not know {type(call).__name__}")


def _say(answer: AnyAnswer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def _owner_is_gone(signum: int, frame: FrameType | None) -> None:
    # Once: what follows is the clean-up.
    signal.signal(signum, signal.SIG_IGN)
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
    guest = StandInGuest()
    try:
        status = _until_its_owner_is_gone(guest)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except OwnerGone:  # told a second time: first the lifeline closed, then the signal came
        status = 0
    except BaseException:  # a bug: told when nothing is left
        with contextlib.suppress(OwnerGone):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _clean_up(guest)
        raise
    _clean_up(guest)
    return status


def _clean_up(guest: StandInGuest) -> None:
    with contextlib.suppress(KvmnetError):  # the NIC may be gone, then nothing can be sent
        guest.give_back()
    with contextlib.suppress(KvmnetError):
        run(["ip", "link", "delete", NIC], accept=(0, 1))


def _until_its_owner_is_gone(guest: StandInGuest) -> int:
    """From the first word to the last. Raises `OwnerGone` if that is told twice."""
    try:
        signal.signal(signal.SIGTERM, _owner_is_gone)
        die_with_parent(signal.SIGTERM)
        leave_network()
        _say(Ready())
        _serve(guest)
    except KvmnetError as error:
        with contextlib.suppress(BrokenPipeError):
            _say(Fault(what=error.what, why=error.why))
        return 1
    except (OwnerGone, BrokenPipeError):
        pass  # nobody is left to tell
    return 0


if __name__ == "__main__":
    sys.exit(main())
