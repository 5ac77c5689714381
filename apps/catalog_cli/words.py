"""Hints in the words of the command. The catalog's errors speak to programs; here each call that the command can make
is written as the command line that makes it, and what only a program can do is marked as such."""

from __future__ import annotations

import re

_TEXT = r"[\"']?([^\"'()]+)[\"']?"
_WORDS = [
    (r"store it as text: str\(value\)", "store it as text, in double quotes: KEY='\"VALUE\"'"),
    (r"float\(value\) rounds it", "with a decimal point it is rounded"),
    (r", or (?:load with )?as_=['\"]\w+['\"]", ""),
    (r" \((?:unsafe|trust|force)=True\)", ""),
    (r"--(trust|unsafe|force), or \1=True", r"--\1"),
    (r"(?:[\w.]+\()?\b(?:save|prepare)\(force=True\)", "catalog save --force"),
    (r"(?:catalog\.)?(?:load|verify)\((?:ref, )?trust=True\)", "catalog verify REF --trust"),
    (r"\b(trust|unsafe|force|verify)=True\b", r"--\1"),
    (r"Catalog\.open\(url\), then name@version", "catalog --catalog URL …, and NAME@N"),
    (rf"Catalog\.open\({_TEXT}\)", r"catalog --catalog \1 …"),
    (rf"(?:look it up again: )?catalog\.version\({_TEXT}\)", r"catalog show \1"),
    (rf"(?:version\.)?untag\({_TEXT}\)", r"catalog tag REF --unset \1"),
    (rf"(?:version\.)?unannotate\({_TEXT}\)", r"catalog annotate REF --unset \1"),
    (rf"(?:version\.)?detach\({_TEXT}\)", r"catalog attach REF --remove --name \1"),
    (rf"(?:model\.)?unalias\({_TEXT}\)", r"catalog alias NAME \1 --remove"),
    (r"version\.alias\(\w+\)", "catalog alias REF NAME"),
    (r"version\.promote\(\w+\)", "catalog promote REF STAGE"),
    (r"model\.update\((\w+)=[^)]*\)", r"catalog update NAME --\1 …"),
    (r"\bdownload\(ref, folder\)", "catalog download REF FOLDER"),
    (r"\b(tag|metric|param)s=(?![\w\"'{\[])", r"--\1"),
    (r"\b(title|description|owner)=(?![\w\"'{\[])", r"catalog update NAME --\1"),
    (r"\bserializer=['\"](\w+)['\"]", r"--serializer \1"),
    (r"\bserializer=(?![\w{\[])", "--serializer"),
    (r"\bexample=(?:…|(?![\w{\[]))", "--example FILE"),
    (r"\bcomponents=\{[^}]*\}", "--component NAME=PATH"),
    (r"\baxes=\{.*\}", "--axes INPUT:AXIS=NAME"),
    (r"\bskip=\[?['\"](\w+)['\"]\]?", r"--skip \1"),
    (r"\bparents=\[['\"]([^'\"]+)['\"]\]", r"--parent \1"),
]
_RULES = [(re.compile(pattern), words) for pattern, words in _WORDS]
_PYTHON = re.compile(r"\b[A-Za-z_][\w.]*\((?!s\))[^()]*\)|\b[a-z_]+=(?:True|False|None|…|[\"'{\[]|\w+\(|(?=[ ,;]|$))")


def spoken(text: str) -> str:
    """A sentence of the catalog with calls that the command can make written as its own options and commands."""
    for pattern, words in _RULES:
        text = pattern.sub(words, text)
    return text


def hinted(hint: str) -> str:
    """A hint in the words of the command; one that still speaks Python says so."""
    told = spoken(hint)
    return f"in Python: {hint}" if _PYTHON.search(told) else told
