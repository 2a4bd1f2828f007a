"""How long echo requests to some addresses take until they are answered."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

from kvmnet.adapters.packets import wait_any
from kvmnet.adapters.reach import address, answer_to, drain_errors, echo, echo_socket, random16
from kvmnet.model.probe import Latency
from kvmnet.model.values import Ip


class _Pings:
    """Echo requests to one address, with the times of their answers."""

    def __init__(self, ip: Ip, nic: str) -> None:
        self.ip = ip
        self.socket = echo_socket(ip)
        self._ident = random16()
        self._sent: dict[int, float] = {}
        self._times: dict[int, float] = {}
        try:
            self.socket.connect(address(ip, 0, nic))
        except OSError:
            self.socket.close()
            raise

    def send(self, sequence: int) -> None:
        self._sent[sequence] = time.monotonic()
        with contextlib.suppress(OSError):  # it counts as lost
            self.socket.send(echo(self.ip, self._ident, sequence))

    def read(self) -> None:
        drain_errors(self.socket)
        with contextlib.suppress(OSError):  # an error on the way, or nothing yet
            while True:
                sequence = answer_to(self.socket.recv(2048), self.ip, self._ident)
                if sequence in self._sent and sequence is not None:
                    took = (time.monotonic() - self._sent[sequence]) * 1000
                    self._times.setdefault(sequence, took)

    @property
    def waiting(self) -> bool:
        return len(self._times) < len(self._sent)

    def result(self) -> Latency:
        times = list(self._times.values())
        return Latency(
            ip=self.ip,
            sent=len(self._sent),
            received=len(times),
            min_ms=min(times, default=None),
            avg_ms=sum(times) / len(times) if times else None,
            max_ms=max(times, default=None),
        )


def latency(
    ips: Sequence[Ip], nic: str, lifeline: int | None, *, count: int, every_s: float, wait_s: float
) -> tuple[Latency, ...]:
    """`count` echo requests to each address, all addresses at once.

    Answers are waited for until `wait_s` after the last request. What can't be sent to is left out.
    """
    with contextlib.ExitStack() as stack:
        meters = []
        for ip in ips:
            with contextlib.suppress(OSError):  # no route to it
                meters.append(_Pings(ip, nic))
                stack.callback(meters[-1].socket.close)
        for sequence in range(count):
            for meter in meters:
                meter.send(sequence)
            last = sequence == count - 1
            _read_until(meters, time.monotonic() + (wait_s if last else every_s), lifeline, last)
        return tuple(x.result() for x in meters)


def _read_until(
    meters: Sequence[_Pings], deadline: float, lifeline: int | None, last: bool
) -> None:
    """Read answers until the deadline; after the last request only as long as any is missing."""
    while time.monotonic() < deadline and not (last and not any(x.waiting for x in meters)):
        waiting = [x for x in meters if x.waiting] or list(meters)
        wait_any([x.socket for x in waiting], deadline, lifeline)
        for meter in meters:
            meter.read()
    for meter in meters:  # what came in time is read, however late
        meter.read()
