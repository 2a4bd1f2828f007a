"""Tells libvirt's daemon to reload, on which its network driver writes its firewall rules again.

Facts: libvirtd(8) and virtnetworkd(8), SIGNALS; libvirt's `networkStateReload`. Guests, networks
and connections of clients go on.
"""

from __future__ import annotations

import os
import re
import signal
import time

from kvmnet.adapters import libvirt_daemon
from kvmnet.adapters.firewall import read_firewall
from kvmnet.adapters.run import run
from kvmnet.errors import TimedOut, Unavailable
from kvmnet.model.plan import ReloadLibvirt

WAIT_S = 10.0
_STEP_S = 0.3
"""Longer than the daemon needs from one rule to the next."""


def reload(step: ReloadLibvirt) -> None:
    """Make the chains it needs, signal it, and wait until it has written rules for the bridge.

    Raises `Unavailable` (it does not run), `TimedOut`, `CommandFailed`.
    """
    found = libvirt_daemon.running()
    if found is None:
        raise Unavailable(
            "libvirt can not be told to reload", why=f"{step.daemon} does not run",
            hint=f"start it: systemctl start {step.daemon}",
        )  # fmt: skip
    _make_chains()
    before = _rules()
    try:
        os.kill(found[1], signal.SIGHUP)
    except ProcessLookupError:
        raise Unavailable(
            "libvirt can not be told to reload", why=f"{found[0]} has just ended",
            hint=f"start it: systemctl start {found[0]}",
        ) from None  # fmt: skip
    named = re.compile(rf"(?<![\w.-]){re.escape(step.bridge)}(?![\w.-])")
    end = time.monotonic() + WAIT_S
    last = before
    while True:
        time.sleep(_STEP_S)
        now = _rules()
        # It takes all rules out and puts them in again, one by one: new handles, and then quiet.
        if now != before and now == last and any(named.search(text) for _, _, text in now):
            return
        last = now
        if time.monotonic() > end:
            raise TimedOut(
                f"{found[0]} did not write its firewall rules again",
                why=f"{WAIT_S:g} seconds after SIGHUP nothing has changed",
                hint=f"look into its log: journalctl -u {found[0]}",
            )


def _make_chains() -> None:
    """Its chains and the jumps to them, as it makes them itself, but only when it starts.

    Each is made only if it is missing, and the jumps in its own order: the last stands first.
    """
    for program in ("iptables", "ip6tables"):
        for table, hook, chain in _CHAINS:
            words = [program, "--wait", "--table", table]
            run([*words, "--new-chain", chain], accept=(0, 1))
            if run([*words, "--check", hook, "--jump", chain], accept=(0, 1)).status != 0:
                run([*words, "--insert", hook, "--jump", chain])


_CHAINS = (
    ("filter", "INPUT", "LIBVIRT_INP"),
    ("filter", "OUTPUT", "LIBVIRT_OUT"),
    ("filter", "FORWARD", "LIBVIRT_FWO"),
    ("filter", "FORWARD", "LIBVIRT_FWI"),
    ("filter", "FORWARD", "LIBVIRT_FWX"),
    ("nat", "POSTROUTING", "LIBVIRT_PRT"),
    ("mangle", "POSTROUTING", "LIBVIRT_PRT"),
)
"""Table, built-in chain and chain (libvirt's `networkSetupPrivateChains` for iptables)."""


def _rules() -> tuple[tuple[str, int | None, str], ...]:
    """libvirt's own rules and what leads to them: chain, handle, text."""
    firewall, _ = read_firewall()
    return tuple(
        (chain.name, rule.handle, rule.text)
        for chain in firewall.chains
        for rule in chain.rules
        if chain.name.startswith("LIBVIRT_")
        or chain.table == "libvirt_network"
        or (rule.target or "").startswith("LIBVIRT_")
    )
