"""Who serves which link once ifupdown's files have changed: computed from the edited files."""

from __future__ import annotations

from typing import Literal

from msgspec import structs

from kvmnet.formats import interfaces_calls as calls
from kvmnet.formats.interfaces_calls import Change
from kvmnet.formats.interfaces_work import Work
from kvmnet.model.handover import DhclientMoved, DhcpClient, IfupdownDns

_DHCPCD = {"hostname": "-h", "vendor": "-i", "client": "-I", "leasetime": "-l", "metric": "-m"}


def created(
    work: Work, renames: dict[str, str], silent: tuple[str, ...], kept: tuple[str, ...]
) -> Change:
    """A bridge was made; `renames` are the NIC's names and the bridge's in their place."""
    view, takeover = work.view, work.takeover
    up = tuple(new for old, new in renames.items() if ":" not in old or old in view.up)
    down = tuple(x for x in (*renames, *silent) if x in view.up and x not in kept)
    clients = as_ifup_starts_them(work)
    moves = tuple(x for old, new in renames.items() for x in calls.moves(clients, old, new))
    moves += calls.ends(clients, silent)
    if takeover.address == "dhcp":
        moves = _with_dhcp(work, takeover.heir_of, takeover.bridge, moves)
    stop, start = _dns(work, renames)
    return Change(
        up=up or (takeover.bridge,), down=down, moves=moves, dns_stop=stop, dns_start=start
    )


def deleted(work: Work, renames: dict[str, str]) -> Change:
    """A bridge is gone; `renames` are its names and the NIC's in their place."""
    view, bridge, heir = work.view, work.takeover.bridge, work.takeover.heir_of
    clients = as_ifup_starts_them(work)
    moves = tuple(x for old, new in renames.items() for x in calls.moves(clients, old, new))
    up = tuple(new for old, new in renames.items() if old in view.up or old == bridge)
    if not renames:
        moves = calls.ends(clients, (bridge,))
        if heir is not None and work.of(heir):
            up = (heir,)
            if any(x.words[1:3] == ("inet", "dhcp") for x in work.of(heir)):
                moves = _with_dhcp(work, bridge, heir, moves)
    down = tuple(x for x in (renames or (bridge,)) if x in view.up)
    stop, start = _dns(work, renames)
    return Change(up=up, down=down, moves=moves, dns_stop=stop, dns_start=start)


def as_ifup_starts_them(work: Work) -> tuple[DhcpClient, ...]:
    """The running DHCP clients with their arguments: dhcpcd hides its own, ifup has them from the
    stanza (interfaces(5), dhcp)."""
    found: list[DhcpClient] = []
    for client in work.view.clients:
        if client.program == "dhcpcd":
            options = [
                word
                for block in work.of(client.link)
                if block.words[1:3] == ("inet", "dhcp")
                for _, line in work.options(block)
                if line.option in _DHCPCD
                for word in (_DHCPCD[line.option], line.value)
            ]
            client = structs.replace(client, argv=("dhcpcd", *options, client.link))
        found.append(client)
    return tuple(found)


def _with_dhcp(
    work: Work, old: str | None, new: str, moves: tuple[DhclientMoved, ...]
) -> tuple[DhclientMoved, ...]:
    """The new link is served: by the old one's client if it has one."""
    ended = [x for x in moves if x.ends is not None and x.ends.link == old and x.ends.family == 4]
    if old is not None and ended:
        return tuple(
            DhclientMoved(ends=x.ends, starts=calls.renamed(x.ends, new))
            if x in ended and x.ends is not None
            else x
            for x in moves
        )
    return (*moves, DhclientMoved(ends=None, starts=calls.fresh(new)))


def _dns(
    work: Work, renames: dict[str, str]
) -> tuple[tuple[IfupdownDns, ...], tuple[IfupdownDns, ...]]:
    """ifupdown's hooks for the stanzas that name DNS servers: to forget, and to tell."""
    stop: list[IfupdownDns] = []
    start: list[IfupdownDns] = []
    for old, new in renames.items() if work.view.tells_dns else ():
        for block in work.of(old):
            options = tuple(
                (x.option, x.value) for _, x in work.options(block) if x.option.startswith("dns-")
            )
            family: Literal["inet", "inet6"] = "inet6" if block.family == "inet6" else "inet"
            for mode, link, found in (("stop", old, stop), ("start", new, start)):
                if options:
                    found.append(
                        IfupdownDns(
                            link=link, family=family, method=block.method, options=options,
                            mode="stop" if mode == "stop" else "start",
                        )
                    )  # fmt: skip
    return tuple(stop), tuple(start)
