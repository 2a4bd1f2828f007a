"""One element's text with the place of everything in it, and edits of that text.

For the text of an element that a real XML parser has taken already: nothing is checked again.
Every edit is a splice; what no splice touches stays as it is, comments and indentation included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

_TOKEN = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|</[^>]*>|<(?:[^<>\"']++|\"[^\"]*\"|'[^']*')*>",
    re.DOTALL,
)
_NAME = re.compile(r"[^\s/>=]+")
_ATTRIBUTE = re.compile(r"\s+([^\s=/>]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
_REFERENCE = re.compile(r"&(?:#x([0-9a-fA-F]+)|#([0-9]+)|(\w+));")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


class Splice(Struct, frozen=True, order=True):
    """Replace the text from `start` up to `end` by another."""

    start: int
    end: int
    text: str


class Attribute(Struct, frozen=True, kw_only=True):
    """One attribute: its value without references, and where it stands."""

    name: str
    value: str
    start: int
    """Where the white space before it begins."""
    end: int
    value_start: int
    """Behind the opening quote."""

    @property
    def is_own(self) -> bool:
        """Whether it is libvirt's, of no namespace, and declares none."""
        return ":" not in self.name and self.name != "xmlns"


class Element(Struct, frozen=True, kw_only=True):
    """One element and those inside it."""

    name: str
    """As it is written; of a foreign namespace it never is one of libvirt's names."""
    start: int
    open_end: int
    """Behind its opening tag."""
    end: int
    empty_tag: bool
    """Written `<name/>`."""
    attributes: tuple[Attribute, ...]
    children: tuple[Element, ...]

    def get(self, name: str) -> str | None:
        """An attribute's value."""
        return next((x.value for x in self.attributes if x.name == name), None)

    def child(self, name: str) -> Element | None:
        """The first child of that name, which is the one that libvirt looks at."""
        return next((x for x in self.children if x.name == name), None)


def parse(text: str) -> Element:
    """The element that the text consists of."""
    open_tags: list[tuple[re.Match[str], list[Element]]] = []
    finished: list[Element] = []
    for token in _TOKEN.finditer(text):
        tag = token.group()
        if tag.startswith(("<!", "<?")):
            continue
        if tag.startswith("</"):
            opening, children = open_tags.pop()
            done = _element(opening, token.end(), children)
        elif tag.endswith("/>"):
            done = _element(token, token.end(), [])
        else:
            open_tags.append((token, []))
            continue
        (open_tags[-1][1] if open_tags else finished).append(done)
    return finished[0]


def _element(opening: re.Match[str], end: int, children: list[Element]) -> Element:
    tag = opening.group()
    name = _name(tag)
    attributes = tuple(_attributes(tag, name, opening.start()))
    foreign = ":" not in name and any(x.name == "xmlns" and x.value for x in attributes)
    return Element(
        name=f"xmlns:{name}" if foreign else name,
        start=opening.start(),
        open_end=opening.end(),
        end=end,
        empty_tag=tag.endswith("/>"),
        attributes=attributes,
        children=tuple(children),
    )


def _name(tag: str) -> str:
    found = _NAME.match(tag, 1)
    return found.group() if found else ""


def _attributes(tag: str, name: str, offset: int) -> Iterator[Attribute]:
    for found in _ATTRIBUTE.finditer(tag, 1 + len(name)):
        yield Attribute(
            name=found[1],
            value=_unescape(found[2][1:-1]),
            start=offset + found.start(),
            end=offset + found.end(),
            value_start=offset + found.start(2) + 1,
        )


def _unescape(text: str) -> str:
    """The value as a parser gives it: references resolved, white space as spaces (XML 3.3.3)."""
    if "&" not in text and text.isprintable():  # as nearly all are; no tab or line break is
        return text
    plain = re.sub(r"\r\n|[\t\n\r]", " ", text)
    return _REFERENCE.sub(_referred, plain) if "&" in plain else plain


def _referred(found: re.Match[str]) -> str:
    hexadecimal, decimal, name = found.groups()
    if name is not None:
        return _NAMED.get(name, found.group())
    return chr(int(hexadecimal, 16) if hexadecimal else int(decimal))


def escape(value: str, quote: str) -> str:
    """The value as it may stand between such quotes."""
    text = value.replace("&", "&amp;").replace("<", "&lt;")
    return text.replace(quote, "&quot;" if quote == '"' else "&apos;")


def apply(text: str, splices: Iterable[Splice]) -> str:
    """The text with all splices made. One that lies inside another is dropped: it is gone anyway.

    What is put in at a place comes before what is exchanged there.
    """
    parts: list[str] = []
    behind = 0
    for splice in sorted(splices, key=lambda x: (x.start, x.end != x.start, -x.end)):
        if splice.start < behind:
            continue
        parts += (text[behind : splice.start], splice.text)
        behind = splice.end
    return "".join((*parts, text[behind:]))


def removal(text: str, element: Element) -> Splice:
    """Take the element out, with its lines if nothing else stands on them."""
    line = text.rfind("\n", 0, element.start) + 1
    after = text.find("\n", element.end)
    alone = line > 0 and after >= 0 and not text[line : element.start].strip()
    if alone and not text[element.end : after].strip():
        return Splice(line, after + 1, "")
    return Splice(element.start, element.end, "")


def indentation(text: str, place: int) -> str | None:
    """The line break and white space before that place, or None if something else is before it."""
    line = text.rfind("\n", 0, place)
    if line < 0 or text[line + 1 : place].strip():
        return None
    return text[line - 1 if text[line - 1 : line] == "\r" else line : place]


def quote_in(text: str, element: Element) -> str:
    """The quotes that the element's own attributes stand in."""
    return text[element.attributes[0].value_start - 1] if element.attributes else "'"


def set_attributes(
    text: str, element: Element, values: Iterable[tuple[str, str]], quote: str
) -> Iterator[Splice]:
    """Give the element exactly these attributes of libvirt's; those of others stay.

    A value is exchanged in its place. A new attribute comes in the place of one that goes, or
    behind the element's name.
    """
    wanted = dict(values)
    going = [x for x in element.attributes if x.is_own and x.name not in wanted]
    for attribute in element.attributes:
        value = wanted.pop(attribute.name, None)
        if value is not None and value != attribute.value:
            inner = text[attribute.value_start - 1]
            yield Splice(attribute.value_start, attribute.end - 1, escape(value, inner))
    added = "".join(f" {name}={quote}{escape(x, quote)}{quote}" for name, x in wanted.items())
    for attribute in going:
        yield Splice(attribute.start, attribute.end, added)
        added = ""
    if added:
        place = element.start + 1 + len(_name(text[element.start : element.open_end]))
        yield Splice(place, place, added)


def set_attribute(
    text: str, element: Element, name: str, value: str, quote: str
) -> Iterator[Splice]:
    """Give one attribute this value; all others stay."""
    found = next((x for x in element.attributes if x.name == name), None)
    if found is None:
        place = element.start + 1 + len(_name(text[element.start : element.open_end]))
        yield Splice(place, place, f" {name}={quote}{escape(value, quote)}{quote}")
    elif found.value != value:
        inner = text[found.value_start - 1]
        yield Splice(found.value_start, found.end - 1, escape(value, inner))


def written(name: str, attributes: Mapping[str, str], quote: str) -> str:
    """A new element without content."""
    inside = "".join(f" {x}={quote}{escape(y, quote)}{quote}" for x, y in attributes.items())
    return f"<{name}{inside}/>"
