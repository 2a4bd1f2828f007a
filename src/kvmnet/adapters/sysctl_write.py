"""Changes kernel settings of the running host."""

from __future__ import annotations

from pathlib import Path

from kvmnet.errors import Failed, PermissionDenied

PROC_SYS = Path("/proc/sys")


def write_sysctl(path: str, value: str, root: Path = PROC_SYS) -> None:
    """Write a setting, named by its file below /proc/sys. A NIC that is gone needs no setting.

    One that has the value already is left alone, so that taking back what never happened needs no
    rights. Raises `PermissionDenied`, `Failed`.
    """
    target = root / path
    try:
        if target.read_text().strip() == value:
            return
        target.write_text(value + "\n")
    except FileNotFoundError:
        return
    except PermissionError:
        raise PermissionDenied(
            f"{target} can not be written", why="permission denied", hint="run it again as root"
        ) from None
    except OSError as error:
        raise Failed(f"{target} could not be set to {value}", why=error.strerror or "") from None
