"""What kvmnet has systemd do for it: a timer that watches a transaction, a unit at the next boot.

Facts: systemd-run(1), systemd.unit(5), systemd.special(7) on network-pre.target.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvmnet.adapters import bus, files
from kvmnet.adapters.run import PIPE, Running, TimeoutExpired, run, spawn
from kvmnet.errors import CommandFailed, KvmnetError, TimedOut
from kvmnet.formats import systemd_calls

UNITS = Path("/etc/systemd/system")
RECOVERY = "kvmnet-recover.service"
TICK_S = 10
DESCRIPTION = "kvmnet: watch over a change of the network"
_START_S = 10.0
_INVOCATIONS = Path("/run/systemd/units")

_MANAGERS = (
    "systemd-networkd.service NetworkManager.service networking.service ifupdown-pre.service "
    "wicked.service dhcpcd.service"
)


def is_ours() -> bool:
    """Whether systemd runs, and sees the same network, files and processes as this process.

    What it starts for a kvmnet in a namespace of its own would change the wrong host.
    """
    if not Path("/run/systemd/system").is_dir():
        return False
    try:
        return all(
            os.readlink(f"/proc/1/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
            for kind in ("net", "mnt", "pid")
        )
    except OSError:
        return False


def failed_services() -> tuple[str, ...] | None:
    """The services that have failed; None: systemd does not run here, or does not say."""
    if not is_ours():
        return None
    try:
        shown = run(
            ["systemctl", "list-units", "--type=service", "--state=failed", "--plain",
             "--no-legend", "--no-pager"],
            timeout=3.0,
        )  # fmt: skip
    except KvmnetError:
        return None
    return tuple(line.split()[0] for line in shown.stdout.splitlines() if line.split())


def is_active(unit: str) -> bool:
    """Whether the unit runs, or is just being started or stopped.

    systemd keeps a link for each such unit for its journal (core/unit.c,
    unit_export_invocation_id; since version 240): looking is a hundred times faster than asking.
    """
    if _INVOCATIONS.is_dir():
        return os.path.lexists(_INVOCATIONS / f"invocation:{unit}")
    return run(["systemctl", "is-active", unit], accept=range(256)).status == 0


def _timer(transaction_id: str) -> str:
    return f"kvmnet-guard-{transaction_id}"


def start_timer(transaction_id: str, argv: Sequence[str], env: Mapping[str, str]) -> Running | None:
    """Have PID 1 run a program every few seconds until `stop_timer`.

    The timer is there once `timer_started` says so; None: it is there. Raises `Unavailable`.
    """
    unit = _timer(transaction_id)
    with contextlib.suppress(KvmnetError), bus.connected(bus.SYSTEMD) as wire:
        wire.call(systemd_calls.start_timer(unit, DESCRIPTION, TICK_S, argv, env))
        return None
    return spawn(
        ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--description={DESCRIPTION}",
         f"--on-active={TICK_S}s", f"--on-unit-inactive={TICK_S}s",
         "--timer-property=AccuracySec=500ms", "--service-type=oneshot",
         "--property=DefaultDependencies=no",
         *(f"--setenv={name}={value}" for name, value in env.items()), "--", *argv],
        stderr=PIPE,
    )  # fmt: skip


def timer_started(starting: Running | None) -> None:
    """Return once the timer is there. Raises `KvmnetError` if it can't be."""
    if starting is None:
        return
    try:
        _, said = starting.communicate(timeout=_START_S)
    except TimeoutExpired:
        raise TimedOut("systemd did not start a timer", why=f"{_START_S:g} s") from None
    if starting.returncode:
        raise CommandFailed(("systemd-run",), starting.returncode, said.decode("utf-8", "replace"))


def stop_timer(transaction_id: str) -> None:
    """Take the timer away; it is no error if there is none. Never raises."""
    unit = f"{_timer(transaction_id)}.timer"
    # One that stays finds nothing to do, and tries to end itself.
    with contextlib.suppress(KvmnetError):
        try:
            with bus.connected(bus.SYSTEMD) as wire:
                wire.call(systemd_calls.stop(unit))
        except bus.Refusal:
            return  # there is none
        except KvmnetError:
            run(["systemctl", "--quiet", "stop", unit], accept=(0, 5))


def install_recovery(
    argv: Sequence[str], env: Mapping[str, str], *, needs: Sequence[Path], journal: Path
) -> None:
    """Have a program run at the next boot, before any network manager reads its files.

    It runs only if `journal` is a folder with something in it; `needs` are paths that have to be
    mounted by then. Raises `Failed`.
    """
    unit = UNITS / RECOVERY
    files.put(unit, recovery_unit(argv, env, needs, journal), mode=0o644, owner=(0, 0))
    files.symlink(UNITS / "sysinit.target.wants" / RECOVERY, f"../{RECOVERY}")


def recovery_unit(
    argv: Sequence[str], env: Mapping[str, str], needs: Sequence[Path], journal: Path
) -> str:
    """The unit's text."""
    lines = [
        "# Made by kvmnet while it changes the host's network, and removed when it is done.",
        "[Unit]",
        "Description=Put back the network that kvmnet was changing when the host went down",
        "DefaultDependencies=no",
        "After=local-fs.target systemd-remount-fs.service",
        f"RequiresMountsFor={' '.join(_quoted(str(path)) for path in needs)}",
        "Wants=network-pre.target",
        f"Before=network-pre.target {_MANAGERS}",
        "Conflicts=shutdown.target",
        "Before=shutdown.target",
        f"ConditionDirectoryNotEmpty={str(journal).replace('%', '%%')}",
        "",
        "[Service]",
        "Type=oneshot",
        "TimeoutStartSec=60",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in env.items()),
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in argv)}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """A word in a unit file (systemd.syntax(7)); `%` would begin a specifier."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"' if not text or set(text) & set(" \t'\"\\;") else text


def remove_recovery() -> None:
    """Take the unit away; it is no error if there is none. Raises `Failed`."""
    files.remove(UNITS / "sysinit.target.wants" / RECOVERY)
    files.remove(UNITS / RECOVERY)
