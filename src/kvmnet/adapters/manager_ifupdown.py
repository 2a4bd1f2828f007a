"""Reads all that ifupdown knows about a NIC that is to become a bridge's port."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvmnet.adapters import cloud_init, files
from kvmnet.adapters.ifupdown_calls import DNS_HOOKS, is_dhcpcd_of, name_of, processes
from kvmnet.formats import interfaces
from kvmnet.formats.interfaces_lines import Include, split
from kvmnet.formats.interfaces_view import IfupdownView
from kvmnet.model.handover import DhcpClient, FileState

MAIN = "/etc/network/interfaces"
_OTHER_CLIENTS = ("udhcpc", "pump")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def observe(root: Path, heir: str | None, ports: tuple[str, ...], bridge: str) -> IfupdownView:
    """The files below `root`, and the DHCP clients of these links in this network namespace.

    Raises `NotFound` without /etc/network/interfaces, `PermissionDenied`, `Unavailable`.
    """
    links = tuple(dict.fromkeys((*(() if heir is None else (heir,)), *ports, bridge)))
    states: dict[str, FileState] = {}
    includes: list[Include] = []
    _follow(root, MAIN, states, includes)
    state = interfaces.parse_ifstate(files.read_optional(root / "run/network/ifstate") or "")
    served = {link for link in links if link in (heir, bridge)}
    found = [argv for _, argv in processes("dhclient", "dhcpcd", *_OTHER_CLIENTS)]
    return IfupdownView(
        program="ifupdown2" if (root / "usr/share/ifupdown2").is_dir() else "ifupdown",
        files=tuple(states.values()),
        includes=tuple(includes),
        has_bridge_utils=(root / "etc/network/if-pre-up.d/bridge").exists(),
        up=tuple(state),
        clients=(*_clients(links, found), *_dhcpcd(links, found)),
        other_clients=tuple(
            x for x in _OTHER_CLIENTS if any(name_of(y) == x and served & set(y) for y in found)
        ),
        tells_dns=any((root / "etc/network/if-up.d" / x).exists() for x in DNS_HOOKS),
        cloud_init=cloud_init.read(root),
    )


def _follow(root: Path, path: str, found: dict[str, FileState], includes: list[Include]) -> None:
    """The file and all that it names, as ifupdown does (interfaces(5), INCLUDING OTHER FILES)."""
    place = root / path.lstrip("/")
    text = files.read_text(place)
    state = place.stat()
    found[path] = FileState(
        path=path, text=text, mode=state.st_mode & 0o7777, uid=state.st_uid, gid=state.st_gid
    )
    for line in split(text):
        if line.keyword not in {"source", "source-directory"}:
            continue
        for other in _named(root, path, line.keyword, line.words[1:]):
            includes.append(Include(path=path, line=" ".join(line.words), target=other))
            if other not in found:
                _follow(root, other, found, includes)


def _named(root: Path, path: str, keyword: str, words: tuple[str, ...]) -> Iterator[str]:
    """The files that the words stand for, in their order."""
    for word in words:
        whole = word if word.startswith("/") else str(Path(path).parent / word)
        whole += "/*" if keyword == "source-directory" else ""
        for match in sorted(root.glob(whole.lstrip("/"))):
            # wordexp(3)'s * passes over hidden files, Python's does not.
            hidden = match.name.startswith(".") and not Path(whole).name.startswith(".")
            plain = keyword == "source" or _PLAIN.fullmatch(match.name)
            if match.is_file() and plain and not hidden:
                yield f"/{match.relative_to(root)}"


def _clients(links: tuple[str, ...], found: Sequence[tuple[str, ...]]) -> Iterator[DhcpClient]:
    for argv in found:
        if name_of(argv) == "dhclient" and argv[-1] in links:
            family = 6 if "-6" in argv else 4
            suffix = "6" if family == 6 else ""
            yield DhcpClient(
                link=argv[-1],
                family=6 if family == 6 else 4,
                argv=argv,
                pid_file=_option(argv, "-pf") or f"/run/dhclient{suffix}.pid",
                lease_file=_option(argv, "-lf") or f"/var/lib/dhcp/dhclient{suffix}.leases",
            )


def _dhcpcd(links: tuple[str, ...], found: Sequence[tuple[str, ...]]) -> Iterator[DhcpClient]:
    for link in links:
        if any(name_of(x) == "dhcpcd" and is_dhcpcd_of(x, link) for x in found):
            yield DhcpClient(
                program="dhcpcd",
                link=link,
                family=4,
                argv=("dhcpcd", link),
                pid_file=f"/run/dhcpcd/{link}.pid",
                lease_file=f"/var/lib/dhcpcd/{link}.lease",
            )


def _option(argv: tuple[str, ...], name: str) -> str | None:
    return next((b for a, b in itertools.pairwise(argv) if a == name), None)
