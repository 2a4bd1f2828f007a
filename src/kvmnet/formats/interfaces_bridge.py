"""ifupdown: a bridge in a NIC's place in interfaces(5), and back.

The NIC's stanzas become the bridge's, line by line; what can't become the bridge's (a second port's
address, `allow-hotplug`, offloads) is put aside as a comment, and `delete` brings it back. Bridges
are made by bridge-utils (bridge-utils-interfaces(5)), or by hooks with ip(8) where that is missing.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from kvmnet.errors import NotFound, Refused
from kvmnet.formats import interfaces_calls as calls
from kvmnet.formats import interfaces_change
from kvmnet.formats import interfaces_marks as marks
from kvmnet.formats.interfaces_calls import Change
from kvmnet.formats.interfaces_hooks import is_nic_option, names
from kvmnet.formats.interfaces_lines import Block, physical, swap_words
from kvmnet.formats.interfaces_options import (
    bridge_hooks,
    bridge_options,
    bridge_options2,
    is_bridge_option,
    port_hooks,
)
from kvmnet.formats.interfaces_select import Selection, hotplugged, replace_selected, select
from kvmnet.formats.interfaces_view import IfupdownView
from kvmnet.formats.interfaces_work import Work
from kvmnet.model.handover import FileState, HandedOver
from kvmnet.model.takeover import Takeover

MADE_BY_IFUP = frozenset({"bond", "vlan"})
"""Ports that are not there before ifup has made them."""

_CLOUD = "/etc/cloud/cloud.cfg.d/99-kvmnet-disable-network-config.cfg"
_CLOUD_TEXT = """\
# kvmnet changed a file of ifupdown that cloud-init writes; so it must not write it again.
network: {config: disabled}
"""
_METHODS = {"inet": {"static", "dhcp", "manual"}, "inet6": {"static", "auto", "dhcp", "manual"}}
_QUIET_NIC = (
    "up ip link set dev $IFACE addrgenmode none || true",
    "up ip -6 address flush dev $IFACE || true",
)
"""Until it is a port it must not take an address by IPv6 autoconfiguration: it would keep it."""


def create(view: IfupdownView, takeover: Takeover) -> HandedOver:
    """Have ifupdown keep the bridge from now on. Raises `Refused` where that is not safe."""
    _check(view, takeover)
    work = Work(view, takeover)
    if work.of(takeover.bridge):
        raise Refused(
            f"{takeover.bridge} is in ifupdown's files already",
            why=f"{work.place(work.of(takeover.bridge)[0])} defines it",
            hint=f"kvmnet bridge delete {takeover.bridge}",
        )
    for port in takeover.ports:
        work.check_names(port.name)
    heir = takeover.heir_of if takeover.address == "keep" else None
    kept = tuple(x.name for x in takeover.ports if x.kind in MADE_BY_IFUP)
    if heir is not None and _become(work, heir) and heir not in kept:
        kept = (heir, *kept)
    silent = tuple(x.name for x in takeover.ports if x.name != heir)
    kept += tuple(x for x in silent if _silence(work, x) and x not in kept)
    renames = _renames(work, heir, takeover.bridge) if heir is not None else {}
    if heir is None:
        _add_bridge(work, kept)
    select(work, Selection(renames=renames, silent=silent, kept=kept))
    files, before = _with_cloud_init(work)
    handed = HandedOver(files=files, files_before=before, notes=(*work.notes, *_notes(work)))
    return calls.with_calls(handed, view, interfaces_change.created(work, renames, silent, kept))


def delete(view: IfupdownView, takeover: Takeover) -> HandedOver:
    """Have ifupdown forget the bridge; its NIC gets back what the bridge has of it."""
    bridge, heir = takeover.bridge, takeover.heir_of
    _check(view, takeover)
    work = Work(view, takeover, lambda text: marks.restore(text, bridge))
    left = work.of(bridge)
    if not left and not work.files()[0]:
        raise NotFound(f"{bridge} is not in ifupdown's files")
    renames: dict[str, str] = {}
    if left and heir is not None:
        renames = _renames(work, bridge, heir)
        _give_back(work, heir, renames)
    for block in left if heir is None else ():
        for index in range(block.head, block.end):
            work.sheets[block.sheet].put(index)
    replace_selected(work, renames or {bridge: ""})
    files, before = work.files()
    handed = HandedOver(files=files, files_before=before, notes=tuple(work.notes))
    return calls.with_calls(handed, view, interfaces_change.deleted(work, renames))


def set_ports(view: IfupdownView, before: Takeover, after: Takeover) -> HandedOver:
    """Have ifupdown keep the bridge with the ports of `after`."""
    _check(view, after)
    old, new = {x.name for x in before.ports}, {x.name for x in after.ports}

    def prepare(text: str) -> str:
        for gone in sorted(old - new):
            text = marks.restore(text, after.bridge, gone)
        return text

    work = Work(view, after, prepare)
    if not work.of(after.bridge):
        raise NotFound(f"{after.bridge} is not in ifupdown's files")
    added = tuple(x for x in after.ports if x.name not in old)
    names = tuple(x.name for x in added)
    for name in names:
        work.check_names(name)
    stay = [x for x in names if _silence(work, x)]
    _put_ports(work, before, after)
    kept = tuple(x.name for x in added if x.name in stay or x.kind in MADE_BY_IFUP)
    select(work, Selection(silent=names, kept=kept))
    files, files_before = work.files()
    back = [f"{x}'s own stanza is back: ifup {x}" for x in sorted(old - new) if work.of(x)]
    handed = HandedOver(files=files, files_before=files_before, notes=(*work.notes, *back))
    down = tuple(x for x in names if x not in kept and x in view.up)
    change = Change(up=(), down=down, moves=calls.ends(view.clients, names))
    return calls.with_calls(handed, view, change)


def _check(view: IfupdownView, takeover: Takeover) -> None:
    templates = [x.path for x in view.files if re.search(r"(?m)^\s*%|\$\{", x.text or "")]
    if view.program == "ifupdown2" and templates:
        raise Refused(
            f"bridge {takeover.bridge} can not be handed to ifupdown2",
            why=f"{templates[0]} is a template, of which ifupdown2 makes the configuration",
            hint="kvmnet bridge create --no-persist, then change the template by hand",
        )
    if view.other_clients:
        raise Refused(
            f"the DHCP client can not go over to {takeover.bridge}",
            why=f"it is {' and '.join(view.other_clients)}, which takes the address away "
            "when it starts",
            hint="use another: apt install isc-dhcp-client, then ifdown and ifup the NIC",
        )


def _become(work: Work, heir: str) -> bool:
    """The heir's stanzas become the bridge's. Whether something in them stays with the NIC."""
    own = work.of(heir)
    if not own:
        raise Refused(
            f"{heir} can not be handed to ifupdown",
            why=f"no file of ifupdown's has a stanza for {heir}",
            hint="kvmnet bridge create --no-persist",
        )
    for block in own:
        _check_method(work, block)
    if {"dhcp", "static"} <= {x.method for x in own if x.family == "inet6"}:
        work.refuse_block(own[0], "dhclient -6 removes static IPv6 addresses when it starts")
    lines = _bridge_lines(work, has_scripts=not _has_no_scripts(work, heir))
    stays: list[str] = []
    for block in own:
        work.rename(block, heir, work.bridge)
        for index, line in work.options(block):
            if is_nic_option(line.option, line.value):
                work.put_aside(work.sheets[block.sheet], index, heir)
                stays += physical(line.raw)
    for name in work.aliases(heir):
        for block in work.of(name):
            work.rename(block, name, work.bridge + name.removeprefix(heir))
    work.rewire(heir, work.bridge)
    _insert(work, own[0], heir, lines, tuple(stays))
    return bool(stays)


def _bridge_lines(work: Work, *, has_scripts: bool = True) -> tuple[str, ...]:
    late = hotplugged(work, tuple(x.name for x in work.takeover.ports))
    if work.view.program == "ifupdown2":
        return bridge_options2(work.takeover, late=late)
    if work.view.has_bridge_utils and has_scripts:
        return bridge_options(work.takeover, late=late)
    return bridge_hooks(work.takeover, late=late)


def _insert(
    work: Work, first: Block, heir: str, lines: tuple[str, ...], stays: tuple[str, ...]
) -> None:
    """The bridge's own lines, and what is left of the NIC below."""
    sheet, indent = work.sheets[first.sheet], work.indent(first)
    for text in lines:
        raw = f"{indent}{text}\n"
        # Unlike bridge-…, this one could be the NIC's own when it comes to `delete`.
        own = text.startswith("hwaddress ")
        sheet.after(first.head, *(marks.aside("", work.bridge, heir, (raw,)) if own else (raw,)))
    kind = next((x.kind for x in work.takeover.ports if x.name == heir), "")
    quiet = _QUIET_NIC if stays or kind in MADE_BY_IFUP else ()
    nic = ["\n", f"iface {heir} inet manual\n", *stays, *(f"{indent}{x}\n" for x in quiet)]
    sheet.after(first.end - 1, *marks.aside("", work.bridge, heir, tuple(nic)))


def _silence(work: Work, name: str) -> bool:
    """A port has no addresses of its own: its stanzas are put aside, the NIC's options stay.

    Whether there are such options.
    """
    own, stays = work.of(name), False
    for number, block in enumerate(own):
        sheet = work.sheets[block.sheet]
        for index, line in work.options(block):
            if number == 0 and is_nic_option(line.option, line.value):
                stays = True
            else:
                work.put_aside(sheet, index, name)
        if number:
            work.put_aside(sheet, block.head, name)
    if own:
        quiet = (f"{work.indent(own[0])}{x}\n" for x in (_QUIET_NIC if stays else ()))
        head = f"iface {name} inet manual\n"
        work.put_aside(work.sheets[own[0].sheet], own[0].head, name, head, *quiet)
    for alias in work.aliases(name):
        for block in work.of(alias):
            for index in (block.head, *(x for x, _ in work.options(block))):
                work.put_aside(work.sheets[block.sheet], index, name)
    return stays


def _add_bridge(work: Work, kept: tuple[str, ...]) -> None:
    """A bridge that is not anybody's heir, with an address of its own or none."""
    takeover = work.takeover
    address = takeover.address
    family = "inet6" if ":" in address else "inet"
    method = {"dhcp": "dhcp", "none": "manual", "keep": "manual"}.get(address, "static")
    own = [f"address {address}"] if method == "static" else []
    lines = ("\n", f"auto {' '.join((*kept, work.bridge))}\n",
             f"iface {work.bridge} {family} {method}\n",
             *(f"    {x}\n" for x in (*_bridge_lines(work), *own)))  # fmt: skip
    port = takeover.ports[0].name if takeover.ports else ""
    number = next((x.sheet for x in work.of(port)), 0)
    work.sheets[number].append(*marks.aside("", work.bridge, port or work.bridge, lines))


def _give_back(work: Work, heir: str, renames: dict[str, str]) -> None:
    """The bridge's stanzas become the NIC's."""
    for old, new in renames.items():
        for block in work.of(old):
            work.rename(block, old, new)
            for index, line in work.options(block):
                if is_bridge_option(line):
                    work.sheets[block.sheet].put(index)
    work.rewire(work.bridge, heir)


def _put_ports(work: Work, before: Takeover, after: Takeover) -> None:
    """The bridge's own lines name the ports of `after`."""
    gone = {x.name for x in before.ports} - {x.name for x in after.ports}
    added = [x.name for x in after.ports if x.name not in {y.name for y in before.ports}]
    for block in work.of(after.bridge):
        sheet = work.sheets[block.sheet]
        hooks = [x for x in work.options(block) if x[1].value.startswith("ip link show dev $IFACE")]
        for index, line in hooks:
            more = (f"{line.indent}{x}\n" for port in added for x in port_hooks(port))
            sheet.after(index, *more)
        for index, line in work.options(block):
            if line.option == "bridge-ports":
                ports = " ".join(x.name for x in after.ports) or "none"
                sheet.put(index, f"{line.indent}{line.keyword} {ports}\n")
            elif is_bridge_option(line) and any(names(line.value, x) for x in gone):
                rest = swap_words(line.raw, lambda x: "" if x in gone else x)
                sheet.put(index, *((rest,) if line.option == "bridge-waitport" else ()))


def _renames(work: Work, old: str, new: str) -> dict[str, str]:
    return {old: new} | {x: new + x.removeprefix(old) for x in work.aliases(old)}


def _check_method(work: Work, block: Block) -> None:
    if work.view.program == "ifupdown2" and not block.family:
        return  # both families, and as many addresses as it likes
    if block.method not in _METHODS.get(block.family, set()):
        work.refuse_block(block, "a bridge can not be configured so")


def _has_no_scripts(work: Work, name: str) -> bool:
    return any(x.keyword == "no-scripts" and name in x.words for *_, x in work.lists())


def _with_cloud_init(
    work: Work,
) -> tuple[tuple[FileState, ...], tuple[FileState, ...]]:
    """cloud-init writes its file at a boot with a new instance id, unless it is told not to."""
    files, before = work.files()
    made = [x.path for x in files if PurePosixPath(x.path).name.startswith("50-cloud-init")]
    if not made or work.view.cloud_init != "writes":
        return files, before
    work.notes.append(f"cloud-init writes {made[0]}: {_CLOUD} keeps it from undoing the change")
    told = FileState(path=_CLOUD, text=_CLOUD_TEXT)
    return (*files, told), (*before, FileState(path=_CLOUD, text=None))


def _notes(work: Work) -> tuple[str, ...]:
    found = []
    if any(f"#kvmnet {work.bridge} " in x.text() for x in work.sheets):
        found.append(f"lines of ifupdown's files that begin with #kvmnet {work.bridge} are what "
                     f"`kvmnet bridge delete {work.bridge}` puts back")  # fmt: skip
    if work.takeover.ports:
        ports = " ".join(x.name for x in work.takeover.ports)
        found.append(f"ifupdown knows ports by their names: if {ports} is ever renamed, "
                     f"{work.bridge}'s stanza has to follow")  # fmt: skip
    if not work.view.has_bridge_utils and work.view.program == "ifupdown":
        found.append("bridge-utils is not installed: hooks with ip(8) make the bridge")
    return tuple(found)
