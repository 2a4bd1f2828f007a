"""What systemd is asked over D-Bus (org.freedesktop.systemd1(5)), as calls.

The properties are those that systemd-run(1) sends (systemd's src/run/run.c,
src/core/dbus-timer.c, dbus-execute.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvmnet.formats.dbus import Call, Variant

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_USEC = 1_000_000


def _manager(member: str, signature: str, *arguments: object) -> Call:
    return Call(
        destination=_NAME, path=_PATH, interface=f"{_NAME}.Manager", member=member,
        signature=signature, arguments=arguments,
    )  # fmt: skip


def start_timer(
    unit: str, description: str, every_s: int, argv: Sequence[str], env: Mapping[str, str]
) -> Call:
    """A timer that runs a program from now on, that long after it last ended; both are transient.

    `unit` is the name of both, without `.timer` and `.service`.
    """
    times = (("OnActiveSec", every_s * _USEC), ("OnUnitInactiveSec", every_s * _USEC))
    timer = (
        ("Description", Variant("s", description)),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("TimersMonotonic", Variant("a(st)", times)),
        ("AccuracyUSec", Variant("t", _USEC // 2)),
        ("RemainAfterElapse", Variant("b", False)),
    )
    service = (
        ("Description", Variant("s", description)),
        ("CollectMode", Variant("s", "inactive-or-failed")),
        ("Type", Variant("s", "oneshot")),
        ("DefaultDependencies", Variant("b", False)),
        ("Environment", Variant("as", [f"{name}={value}" for name, value in env.items()])),
        ("ExecStart", Variant("a(sasb)", ((argv[0], list(argv), False),))),
    )
    others = ((f"{unit}.service", service),)
    return _manager(
        "StartTransientUnit", "ssa(sv)a(sa(sv))", f"{unit}.timer", "fail", timer, others
    )


def stop(unit: str) -> Call:
    """Stop a unit, whatever else was to become of it."""
    return _manager("StopUnit", "ss", unit, "replace")
