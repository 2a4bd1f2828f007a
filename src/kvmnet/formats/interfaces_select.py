"""Which links ifupdown brings up by itself: `auto`, `allow-hotplug` and the lists like them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from kvmnet.formats import interfaces_marks as marks
from kvmnet.formats.interfaces_lines import Line, Sheet, physical, swap_words
from kvmnet.formats.interfaces_work import Work

_AUTO = frozenset({"auto", "allow-auto"})


class Selection(Struct, frozen=True, kw_only=True):
    """Who is to be brought up instead of whom."""

    renames: dict[str, str] = {}
    """The NIC and its aliases, and the bridge and its."""
    silent: tuple[str, ...] = ()
    """Not to be brought up by themselves any more."""
    kept: tuple[str, ...] = ()
    """Ports to be brought up, before the bridge."""


def select(work: Work, wanted: Selection) -> None:
    """Have the new names come up where the old ones did, and the silent links not at all."""
    old = set(wanted.renames)
    autos = [x for *_, x in work.lists() if x.keyword in _AUTO]
    missing = {x: y for x, y in wanted.renames.items() if not any(x in z.words for z in autos)}
    touched = old | set(wanted.silent) | ({work.bridge} if wanted.kept else set())
    for sheet, index, line in list(work.lists()):
        if not set(line.words[1:]) & touched:
            continue
        if line.keyword.startswith("allow-") and line.keyword not in _AUTO:
            _unplug(work, sheet, index, wanted, missing)
            missing = {x: y for x, y in missing.items() if x not in line.words}
        else:
            kept = wanted.kept if line.keyword in _AUTO else ()
            _swap(work, sheet, index, structs.replace(wanted, kept=kept))
    for name in missing:
        if ":" not in name:
            _begin(work, name, wanted)


def _begin(work: Work, name: str, wanted: Selection) -> None:
    """Have it come up at boot, though the NIC did not."""
    block = work.of(name)[0]
    sheet = work.sheets[block.sheet]
    line = f"auto {' '.join((*wanted.kept, wanted.renames[name]))}\n"
    mark = marks.aside("", work.bridge, name, (line,))
    sheet.put(block.head, *mark, *sheet.now(block.head))
    work.notes.append(f"{work.bridge} is brought up when the host starts; {name} was not")


def replace_selected(work: Work, renames: Mapping[str, str]) -> None:
    """Other names in all lists, each once in a line; an empty name goes, and an empty list too."""
    for sheet, index, line in work.lists():
        if not set(line.words[1:]) & set(renames):
            continue
        seen: set[str] = set()

        def swap(word: str, seen: set[str] = seen) -> str:
            new = renames.get(word, word)
            fresh = "" if new in seen else new
            seen.add(new)
            return fresh

        text = swap_words(line.raw, swap)
        sheet.put(index, *([text] if seen - {""} else []))


def _swap(work: Work, sheet: Sheet, index: int, wanted: Selection) -> None:
    def swap(word: str) -> str:
        new = wanted.renames.get(word, word)
        return " ".join((*wanted.kept, new)) if new == work.bridge else new

    line = sheet.lines[index]
    gone = [x for x in line.words[1:] if x in wanted.silent]
    if not gone:
        sheet.put(index, swap_words(line.raw, swap))
        return
    whole = swap_words(line.raw, lambda x: wanted.renames.get(x, x))
    rest = swap_words(line.raw, lambda x: "" if x in wanted.silent else swap(x))
    instead = physical(rest) if len(gone) < len(line.words) - 1 else ()
    sheet.put(index, *marks.aside(whole, work.bridge, gone[0], instead))


def _unplug(
    work: Work, sheet: Sheet, index: int, wanted: Selection, missing: Mapping[str, str]
) -> None:
    """Nothing hotplugs a bridge: `auto` has to do it."""
    line = sheet.lines[index]
    gone = [x for x in line.words[1:] if x in (*wanted.renames, *wanted.silent)]
    new = [missing[x] for x in gone if x in missing]
    gone = [x for x in gone if x not in wanted.kept]
    rest = len(gone) < len(line.words) - 1
    left = physical(swap_words(line.raw, lambda x: "" if x in gone else x)) if rest else ()
    autos = (f"{line.indent}auto {' '.join(new)}\n",) if new else ()
    if new:
        work.notes.append(
            f"{sheet.state.path}:{line.number}: `{line.keyword}` waits for udev, which announces "
            f"NICs but no bridge; `auto {' '.join(new)}` brings it up when the host starts"
        )
    if gone:
        sheet.put(index, *marks.aside(line.raw, work.bridge, gone[0], (*left, *autos)))
    elif autos:
        sheet.after(index, *marks.aside("", work.bridge, work.bridge, autos))


def hotplugged(work: Work, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the links that are brought up only once udev has seen them."""
    lines: list[Line] = [x for *_, x in work.lists() if x.keyword.startswith("allow-")]
    plugged = {y for x in lines if x.keyword not in _AUTO for y in x.words[1:]}
    return tuple(x for x in names if x in plugged)
