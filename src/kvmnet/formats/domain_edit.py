"""NICs of a domain XML put on something else; all other bytes of it stay as they are.

Only the text of the chosen `<interface>` elements is exchanged, and of that only what has to be:
the type, the source, and what `domain_edit_rules` says is not valid any longer. The rest of the
file is never written anew, so its comments, order, indentation, quotes, encoding and foreign
namespaces can't change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from kvmnet.errors import InvalidInput, Refused
from kvmnet.formats import domain_edit_markup as markup
from kvmnet.formats import domain_edit_rules as rules
from kvmnet.formats.domain_edit_markup import Element, Splice
from kvmnet.formats.domain_edit_scan import Located, locate
from kvmnet.model.target import (
    BridgeTarget,
    DirectTarget,
    NetworkTarget,
    Target,
    UserTarget,
    is_on,
    place,
    target_of,
)
from kvmnet.model.values import Mac, parse_mac
from kvmnet.model.virt import GuestNic


class DomainText(Struct, frozen=True, kw_only=True):
    """A domain XML that can be edited."""

    located: Located
    texts: tuple[str, ...]
    """Each NIC's element as it is written, in the file's order."""
    elements: tuple[Element, ...]
    """The same with the place of everything in it."""
    nics: tuple[GuestNic, ...]
    """The same NICs understood, as far as choosing needs it."""

    @property
    def name(self) -> str:
        """The guest's name; empty if the file gives none."""
        return self.located.name


class NicEdit(Struct, frozen=True, kw_only=True):
    """What is to become of one NIC."""

    number: int
    """Counted from 1 in the file's order."""
    target: Target
    """A user's network with its backend."""
    mac: Mac | None = None
    """None: it keeps its address."""


class Removed(Struct, frozen=True, kw_only=True):
    """Something that is not valid on the new kind of network and is gone."""

    what: str
    why: str


class NicChange(Struct, frozen=True, kw_only=True):
    """What became of one NIC."""

    number: int
    mac: Mac | None
    """The address before; None: the file gives none."""
    new_mac: Mac | None = None
    """The address now, if it is another."""
    before: str
    """What it was on, for example `network:default` or `mcast 230.0.0.1:5558`."""
    after: str
    changed: bool
    """False: it was there already, and nothing of it was touched."""
    removed: tuple[Removed, ...] = ()
    remarks: tuple[str, ...] = ()


class Span(Struct, frozen=True, kw_only=True):
    """A piece of the old file and what is there now."""

    start: int
    """In bytes of the old file."""
    old: str
    new: str


class Converted(Struct, frozen=True, kw_only=True):
    """The outcome of a conversion."""

    data: bytes
    nics: tuple[NicChange, ...]
    spans: tuple[Span, ...]
    """What was exchanged, in the file's order: nothing else differs."""


def read(data: bytes) -> DomainText:
    """Understand a domain XML. Raises `InvalidInput` or `Refused` (see `locate`)."""
    located = locate(data)
    texts = tuple(_decoded(located, start, end) for start, end in located.nics)
    elements = tuple(map(markup.parse, texts))
    nics = tuple(map(_nic, elements))
    return DomainText(located=located, texts=texts, elements=elements, nics=nics)


def convert(domain: DomainText, edits: Sequence[NicEdit]) -> Converted:
    """Make the edits. Raises `Refused` for a NIC that can't become what is wanted; then none is."""
    for edit in edits:
        _refuse(domain, edit)
    changes: list[NicChange] = []
    spans: list[Span] = []
    for edit in sorted(edits, key=lambda x: x.number):
        start, _ = domain.located.nics[edit.number - 1]
        old = domain.texts[edit.number - 1]
        change, new = _converted(domain, edit)
        changes.append(change)
        if new != old:
            spans.append(Span(start=start, old=old, new=new))
    return Converted(data=_spliced(domain.located, spans), nics=tuple(changes), spans=tuple(spans))


def _spliced(located: Located, spans: Sequence[Span]) -> bytes:
    parts: list[bytes] = []
    behind = 0
    ends = dict(located.nics)
    for span in spans:
        parts += (located.data[behind : span.start], span.new.encode(located.codec))
        behind = ends[span.start]
    return b"".join((*parts, located.data[behind:]))


def _decoded(located: Located, start: int, end: int) -> str:
    raw = located.data[start:end]
    try:
        text = raw.decode(located.codec)
    except UnicodeError as error:
        raise InvalidInput("this is not a domain XML document", why=str(error)) from None
    if text.encode(located.codec) != raw:
        raise InvalidInput(
            f"the encoding {located.codec} of this XML document can not be edited",
            hint="make it UTF-8 first: iconv -t UTF-8",
        )
    return text


def _nic(element: Element) -> GuestNic:
    """The NIC as far as it decides about conversions; see `domain_xml` for all of it."""
    source = element.child("source")
    kind = element.get("type") or "user"  # libvirt's default, though its schema asks for one
    on_network = source is not None and source.get("network") is not None
    mac = _child_value(element, "mac", "address")
    return GuestNic(
        mac=parse_mac(mac) if mac else None,
        type="network" if on_network and kind in {"bridge", "direct"} else kind,
        source=_source(kind, source),
        source_mode=source.get("mode") if source is not None else None,
        backend=_child_value(element, "backend", "type"),
    )


def _child_value(element: Element, child: str, attribute: str) -> str | None:
    found = element.child(child)
    return found.get(attribute) if found is not None else None


def _source(kind: str, source: Element | None) -> str | None:
    if source is None:
        return None
    for attribute in ("network", "bridge", "dev", "name", "path"):
        value = source.get(attribute)
        if value is not None:
            return value
    port = source.get("port")
    return f"{source.get('address') or ''}:{port}" if port is not None else None


def _refuse(domain: DomainText, edit: NicEdit) -> None:
    nic = domain.nics[edit.number - 1]
    if nic.type in rules.CONVERTIBLE:
        return
    why = rules.REFUSED.get(nic.type)
    raise Refused(
        f"NIC {edit.number} ({nic.mac or 'no address'}) can not be put on {edit.target}",
        why=why or f"its type {nic.type[:40]!a} is not known here",
        hint=rules.INSTEAD if why else "",
    )


def _converted(domain: DomainText, edit: NicEdit) -> tuple[NicChange, str]:
    """What became of the NIC, and its text now."""
    text, nic = domain.texts[edit.number - 1], domain.nics[edit.number - 1]
    element = domain.elements[edit.number - 1]
    moves = not is_on(nic, edit.target)
    new_mac = edit.mac if edit.mac != nic.mac else None
    change = NicChange(
        number=edit.number, mac=nic.mac, new_mac=new_mac, before=place(nic), after=place(nic),
        changed=moves or new_mac is not None,
    )  # fmt: skip
    splices: list[Splice | str] = [*_address(text, element, new_mac)] if new_mac else []
    if moves:
        setting = rules.Setting(
            kind=domain.located.kind, nic=nic, target=_complete(edit.target, nic)
        )
        lost = [*_gone(element, setting)]
        gone = [*_source_losses(element, setting), *lost]
        splices += (_taken(text, x) for x in lost)
        splices += _moved(text, element, setting)
        whole = frozenset(x.element.name for x in gone if x.attribute is None)
        change = NicChange(
            number=edit.number, mac=nic.mac, new_mac=new_mac, before=place(nic),
            after=str(setting.target), changed=True,
            removed=tuple(Removed(what=x.what, why=x.why) for x in gone),
            remarks=tuple(rules.remarks(element, setting, whole)),
        )  # fmt: skip
    added = [x for x in splices if isinstance(x, str)]
    ready = [x for x in splices if isinstance(x, Splice)]
    if added:
        ready.append(_inserted(text, element, added, _line_before(domain, edit.number)))
    return change, markup.apply(text, ready)


def _complete(target: Target, nic: GuestNic) -> Target:
    """The target with the mode or backend that it leaves open."""
    match target:
        case DirectTarget(mode=None):
            here = target_of(nic)
            mode = here.mode if isinstance(here, DirectTarget) else None
            return DirectTarget(nic=target.nic, mode=mode or "bridge")
        case UserTarget(backend=None):
            return UserTarget(backend="passt")
        case _:
            return target


def _source_attributes(target: Target) -> dict[str, str]:
    match target:
        case NetworkTarget():
            return {"network": target.name}
        case BridgeTarget():
            return {"bridge": target.name}
        case DirectTarget():
            return {"dev": target.nic, "mode": target.mode or "bridge"}
        case UserTarget():
            return {}


def _source_losses(element: Element, setting: rules.Setting) -> Iterator[rules.Goes]:
    """What goes of the `<source>`: it is written anew, see `_moved`."""
    source = element.child("source")
    if source is not None and not _keeps_source(setting):
        wanted = frozenset(_source_attributes(setting.target))
        yield from rules.source_losses(source, setting, wanted)


def _keeps_source(setting: rules.Setting) -> bool:
    """passt may be told there which NIC's addresses the guest gets."""
    target = setting.target
    return setting.nic.type == "user" and target == UserTarget(backend="passt")


def _gone(element: Element, setting: rules.Setting) -> Iterator[rules.Goes]:
    for source in [x for x in element.children if x.name == "source"][1:]:
        yield rules.Goes(element=source, what="source", why="libvirt looks at the first one only")
    yield from rules.losses(element, setting)


def _taken(text: str, gone: rules.Goes) -> Splice:
    if gone.attribute is not None:
        return Splice(gone.attribute.start, gone.attribute.end, "")
    return markup.removal(text, gone.element)


def _moved(text: str, element: Element, setting: rules.Setting) -> Iterator[Splice | str]:
    """The type and source of the new kind of network; for passt its backend.

    A text without a place is a new child.
    """
    quote = markup.quote_in(text, element)
    kind = _type_of(setting.target)
    yield from markup.set_attribute(text, element, "type", kind, quote)
    source, backend = element.child("source"), element.child("backend")
    if not isinstance(setting.target, UserTarget):
        values = _source_attributes(setting.target)
        if source is None:
            yield markup.written("source", values, quote)
        else:
            yield from _rewritten(text, source, values)
        return
    needed = setting.target.backend == "passt"
    if needed and backend is not None:
        yield from markup.set_attribute(text, backend, "type", "passt", quote)
        needed = False
    passt = markup.written("backend", {"type": "passt"}, quote)
    if source is None:
        if needed:
            yield passt
    elif not _keeps_source(setting):
        yield Splice(source.start, source.end, passt) if needed else markup.removal(text, source)
    elif needed:
        yield passt


def _type_of(target: Target) -> str:
    match target:
        case NetworkTarget():
            return "network"
        case BridgeTarget():
            return "bridge"
        case DirectTarget():
            return "direct"
        case UserTarget():
            return "user"


def _rewritten(text: str, source: Element, values: dict[str, str]) -> Iterator[Splice]:
    """The `<source>` with these attributes and without libvirt's elements in it."""
    quote = markup.quote_in(text, source)
    yield from markup.set_attributes(text, source, values.items(), quote)
    if source.empty_tag:
        return
    own = [x for x in source.children if ":" not in x.name]
    inside = markup.apply(text, [Splice(x.start, x.end, "") for x in own])
    rest = inside[source.open_end : source.end - (len(text) - len(inside))]
    if own and re.fullmatch(r"\s*</[^<>]*>", rest):
        yield Splice(source.open_end - 1, source.end, "/>")
    else:
        yield from (markup.removal(text, x) for x in own)


def _address(text: str, element: Element, mac: Mac) -> Iterator[Splice | str]:
    """The new MAC address; a text without a place is a new child."""
    found = element.child("mac")
    quote = markup.quote_in(text, element)
    if found is not None:
        yield from markup.set_attribute(text, found, "address", mac, quote)
    else:
        yield markup.written("mac", {"address": mac}, quote)


def _inserted(text: str, element: Element, added: Sequence[str], line: str | None) -> Splice:
    """Put new children behind `<mac>`, else first, on lines of their own if the others have one.

    `line`: the line break and white space before the `<interface>` itself.
    """
    inside = None if line is None else line + ("\t" if "\t" in line else "  ")
    if element.empty_tag:
        inner = "".join((inside or "") + x for x in added)
        name = text[element.start + 1 : element.open_end].split("/")[0].split()[0]
        return Splice(element.open_end - 2, element.open_end, f">{inner}{line or ''}</{name}>")
    anchor = element.child("mac")
    if anchor is not None:
        place, lead = anchor.end, markup.indentation(text, anchor.start)
    elif element.children:
        place, lead = element.open_end, markup.indentation(text, element.children[0].start)
    else:
        place, lead = element.open_end, inside
    return Splice(place, place, "".join((lead or "") + x for x in added))


def _line_before(domain: DomainText, number: int) -> str | None:
    """The line break and white space before a NIC, or None if something else stands there."""
    located = domain.located
    start = located.nics[number - 1][0]
    before = located.data[max(0, start - 400) : start].decode(located.codec, "replace")
    return markup.indentation(before, len(before))
