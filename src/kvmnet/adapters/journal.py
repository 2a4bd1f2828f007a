"""The journal: transactions on disk, written before what they describe is done.

One file each in a directory of the user's own (root: /var/lib/kvmnet/transactions). A file whose
outcome is `open` while nobody holds the lock belongs to a kvmnet that was cut off.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from kvmnet.adapters import files
from kvmnet.errors import Failed, Refused
from kvmnet.model.transaction import Outcome, Transaction

KEPT_IN_HISTORY = 100
_CONFIRMED = ".confirmed"
_LASTING = frozenset({"open", "stuck"})
"""What somebody still has to deal with."""

T = TypeVar("T")


class _Ending(Struct, frozen=True):
    """How a transaction ended. Its plan, which may be megabytes, is passed over."""

    outcome: Outcome


def state_directory() -> Path:
    """Where this user's kvmnet keeps its journal (KVMNET_STATE_DIR says otherwise)."""
    named = os.environ.get("KVMNET_STATE_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/kvmnet")
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "kvmnet"


def _directory() -> Path:
    return state_directory() / "transactions"


def path_of(transaction_id: str) -> Path:
    """The file that a transaction is kept in."""
    return _directory() / f"{transaction_id}.json"


def write(transaction: Transaction) -> None:
    """Put the transaction on disk, for good before this returns. Raises `Failed` (disk full …)."""
    directory = _directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{directory} can not be made", why=error.strerror or "") from None
    text = msgspec.json.encode(transaction).decode()
    files.write_atomic(path_of(transaction.id), text, mode=0o600)


def begin(transaction: Transaction) -> None:
    """Write a new transaction. Raises `Refused` if it can't be kept: then nothing may be done."""
    try:
        write(transaction)
    except Failed as error:
        raise Refused(
            "nothing was changed",
            why=f"the journal, without which no change could be undone: {error}",
            hint=f"make room below {state_directory()}",
        ) from None


def transactions() -> tuple[Transaction, ...]:
    """All that are on disk, oldest first. A file that can't be understood raises `Failed`."""
    return tuple(_read(path, Transaction) for path in _paths())


def _paths() -> list[Path]:
    return sorted(_directory().glob("*.json"))


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(files.read_bytes(path), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed(
            f"the journal {path} can not be understood", why=str(error),
            hint="it may be from a newer kvmnet; move it away to go on without it",
        ) from None  # fmt: skip


def read(transaction_id: str) -> Transaction:
    """One transaction as it is on disk now. Raises `NotFound`, `Failed`."""
    return _read(path_of(transaction_id), Transaction)


def unfinished() -> tuple[Transaction, ...]:
    """Those that were cut off, or that could not be undone."""
    lasting = (x for x in _paths() if _read(x, _Ending).outcome in _LASTING)
    return tuple(_read(x, Transaction) for x in lasting)


def forget_old() -> None:
    """Keep the history short: the oldest finished transactions go, and what a killed write left.

    Only for the holder of the lock.
    """
    paths = _paths()
    if len(paths) > KEPT_IN_HISTORY:
        done = [x for x in paths if _read(x, _Ending).outcome not in _LASTING]
        for path in done[: max(0, len(done) - KEPT_IN_HISTORY)]:
            files.remove(path)
    for half_written in _directory().glob(".*.json.*"):
        files.remove(half_written)
    for marker in _directory().glob(f"*{_CONFIRMED}"):
        files.remove(marker)


def forget(transaction: Transaction) -> None:
    """Remove a transaction from the disk."""
    files.remove(path_of(transaction.id))


def confirm(transaction_id: str) -> None:
    """Leave the word that a person wants this transaction kept. Raises `Failed`."""
    files.write_atomic(_marker(transaction_id), "", mode=0o600)


def is_confirmed(transaction_id: str) -> bool:
    """Whether a person has said so."""
    return _marker(transaction_id).exists()


def forget_confirmation(transaction_id: str) -> None:
    """Remove the word again, whether it was left or not."""
    files.remove(_marker(transaction_id))


def _marker(transaction_id: str) -> Path:
    return _directory() / f"{transaction_id}{_CONFIRMED}"
