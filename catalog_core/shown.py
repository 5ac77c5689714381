"""Texts of others, made safe to show. All that reaches a terminal, a notebook or a log goes through here: tables and
lines (`catalog_core.show`), errors (`catalog_core.errors`), and what the command line prints (`catalog_cli.output`)."""

from __future__ import annotations

import json


def clean(words: str) -> str:
    """A text without what would steer a terminal: control characters, marks that turn the direction of writing and
    halves of surrogate pairs are written as Python writes them. It is one line."""
    return words if words.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)


def clean_lines(words: str) -> str:
    """The same line by line: line feeds stay."""
    return "\n".join(map(clean, words.split("\n")))


def clean_json(text: str) -> str:
    """JSON in which such characters are written as JSON escapes: the same values."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def counted(count: int, noun: str) -> str:
    """`1 tensor`, `2,000 tensors`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


_SPELT = frozenset("AEFHILMNORSX")  # letters whose names begin with a vowel: an SVC, an LSTM


def an(word: str) -> str:
    """A word with its article, by how it is said: a dict, an Adam, an ndarray, an SVC, a UNet."""
    first = word[:1]
    if word[:2].isupper() or len(word) == 1:
        vowel = first in _SPELT
    elif first in "uU":  # an Unpickler, a uint8, a Unicode
        vowel = word[1:2] == "p" or (word[1:2] == "n" and word[2:3] not in "eiEI")
    else:
        vowel = first in "aeioAEIO" or word.startswith(("nd", "np.", "nn.", "xgb"))
    return f"{'an' if vowel else 'a'} {word}"
