"""Changes single entries of a netplan file and leaves every other byte of it as it is.

The text is cut and pasted by the lines at which ruamel.yaml finds the keys; comments above an entry
and at its lines' ends go with it. The same is done to the plain data, and at the end the text must
read as that data: so an unusual spelling leads to a refusal, never to another meaning.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kvmnet.errors import InvalidInput, Refused

Path = tuple[str, ...]
Value = bool | int | str | Sequence[Any] | Mapping[str, Any]

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class Piece:
    """An entry that was cut out: its lines, indented as if at the left margin, and its value."""

    def __init__(self, lines: list[str], value: Any) -> None:
        self.lines = lines
        self.value = value


class NetplanText:
    """One file while it is edited."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._lines = text.replace("\r\n", "\n").splitlines()
        self._proven: str | None = text
        self._cached: Any = None
        self.data = self._load(text)

    @property
    def text(self) -> str:
        """The text as it is now. Raises `Refused` where it does not say what it is meant to."""
        if self._proven is not None:
            return self._proven
        text = self._newline.join([*self._lines, ""])
        try:
            same = _bare(self._load(text)) == _bare(self.data)
        except InvalidInput:
            same = False
        if not same:
            raise Refused(
                f"{self.path} is written in a way that kvmnet can not edit",
                why="its meaning would change (anchors, merged keys or an unusual layout)",
                hint="write it in the usual block style, or use --no-persist",
            )
        self._proven = text
        return text

    def get(self, *path: str) -> Any:
        """The plain value at a path of keys, or None."""
        node: Any = self.data
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def cut(self, path: Path) -> Piece:
        """Take an entry out, with the comments that stand right above it."""
        self._to_block(path[:-1])
        begin, end, _ = self._with_comments(path)
        piece = self.copy(path)
        del self._lines[begin:end]
        self._touched()
        del self._parent(path)[path[-1]]
        return piece

    def copy(self, path: Path) -> Piece:
        """An entry as `cut` gives it, which stays where it is."""
        self._to_block(path[:-1])
        begin, end, column = self._with_comments(path)
        lines = [x[column:] if x.strip() else "" for x in self._lines[begin:end]]
        return Piece(lines, self.get(*path))

    def _with_comments(self, path: Path) -> tuple[int, int, int]:
        begin, end, column = self._span(path)
        while begin > 0 and self._is_comment(begin - 1, column):
            begin -= 1
        return begin, end, column

    def put(self, path: Path, piece: Piece) -> None:
        """Add an entry at the end of its parent, which is made if it is not there."""
        parent, key = path[:-1], path[-1]
        if self.get(*parent) is None and parent and parent[-1] not in self._keys(parent[:-1]):
            self.put(parent, Piece([f"{parent[-1]}:"], {}))
        self._to_block(parent)
        at, column = self._place_below(parent)
        self._lines[at:at] = [f"{' ' * column}{x}" if x else "" for x in piece.lines]
        self._touched()
        self._parent(path)[key] = piece.value

    def set(self, path: Path, value: Value) -> None:
        """Give an entry a value: where it is, or at the end of its parent."""
        if path[-1] not in self._keys(path[:-1]):
            self.put(path, Piece(rendered(path[-1], value, self._step()), value))
            return
        self._to_block(path[:-1])
        begin, end, column = self._span(path)
        lines = rendered(path[-1], value, self._step())
        self._lines[begin:end] = [" " * column + x for x in lines]
        self._touched()
        self._parent(path)[path[-1]] = value

    def _keys(self, path: Path) -> frozenset[str]:
        node = self.get(*path)
        return frozenset(node) if isinstance(node, Mapping) else frozenset()

    def _parent(self, path: Path) -> Any:
        node = self.data
        for key in path[:-1]:
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
        return node

    def _load(self, text: str) -> Any:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            data = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]
            raise InvalidInput(f"{self.path} is not YAML", why=why) from None
        if not isinstance(data or {}, dict):
            raise InvalidInput(f"{self.path} is not netplan's YAML", why="it is no mapping")
        return data or {}

    def _touched(self) -> None:
        self._proven = self._cached = None

    def _tree(self) -> Any:
        """The document with the places of its keys; read again only after a change."""
        if self._cached is None:
            self._cached = _round_trip().load("\n".join([*self._lines, ""])) or {}
        return self._cached

    def _to_block(self, path: Path) -> None:
        """Write the mappings on a path in block style, if one is in braces (as in JSON)."""
        tree = self._tree()
        node, flow = tree, False
        for key in ("", *path):
            node = node.get(key) if key else node
            if not hasattr(node, "fa"):
                break
            if len(node) and node.fa.flow_style():
                flow = True
                node.fa.set_block_style()
        if flow:
            out = io.StringIO()
            _round_trip().dump(tree, out)
            self._lines = out.getvalue().splitlines()
            self._touched()

    def _span(self, path: Path) -> tuple[int, int, int]:
        """First line, line after the last, and column of an entry."""
        node = self._tree()
        for key in path[:-1]:
            node = node[key]
        try:
            begin, column = node.lc.key(path[-1])
        except KeyError:
            raise Refused(
                f"{self.path} is written in a way that kvmnet can not edit",
                why=f"{path[-1]} comes from an anchor",
                hint="write it out, or use --no-persist",
            ) from None
        end = last = begin + 1
        for number in range(begin + 1, len(self._lines)):
            line = self._lines[number]
            bare, indent = line.strip(), len(line) - len(line.lstrip(" "))
            if not bare:
                continue
            listed = indent == column and (bare == "-" or bare.startswith("- "))
            if indent <= column and not listed:
                break
            end = last = number + 1
        return begin, max(end, last), column

    def _is_comment(self, number: int, column: int) -> bool:
        line = self._lines[number]
        return line.strip().startswith("#") and len(line) - len(line.lstrip(" ")) == column

    def _place_below(self, path: Path) -> tuple[int, int]:
        """Line and column for a new entry at the end of a mapping."""
        tree = self._tree()
        node = tree
        for key in path:
            node = node.get(key) if node else None
        if node:
            spans = [self._span((*path, x)) for x in node]
            return max(x[1] for x in spans), spans[0][2]
        if not path:
            return len(self._lines), 0
        begin, _, column = self._span(path)
        self._lines[begin] = re.sub(r":\s*(\{\s*\}|~|null)(?=\s*(#|$))", ":", self._lines[begin])
        return begin + 1, column + self._step()

    def _step(self) -> int:
        """By how many columns the file indents."""
        network = self.get("network")
        for key in network if isinstance(network, Mapping) else ():
            span = self._span(("network", key)) if self._is_block() else (0, 0, 2)
            return span[2] - self._span(("network",))[2] or 2 if self._is_block() else 2
        return 2

    def _is_block(self) -> bool:
        tree = self._tree()
        nodes = (tree, tree.get("network"))
        return all(hasattr(x, "fa") and not x.fa.flow_style() for x in nodes)


def _round_trip() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width, yaml.preserve_quotes = 4096, True
    return yaml


def rendered(key: str, value: Value, step: int = 2) -> list[str]:
    """An entry's lines at the left margin: mappings in block style, lists in brackets."""
    if isinstance(value, Mapping) and value:
        below = [x for k, v in value.items() for x in rendered(str(k), v, step)]
        return [f"{_scalar(key)}:", *(" " * step + x for x in below)]
    return [f"{_scalar(key)}: {_flow(value)}"]


def _flow(value: Value) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(str(k))}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: bool | int | str) -> str:
    """A value as YAML 1.1 and 1.2 both read it; a MAC of digits only is a number in the former."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value)


def _bare(value: Any) -> Any:
    """Data without what netplan does not tell apart: an empty mapping and none."""
    if isinstance(value, Mapping):
        return {str(k): _bare(v) for k, v in value.items()} or None
    if isinstance(value, list | tuple):
        return [_bare(x) for x in value]
    return value
