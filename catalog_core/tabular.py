"""Tables: in a terminal none is wider than its place, no letter is lost, and no word is broken that may be a name; in
a notebook they are HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import zip_longest


def laid_out(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None) -> Iterator[str]:
    """The lines of a table, none wider than `columns` of a terminal (None: as wide as it comes). Where there is no room
    for the longest words of all cells side by side, the last ones of a row come in lines below it; where there is none
    for two, each row is a paragraph."""
    cells = list(zip(headings, *rows, strict=True))
    widths = [max(map(width, column)) for column in cells]
    beside = len(widths)
    if columns is not None and sum(widths) + 2 * (beside - 1) > columns:
        least = [max(map(_longest, column)) for column in cells]
        while beside > 1 and sum(least[:beside]) + 2 * (beside - 1) > columns:
            beside -= 1
        if beside == 1 < len(widths):
            yield from _paragraphs(headings, rows, columns)
            return
        widths = _shrunk(widths[:beside], least, columns - 2 * (beside - 1))
    sides = [right(column[1:]) for column in cells]
    for number, row in enumerate((headings, *rows)):
        parts = [folded(text, room) for text, room in zip(row, widths, strict=False)]
        for line in zip_longest(*parts, fillvalue=""):
            yield "  ".join(_padded(*part) for part in zip(line, widths, sides, strict=False)).rstrip()
        for heading, text in zip(headings[beside:], row[beside:] if number else (), strict=False):
            if text and columns is not None:
                yield from _hanging(f"{heading}: {text}", columns, "    ")


def _shrunk(widths: list[int], least: Sequence[int], room: int) -> list[int]:
    """Widths that fit in `room`: the widest column gives first, and none more than its longest word."""
    while sum(widths) > room:
        free = [now if now > word else 0 for now, word in zip(widths, least, strict=False)]
        if not any(free):
            return [room]  # one column, of a word that is longer
        widths[free.index(max(free))] -= 1
    return widths


def described(pairs: Sequence[tuple[str, str]], columns: int | None) -> Iterator[str]:
    """The lines of labels and texts, side by side; see `laid_out`."""
    widest = max((width(label) for label, _ in pairs), default=0)
    for label, text in pairs:
        if columns is not None and widest + 2 + _longest(text) > columns:  # such as a digest
            yield from _hanging(f"{label}  {text}", columns)
            continue
        for number, line in enumerate([text] if columns is None else folded(text, columns - widest - 2)):
            yield f"{_padded('' if number else label, widest, False)}  {line}"


def _hanging(text: str, columns: int, before: str = "") -> Iterator[str]:
    """The text in lines that are set in: by less where a word, such as a name, would be broken else."""
    inner = f"{before}  "[: max(0, columns - _longest(text))]
    first, *others = folded(text, columns - len(inner))
    yield from (f"{before[: len(inner)]}{first}", *(f"{inner}{line}" for line in others))


def _paragraphs(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    for number, row in enumerate(rows):
        if number:
            yield ""
        for heading, text in zip(headings, row, strict=True):
            if text:
                yield from _hanging(f"{heading}: {text}", columns)


def as_html(
    title: str, pairs: Sequence[tuple[str, str]], headings: Sequence[str] = (), cells: Sequence[Sequence[str]] = ()
) -> str:
    """A title, labels with texts, and a table as HTML without scripts; every text is escaped, every colour is that of
    the page, light or dark."""

    def cell(tag: str, words: str, side: str = "left") -> str:
        return f"<{tag} style='white-space:pre-wrap;text-align:{side};vertical-align:top'>{escape(words)}</{tag}>"

    out = [f"<div><strong>{escape(title)}</strong>"]
    if pairs:
        body = "".join(f"<tr>{cell('th', label)}{cell('td', words)}</tr>" for label, words in pairs)
        out.append(f"<table style='margin:0 0 1em'>{body}</table>")
    if headings:
        sides = ["right" if right(column) else "left" for column in zip(*cells, strict=True)]
        sides = sides or ["left"] * len(headings)
        listing = [f"<tr>{''.join(map(cell, ['th'] * len(sides), headings, sides))}</tr>"]
        listing += [f"<tr>{''.join(map(cell, ['td'] * len(sides), row, sides))}</tr>" for row in cells]
        body = "".join(listing[1:])
        out.append(f"<table style='margin:0 0 1em'><thead>{listing[0]}</thead><tbody>{body}</tbody></table>")
    return "".join(out) + "</div>"


def right(cells: Iterable[str]) -> bool:
    """Whether a column holds numbers and sizes, which stand at the right."""
    return all(re.fullmatch(r"[-\d.,e+]*( [kMGT]?B)?", cell) for cell in cells)


def folded(text: str, room: int) -> list[str]:
    """The text in lines of at most `room` (2 or more) columns of the terminal, broken at blanks, and between letters of
    scripts that write none; elsewhere only where a word alone is longer."""
    if width(text) <= room:
        return [text]
    lines: list[str] = []
    line = ""
    for number, word in enumerate(text.split(" ")):
        longer = f"{line} {word}" if number else word
        if width(longer) <= room:
            line = longer
            continue
        if line:
            lines.append(line)
        line = ""
        for letter in word:
            if width(line + letter) > room:
                lines.append(line)
                line = ""
            line += letter
    return [*lines, line] if line else lines


def width(text: str) -> int:
    """Columns of the terminal that a text takes: letters of East Asian scripts take two, marks on letters none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _longest(text: str) -> int:
    """The columns of the longest piece that is not broken: a letter that takes two may stand in another line."""
    if text.isascii():
        return max(map(len, text.split(" ")))
    pieces = re.split(" ", "".join(f" {c} " if width(c) == 2 else c for c in text))
    return max(map(width, pieces))


def _padded(text: str, room: int, right: bool) -> str:
    blanks = " " * max(0, room - width(text))
    return blanks + text if right else text + blanks
