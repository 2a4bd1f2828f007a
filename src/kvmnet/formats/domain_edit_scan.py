"""Where in the bytes of a domain XML its NICs stand.

An edit that is to leave all else as it is, byte for byte, needs places and not a tree. expat tells
the place of each tag in the very bytes it was given, whatever their encoding. It is asked for no
more than that: no entities (a document type is refused), nothing is fetched.
"""

from __future__ import annotations

import codecs
import re
from typing import NoReturn
from xml.parsers import expat

from msgspec import Struct

from kvmnet.errors import InvalidInput, Refused

MAX_BYTES = 10 * 1024 * 1024
"""virsh itself reads no larger definition (`VSH_MAX_XML_FILE`)."""

MAX_DEPTH = 256
"""Elements inside each other: what libxml2 and so libvirt takes (`xmlParserMaxDepth`)."""

_ENCODING = re.compile(r"utf-8|utf-16(le|be)?|us-ascii|iso-8859-\d{1,2}|windows-125\d|koi8-[ru]")
"""Names of encodings, in small letters, in which `<` and a space are single characters always."""

_OTHERS = {
    "domstatus": "it is libvirtd's note about a running guest, which only libvirtd may change",
    "domainsnapshot": "a snapshot says what the guest was, and going back to it needs it unchanged",
    "domaincheckpoint": "a checkpoint belongs to libvirtd, which only libvirtd may change",
    "domainbackup": "it is the order for a backup, no guest's definition",
}

_INSTEAD = {
    "domstatus": "kvmnet guest list; then kvmnet guest move GUEST --to TARGET",
    "domainsnapshot": "virsh snapshot-edit GUEST SNAPSHOT",
}


class Located(Struct, frozen=True, kw_only=True):
    """A domain XML, and where its NICs stand."""

    data: bytes
    name: str
    """The guest's."""
    kind: str
    """The hypervisor: `kvm`, `qemu`, `lxc`, `xen`, …"""
    codec: str
    """Python's name of the encoding of the bytes between the tags."""
    nics: tuple[tuple[int, int], ...]
    """First byte, and first byte behind it, of each `/domain/devices/interface`."""


def locate(data: bytes) -> Located:
    """Find the NICs. Raises `InvalidInput` if it is no domain XML, `Refused` for libvirtd's own."""
    if len(data) > MAX_BYTES:
        raise InvalidInput(
            "this is too big for a guest's definition",
            why=f"it has more than {MAX_BYTES // 1024 // 1024} MiB, the most that virsh takes",
        )
    scanner = _Scanner(data)
    try:
        scanner.run()
    except expat.ExpatError as error:
        raise InvalidInput("this is not a domain XML document", why=str(error)) from None
    except (LookupError, ValueError) as error:  # an encoding that Python does not have
        raise InvalidInput("this XML document's encoding is not known", why=str(error)) from None
    return Located(
        data=data, name="".join(scanner.name).strip(), kind=scanner.kind, codec=scanner.codec,
        nics=tuple(scanner.nics),
    )  # fmt: skip


class _Scanner:
    """One run of expat. Handlers are few and short: they are called for every tag of the file."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.name: list[str] = []
        self.kind = ""
        self.codec = _codec_of(data)
        self.nics: list[tuple[int, int]] = []
        self._depth = 0
        self._in_devices = False
        self._begin = -1
        self._parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def run(self) -> None:
        self._parser.Parse(self.data, True)

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is None:
            return
        if not _ENCODING.fullmatch(encoding.lower()):
            raise InvalidInput(
                f"this XML document has the encoding {encoding[:40]!a}, which is not read here",
                hint="make it UTF-8 first: iconv -t UTF-8, and the same in its first line",
            )
        if not self.codec.startswith("utf-16"):
            self.codec = encoding.lower()

    def _doctype(self, *_: object) -> NoReturn:
        raise InvalidInput(
            "this domain XML document is not accepted",
            why="it has a document type (DOCTYPE), which libvirt never writes",
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 3:
            if self._in_devices and tag == "interface":
                self._begin = self._parser.CurrentByteIndex
        elif self._depth == 2:
            self._in_devices = tag == "devices"
            if tag == "name" and not self.name:
                self._parser.CharacterDataHandler = self.name.append
        elif self._depth == 1:
            _must_be_domain(tag)
            self.kind = attributes.get("type", "")
        elif self._depth > MAX_DEPTH:
            raise InvalidInput(
                "this is not a domain XML document",
                why=f"more than {MAX_DEPTH} elements are inside each other",
            )

    def _end(self, tag: str) -> None:
        if self._depth == 3 and self._begin >= 0:
            self.nics.append((self._begin, self._behind(self._parser.CurrentByteIndex)))
            self._begin = -1
        elif self._depth == 2:
            self._parser.CharacterDataHandler = None
        self._depth -= 1

    def _behind(self, place: int) -> int:
        """Where the element ends whose end expat reported there.

        It is the first byte of the closing tag, or, of an element like `<interface/>`, the first
        one behind it. A closing tag of that name is its own: it lies in `<devices>`.
        """
        closing, bracket = ("</interface".encode(self.codec), ">".encode(self.codec))
        if not self.data.startswith(closing, place):
            return place
        # Between the name and the bracket only white space may stand; in UTF-16 the step is two
        # bytes, but neither half of a space or line break is a bracket.
        return self.data.index(bracket, place) + len(bracket)


def _codec_of(data: bytes) -> str:
    """The encoding as the first bytes tell it (XML 1.0, appendix F); a declaration may say more."""
    if data.startswith(codecs.BOM_UTF16_LE) or data.startswith(b"<\0"):
        return "utf-16-le"
    if data.startswith(codecs.BOM_UTF16_BE) or data.startswith(b"\0<"):
        return "utf-16-be"
    return "utf-8"


def _must_be_domain(tag: str) -> None:
    if tag == "domain":
        return
    if tag in _OTHERS:
        raise Refused(f"a <{tag}> is not converted", why=_OTHERS[tag], hint=_INSTEAD.get(tag, ""))
    namespace, _, name = tag.rpartition(" ")
    where = f" of the namespace {namespace[:60]}" if namespace else ""
    raise InvalidInput("this is not a domain XML document", why=f"its root is <{name[:60]}>{where}")
