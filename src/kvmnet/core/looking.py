"""Which commands only look: nobody shall take one for a cure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_CHANGING = frozenset({"add", "append", "change", "del", "delete", "flush", "replace", "set"})
"""What `ip`, `bridge` and `tc` are told to do, where it changes something."""
_VERBS = {
    "nft": frozenset({"list", "monitor"}),
    "systemctl": frozenset({"cat", "list-units", "show", "status"}),
    "ufw": frozenset({"show", "status"}),
    "virsh": frozenset({
        "domblklist", "domifaddr", "domiflist", "dominfo", "domstate", "dumpxml", "list",
        "net-dhcp-leases", "net-dumpxml", "net-info", "net-list", "nwfilter-list",
    }),
    "kvmnet": frozenset({"probe", "status", "trace"}),
}  # fmt: skip
"""The words of each program that show something; all of its others may change it."""
_LOOKING = frozenset({
    "cat", "grep", "ip6tables-legacy-save", "ip6tables-save", "iptables-legacy-save",
    "iptables-save", "journalctl", "ss", "tcpdump",
})  # fmt: skip
_SAYING_SO = ("look: ", "look ", "find it: ")
"""How the hints of a probe's steps begin that send people to look."""


def split(lines: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What mends something, and what only tells more; the latter without a word that says so."""
    every = tuple(lines)
    return (tuple(x for x in every if not only_looks(x)),
            tuple(_bare(x) for x in every if only_looks(x)))  # fmt: skip


def _bare(line: str) -> str:
    start = next((x for x in _SAYING_SO if line.startswith(x)), "")
    return line.removeprefix(start)


def only_looks(line: str) -> bool:
    """Whether a line of help changes nothing: a command that shows, or a question."""
    if line.startswith(_SAYING_SO) or line.endswith("?"):
        return True
    return all(_shows(x.strip()) for x in line.split(";"))


def _shows(line: str) -> bool:
    """Of a pipe the first command decides: the others get what it tells."""
    try:
        words, every = shlex.split(line.partition(" | ")[0]), shlex.split(line)
    except ValueError:  # no command but a sentence
        return False
    if not words or any(">" in x or x == "tee" for x in every):
        return False
    program, *rest = words
    said = [x for x in rest if not x.startswith("-")]
    match program:
        case "ip" | "bridge" | "tc":
            return not _CHANGING & set(said[1:2])
        case "ethtool":
            return not any(x[:2] in {"-K", "-C", "-G", "-L", "-s"} for x in rest)
        case "firewall-cmd":
            return all(x.startswith(("--get-", "--list-")) for x in rest)
        case "sysctl":
            return "-w" not in rest and not any("=" in x for x in rest)
        case "virsh" if rest[:1] == ["-c"]:
            return rest[2:3] != [] and rest[2] in _VERBS[program]
        case "kvmnet" if rest[1:2] in (["list"], ["show"]):
            return True
        case _ if program in _VERBS:
            return said[:1] != [] and said[0] in _VERBS[program]
        case _:
            return program in _LOOKING
