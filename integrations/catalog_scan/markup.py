"""Texts that a browser, or an engine of templates, runs: HTML, SVG, XML, Markdown, Jinja."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

Problems = Iterator[tuple[str, str]]
TEMPLATES = (".jinja", ".jinja2", ".j2", ".tmpl", ".tpl", ".template", ".prompt")
_PAGES = (".html", ".htm", ".xhtml", ".shtml", ".svg", ".svgz", ".xml", ".pmml")
_WORDS = (".md", ".mdx", ".markdown")
MAX_REFERENCE = 40  # characters of a name that HTML has for a character

# -- what a browser runs -----------------------------------------------------------------------------------------------

_BLANKS = re.compile(r"\s+")
_SCRIPT = re.compile(r"<\s?(?:[a-z]+:)?script\b([^>]*)", re.I)
_DATA = re.compile(
    r"""\btype\s?=\s?["']?(application/(ld\+)?json|text/(template|plain|x-handlebars)|importmap)\b""", re.I
)
# Each is tried on texts without runs of blanks: what may be blank is one character, and no input makes it try for long.
_ACTS = re.compile(
    r"""<[^<>]*[\s"'/](on[a-z]+|formaction)\s?=|(=|url\()\s?["']?\s?(javascript|vbscript|data\s?:\s?text/html)\s?[:,;]"""
    r"""|attributeName\s?=\s?["']?\s?on|(values|to|from)\s?=\s?["'][^"']*javascript\s?:|srcdoc\s?=|\]\(\s?javascript:"""
    r"""|http-equiv\s?=\s?["']?\s?refresh""",
    re.I,
)
_REFERENCE = re.compile(r"&(?:#([xX])?((?(1)[0-9a-fA-F]+|[0-9]+))|(\w+));?")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_INLINE = re.compile(r"(?<!`)(`+)(?!`)[^`\n](?:[^\n]{0,500}?[^`\n])??\1(?!`)")
_HOLDS = re.compile(r" {0,3}([-+*]|\d{1,9}[.)])\s| {0,3}<")  # a list, or HTML: what is set in behind it is no code
_SCHEME = re.compile(r"[\s\0]*".join("javascript:"), re.I)  # a browser passes over blanks within a name
_CELL = re.compile(
    r"""(?:^|[,;\t]) ?"? ?[=+@-][^,;\t\n]{0,40}?(?:\b(?:cmd|msexcel|powershell|rundll32|mshta)\w* ?\||\b(?:DDE"""
    r"""|WEBSERVICE|IMPORTDATA|IMPORTXML|HYPERLINK|EXEC|CALL|REGISTER) ?\()""",
    re.I | re.M,
)


def text(data: str, lower: str) -> Problems:
    """What a text of a name in lower case would run in a browser, or in an engine of templates."""
    begin = data[:2000].lstrip("\ufeff \t\r\n").lower()
    page = lower.endswith(_PAGES) or (begin.startswith("<") and re.search(r"<(svg|html|!doctype|\?xml)", begin))
    if page and "<!ENTITY" in data:
        yield "code", "it declares entities, which a reader of XML expands: files and addresses, too"
    if (page or lower.endswith(_WORDS)) and acts(data if page else _shown(data)):
        yield "code", "a browser would run the script in it"
    if lower.endswith((".csv", ".tsv")) and _CELL.search(re.sub(r"[^\S\t\n]+", " ", data)):
        yield "code", "a program of tables would run the formula in a cell"
    if lower.endswith(TEMPLATES) or "template" in lower.rpartition("/")[2]:
        yield from template(data)


def _shown(data: str) -> str:
    """A text in Markdown without the code that it shows."""
    lines, fence, holds = [], "", False
    for line in data.splitlines():
        found = _FENCE.match(line)
        if fence:
            fence = "" if found and found[1].startswith(fence) else fence
        elif found:
            fence = found[1]
        elif holds or not line.startswith(("    ", "\t")):
            lines.append(line)
            if line.strip() and not line.startswith((" ", "\t")):
                holds = _HOLDS.match(line) is not None
    return _INLINE.sub(" ", "\n".join(lines))


def acts(data: str) -> bool:
    """Whether a page holds a script, or an attribute that is one, however its characters are written."""
    data = _BLANKS.sub(" ", data)
    if any(not _DATA.search(found[1]) for found in _SCRIPT.finditer(data)):
        return True
    told = _BLANKS.sub(" ", _REFERENCE.sub(_character, data))
    return _ACTS.search(_SCHEME.sub("javascript:", told)) is not None


def _character(found: re.Match[str]) -> str:
    """What a reference to a character stands for in an attribute; those that would look like tags stay as they are."""
    kind, number, name = found.groups()
    number = (number or "").lstrip("0")  # zeros say nothing, and may be many
    if len(number) > 8 or len(name or "") > MAX_REFERENCE:
        return found[0]
    told = html.unescape(f"&{name};" if name else f"&#{kind or ''}{number or '0'};")
    return found[0] if told in "<>" else told


# -- templates ---------------------------------------------------------------------------------------------------------

_ESCAPE = re.compile(r"\\(?:x5f|u005f|U0000005f|137|N\{LOW LINE\})", re.I)
_JOINT = re.compile(r"""(["'])\s?(?:[~+,]|\)\s?[~+]\s?\(|\|\s?string\s?[~+])?\s?["']""")
_SPECIAL = (
    "abstractmethods|annotations|base|bases|builtins|call|class|closure|code|defaults|delattr|dict|func|getattr|getattribute"
    "|getitem|globals|import|init|kwdefaults|loader|module|mro|new|qualname|reduce|reduce_ex|self|setattr|spec|subclasses"
    "|subclasshook|wrapped"
)
_REACHES = re.compile(
    rf"__({_SPECIAL})__|__({'|'.join(word[::-1] for word in _SPECIAL.split('|'))})__"
    r"|\b(gi|cr|ag)_(frame|code)\b|\bf_(globals|builtins|locals|back|code)\b|\btb_(frame|next)\b"
    r"|\bfunc_(globals|code|closure)\b|\bim_(func|self|class)\b"
    r"""|["']_{2,}["']|["']_["']\s?\*\s?\d|["'][^"'a-z]{0,4}(globals|builtins|subclasses|getattribute|slabolg|snitliub|sessalcbus)[^"'a-z]{0,4}["']"""
    r"""|\battr\s?\(\s?(["']_|[^"'\s])|\(\s?["']attr["']|\[[^\[\]{}]{0,300}(~|\|\s?(join|format|replace|reverse|lower|string)\b)[^\[\]{}]{0,300}\]""",
)
_PLAIN = re.compile(
    r"__(class|globals|import|builtins|subclasses|mro|base|bases|init|getattribute|code)__|\battr\s?\(\s?['\"]_"
)


def _insides(value: str) -> Iterator[str]:
    """What stands in the brackets of Jinja. What no bracket closes is none, nor is anything behind it."""
    for opened, closed in (("{{", "}}"), ("{%", "%}")):
        at = value.find(opened)
        while at >= 0 and (end := value.find(closed, at + 2)) >= 0:
            yield value[at : end + 2]
            at = value.find(opened, end + 2)


def template(value: str) -> Problems:
    """A template of Jinja that would leave its sandbox, or puts a name together to do so."""
    value = _BLANKS.sub(" ", value)
    found = _PLAIN.search(value) is not None
    for inside in () if found else _insides(value):
        code = _ESCAPE.sub("_", inside)
        joined = _JOINT.sub("", code)
        if _REACHES.search(code) or _REACHES.search(joined):
            found = True
            break
    if found:
        yield "code", "a template reaches into Python's own objects"
