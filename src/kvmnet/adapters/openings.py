"""Makes and closes openings in the host's firewall."""

from __future__ import annotations

from kvmnet.adapters.run import run
from kvmnet.errors import CommandFailed
from kvmnet.formats.opening import iptables_program, iptables_rule, nft_rule
from kvmnet.model.opening import Opening

_LOCK_WAIT = ("-w", "5")  # iptables' own lock, in seconds


def make(opening: Opening) -> None:
    """Insert the rule before all others of its chain, unless it is there already."""
    if opening.backend != "nft":
        program = iptables_program(opening)
        rule = iptables_rule(opening)
        there = run([program, *_LOCK_WAIT, "-t", opening.table, "-C", opening.chain, *rule],
                    accept=(0, 1, 2))  # fmt: skip
        if there.status != 0:
            run([program, *_LOCK_WAIT, "-t", opening.table, "-I", opening.chain, "1", *rule])
        return
    if not _nft_handles(opening):
        run(["nft", "insert", "rule", opening.family, opening.table, opening.chain,
             *nft_rule(opening)])  # fmt: skip


def close(opening: Opening) -> None:
    """Remove the rule; it is no error if it, or its chain, is gone."""
    if opening.backend != "nft":
        program = iptables_program(opening)
        run([program, *_LOCK_WAIT, "-t", opening.table, "-D", opening.chain,
             *iptables_rule(opening)], accept=(0, 1, 2))  # fmt: skip
        return
    for handle in _nft_handles(opening):
        run(["nft", "delete", "rule", opening.family, opening.table, opening.chain,
             "handle", str(handle)])  # fmt: skip


def is_made(opening: Opening) -> bool:
    """Whether the rule is in its chain now."""
    if opening.backend == "nft":
        return bool(_nft_handles(opening))
    done = run([iptables_program(opening), *_LOCK_WAIT, "-t", opening.table, "-C", opening.chain,
                *iptables_rule(opening)], accept=(0, 1, 2))  # fmt: skip
    return done.status == 0


def _nft_handles(opening: Opening) -> list[int]:
    """Handles of the rules that equal the opening: same comment, same text."""
    try:
        listing = run(["nft", "-a", "list", "chain", opening.family, opening.table, opening.chain])
    except CommandFailed as error:
        if "No such file" in error.stderr:
            return []
        raise
    wanted = " ".join(nft_rule(opening))
    found = []
    for line in listing.stdout.splitlines():
        text, _, handle = line.strip().partition(" # handle ")
        if handle.isdigit() and text == wanted:
            found.append(int(handle))
    return found
