"""Check of guests of ordinary users, which QEMU's bridge helper plugs into bridges."""

from __future__ import annotations

from collections.abc import Iterator

from kvmnet.core import plugged
from kvmnet.core.finding import Finding, command, some
from kvmnet.model.setup import BridgeHelper
from kvmnet.model.state import State


def bridge_helper_acl(state: State) -> Iterator[Finding]:
    """Guests of a session connection are to be on a bridge that the helper does not let them use.

    Facts: qemu's `qemu-bridge-helper.c`: without a rule it denies, and a deny beats an allow.
    """
    helper = state.bridge_helper
    if helper is None:
        return
    for bridge, guests in _session_bridges(state).items():
        why = _refuses(helper, bridge)
        if why is None:
            continue
        evidence, fix = why
        yield Finding(
            name="bridge-helper-acl", severity="problem", subject=f"bridge {bridge}",
            what=f"QEMU's bridge helper does not let ordinary users' guests into {bridge}",
            breaks=f"guests {some(guests)} can not start",
            evidence=(*evidence, f"used by (session): {some(guests)}"),
            fix=fix,
        )  # fmt: skip


def _session_bridges(state: State) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for guest, nic in plugged.nics(state):
        if guest.connection.partition("?")[0].endswith("/session") and nic.type == "bridge":
            found.setdefault(nic.source or "", []).append(guest.name)
    return found


def _refuses(helper: BridgeHelper, bridge: str) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The evidence that it refuses, and the commands that help; None: it lets them in."""
    allow = f"printf '%s\\n' {command(f'allow {bridge}')} | {command('tee', '-a', helper.acl)}"
    folder = command("mkdir", "-p", helper.acl.rpartition("/")[0])
    if helper.path is None:
        return ("qemu-bridge-helper is not installed",), ()
    if not helper.privileged:
        mode = f"{helper.path} is neither setuid root nor has a file capability"
        return (mode,), (command("chmod", "u+s", helper.path),)
    if helper.rules is None:
        return (f"{helper.acl} does not exist",), (folder, allow)
    denied = [x for x in helper.rules if not x.allowed and x.bridge in {bridge, "all"}]
    if denied:
        return tuple(f"{x.path}: deny {x.bridge}" for x in denied), ()
    if helper.unreadable or any(x.allowed and x.bridge in {bridge, "all"} for x in helper.rules):
        return None  # what this user can't read, the helper may read as root
    return (f"{helper.acl}: no `allow {bridge}`",), (allow,)
