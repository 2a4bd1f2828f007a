"""An opening in the words of nft(8) and iptables(8)."""

from __future__ import annotations

from kvmnet.errors import InvalidInput
from kvmnet.model.opening import Opening


def _check(opening: Opening) -> None:
    """Raise `InvalidInput` for a link whose name would say more in a rule than that one link.

    Both tools take a last character for `all that begin so`; a quote would end the name for nft.
    """
    for link in (opening.iif, opening.oif):
        if link is not None and (link.endswith(("*", "+")) or set(link) & set('"\\')):
            raise InvalidInput(
                f"no firewall rule can be made for {link!a}", why="its name is special in rules",
                hint="give the network's bridge a plain name, for example virbr7",
            )  # fmt: skip


def nft_rule(opening: Opening) -> tuple[str, ...]:
    """The rule as words of `nft insert rule FAMILY TABLE CHAIN …`.

    Names of links are quoted for nft's own parser, which reads its arguments as one text.
    """
    _check(opening)
    words: list[str] = []
    if opening.iif is not None:
        words += ["iifname", f'"{opening.iif}"']
    if opening.oif is not None:
        words += ["oifname", f'"{opening.oif}"']
    if opening.destination is not None:
        words += ["ip6" if ":" in opening.destination else "ip", "daddr", opening.destination]
    if opening.established:
        words += ["ct", "state", "established,related"]
    if opening.protocol is not None and opening.dport is not None:
        words += [opening.protocol, "dport", str(opening.dport)]
    elif opening.protocol is not None:
        words += ["meta", "l4proto", opening.protocol]
    return (*words, "accept", "comment", f'"{opening.comment}"')


def iptables_rule(opening: Opening) -> tuple[str, ...]:
    """The rule as words of `iptables -I CHAIN …`, the same for `-C` and `-D`."""
    _check(opening)
    words: list[str] = []
    if opening.iif is not None:
        words += ["-i", opening.iif]
    if opening.oif is not None:
        words += ["-o", opening.oif]
    if opening.destination is not None:
        words += ["-d", opening.destination]
    if opening.protocol is not None:
        words += ["-p", opening.protocol]
    if opening.dport is not None:
        words += ["--dport", str(opening.dport)]
    if opening.established:
        words += ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    return (*words, "-m", "comment", "--comment", opening.comment, "-j", "ACCEPT")


def iptables_program(opening: Opening) -> str:
    """The program of iptables' two variants and two families that owns the chain."""
    base = "ip6tables" if opening.family == "ip6" else "iptables"
    return f"{base}-{'legacy' if opening.backend == 'iptables-legacy' else 'nft'}"
