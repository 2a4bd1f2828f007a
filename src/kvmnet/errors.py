"""The exception tree: what failed, on what, why, and what to try next.

    KvmnetError
    ├── InvalidInput        the user's value is wrong; nothing was touched
    ├── NotFound            the named network, guest, bridge or NIC does not exist
    ├── Refused             it would do harm; nothing was touched
    ├── Unavailable         a part kvmnet needs is missing, down or silent
    │   ├── NotInstalled        it is not on this machine at all
    │   ├── PermissionDenied    it is there, but not for this user
    │   └── TimedOut            it is there, but did not answer in time
    ├── Failed              it was tried and did not work
    │   ├── CommandFailed       a program ended with an error
    │   ├── NotUndone           undoing failed too: something is left, and it is named
    │   └── PartlyDone          it was done but for what is named, which cuts nobody off
    ├── Undone              it was tried, failed, and everything was put back
    └── Interrupted         the user stopped it; everything was put back

The library raises these; only the command line turns one into an exit status.
"""

from __future__ import annotations


class KvmnetError(Exception):
    """Base of all errors of kvmnet.

    `what` says what failed and on what, `why` the reason as far as it is known,
    `hint` the command or the step that helps. All are for people, one sentence each.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class InvalidInput(KvmnetError):
    """A value given by the user, a file or an XML document is not acceptable."""


class NotFound(KvmnetError):
    """What was named does not exist."""


class Refused(KvmnetError):
    """Doing it would harm somebody; nothing was touched."""


class Unavailable(KvmnetError):
    """A part that is needed is missing, down or silent."""


class NotInstalled(Unavailable):
    """The part is not on this machine at all."""


class PermissionDenied(Unavailable):
    """The part is there, but this user may not use it."""


class TimedOut(Unavailable):
    """The part is there, but it did not answer in time."""


class Failed(KvmnetError):
    """It was tried and did not work."""


class CommandFailed(Failed):
    """A program ended with an error; `argv`, `status` and `stderr` tell which and how."""

    def __init__(
        self, argv: tuple[str, ...], status: int, stderr: str, *, why: str = "", hint: str = ""
    ) -> None:
        reason = why or (stderr.strip().splitlines() or ["it gave no reason"])[-1]
        super().__init__(f"`{' '.join(argv)}` ended with status {status}", why=reason, hint=hint)
        self.argv = argv
        self.status = status
        self.stderr = stderr


class NotUndone(Failed):
    """A change failed and so did its undo: what is left behind is named in `why`."""


class PartlyDone(Failed):
    """A step was taken but for a part that is told and no reason to take all back."""


class Undone(KvmnetError):
    """A change was tried, failed, and everything was put back as it was."""


class Interrupted(KvmnetError):
    """The user stopped it; everything was put back as it was."""
