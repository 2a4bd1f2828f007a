"""The program nmcli(1), for where NetworkManager can not be spoken to over D-Bus by ourselves.

It waits until all is done, and tells why something was not.
"""

from __future__ import annotations

from kvmnet.adapters.networkmanager_bus import Active
from kvmnet.adapters.run import run
from kvmnet.errors import KvmnetError
from kvmnet.formats import networkmanager

_FAILED = (0, 4, 6, 10)
"""Its exit statuses for what is not, or no more, as it was asked (nmcli(1))."""
_LOAD_S = 20.0


def is_running() -> bool:
    """Whether NetworkManager is there to answer."""
    try:
        said = run(["nmcli", "-t", "-f", "RUNNING", "general"], accept=range(256)).stdout
    except KvmnetError:
        return False
    return said.strip() == "running"


def active() -> tuple[Active, ...]:
    """The profiles in force. Raises `KvmnetError`."""
    rows = _rows("-f", "UUID,NAME,DEVICE,STATE", "connection", "show", "--active")
    return tuple(
        Active(
            path="", uuid=x[0], name=x[1], links=(x[2],), state=x[3], external=False,
            is_port=_is_port(x[0]),
        )
        for x in rows
        if len(x) == 4
    )  # fmt: skip


def _is_port(uuid: str) -> bool:
    words = ["-g", "GENERAL.MASTER-PATH", "connection", "show", "uuid", uuid]
    return run(["nmcli", *words], accept=_FAILED).stdout.strip() not in ("", "--", "/")


def uuids() -> dict[str, str]:
    """The UUID of each profile that is in a file, by the file's path. Raises `KvmnetError`."""
    rows = _rows("-f", "FILENAME,UUID", "connection", "show")
    return {x[0]: x[1] for x in rows if len(x) == 2}


def _rows(*words: str) -> list[list[str]]:
    lines = run(["nmcli", "-t", *words]).stdout.splitlines()
    return [networkmanager.fields(x) for x in lines if x]


def load(paths: tuple[str, ...]) -> None:
    """Have these files read anew. Raises `KvmnetError`."""
    run(["nmcli", "connection", "load", *paths], timeout=_LOAD_S)


def up(uuid: str, link: str | None, within_s: int) -> None:
    """Put a profile in force. Raises `CommandFailed` with NetworkManager's reason, `TimedOut`."""
    _connection(within_s, "up", "uuid", uuid, *(["ifname", link] if link else []))


def down(uuid: str, within_s: int) -> None:
    """Take it out of force. Raises `CommandFailed`, `TimedOut`."""
    _connection(within_s, "down", "uuid", uuid)


def _connection(within_s: int, *words: str) -> None:
    run(["nmcli", "--wait", str(within_s), "connection", *words], timeout=within_s + 10.0)


def reapply(link: str) -> None:
    """Have a changed profile count on its link at once; its addresses stay."""
    run(["nmcli", "device", "reapply", link], timeout=_LOAD_S, accept=_FAILED)
