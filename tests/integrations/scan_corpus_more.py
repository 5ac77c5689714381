"""The second part of the corpus: what is hidden in pages, templates, settings, pictures and sound, and what looks like
it and is clean. See `scan_corpus`."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import zlib
from collections.abc import Iterator

import numpy as np
from hostile_files import message, npy, safetensors, saved_model, zipped
from scan_corpus import CALLS, Calls, Sample, tarred


def png(data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A picture of one row, and further chunks."""
    chunks = [(b"IHDR", bytes(13)), *more, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    packed = [len(d).to_bytes(4, "big") + name + d + zlib.crc32(name + d).to_bytes(4, "big") for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def wav(data: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Sound, and further chunks."""
    chunks = [(b"fmt ", bytes(16)), *more, (b"data", data + bytes(len(data) % 2))]
    body = b"WAVE" + b"".join(name + len(part).to_bytes(4, "little") + part for name, part in chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


# -- what is harmless --------------------------------------------------------------------------------------------------


def harmless() -> Iterator[Sample]:
    """Pages, pictures, templates, settings and old codes of letters that run nothing."""
    yield from _clean_pages(random.Random(12))
    yield from _clean_templates()
    yield from _clean_settings()
    yield from _old_letters()
    generator = np.random.default_rng(8)
    for number in range(20):
        yield "real png", "plot.png", png(generator.bytes(50 * number + 10))
        yield "real wav", "a.wav", wav(generator.bytes(40 * number + 20))
    yield "joblib", "model.joblib", gzip.compress(pickle.dumps({"a": np.arange(40)}))
    parts = {"sizes": pickle.dumps([1, 2], 2), "weights": pickle.dumps({"w": 1}, 2)}
    yield "torch legacy tar", "model.tar", tarred(parts)
    yield "gettext", "x.mo", b"\xde\x12\x04\x95" + bytes(24)


def _clean_pages(chance: random.Random) -> Iterator[Sample]:
    for readme in (
        '<p align="center"><img src="logo.png"></p>\n\n# Model\n\n<details><summary>How</summary>words</details>\n',
        "# Use\n\n```html\n<script src='x.js'></script>\n```\n\nThe tag `<script>` is not `onclick=`.\n",
        "# Use\n\n```python\nimport os\nprint('{{ x.__class__ }}')\n```\n\n[link](https://example.org?on=1)\n",
        "Indented:\n\n    <script>alert(1)</script>\n\n<br/> <sub>small</sub> <kbd>Ctrl</kbd>\n",
        "The javascript: scheme is refused. JavaScript runs it. A `javascript:void(0)` too.\n",
        '<a href="https://example.org" title="on time">x</a> <table><tr><td>1</td></tr></table>\n',
    ):
        for name in ("README.md", "docs/card.md", "index.markdown"):
            yield "page of words", name, readme.encode()
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">'
    for number in range(20):
        path = " ".join(f"L{chance.randrange(24)} {chance.randrange(24)}" for _ in range(6))
        icon = f'{head}<title>a &amp; b</title><path d="M0 0 {path}"/></svg>'
        yield "icon", ("icon.svg", "plot.svg", "logo.xml")[number % 3], icon.encode()
    kind = '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd">'
    yield "icon", "plot.svg", f'{kind}{head}<style>a{{b:c}}</style><a href="#x"/></svg>'.encode()
    yield "icon", "plot.svgz", gzip.compress(f'{head}<g id="once"/></svg>'.encode())
    for number in range(6):
        page = f"<!doctype html><html><head><title>{number}</title></head><body><p>one &lt;script&gt;</p></body></html>"
        yield "page", "report.html", page.encode()
    yield "page", "x.html", b'<html><script type="application/json">{"a": 1}</script><p>on = 1</p></html>'
    yield "pmml", "model.pmml", b'<?xml version="1.0"?><PMML version="4.4"><Header/><DataDictionary/></PMML>'


def _clean_templates() -> Iterator[Sample]:
    for text in (
        r"{%- for message in messages %}{{ message['role'] }}: {{ message.content | trim }}{{ '\n' }}{% endfor %}",
        "{% set ns = namespace(found=false) %}{% if messages[0]['role'] == 'system' %}{{ bos_token + 'a' }}{% endif %}",
        "{{ '<|' ~ role ~ '|>' }}{% for m in messages[1:] %}{{ m.content|replace('_', ' ')|upper }}{% endfor %}",
        "{{ tools | map(attribute='function') | list | tojson(indent=4) }}{{ raise_exception('no _class_') }}",
        r"{{ messages[loop.index0 - 1]['content'].split('</think>')[-1].lstrip('\n') }}{{ '<__media__>' }}",
        "{% if x is defined and x|attr('name') %}{{ ', '.join(names) }}{% endif %}",
        "write `if __name__ == '__main__':` in {{ language }}",
        "{{ {'role': 'user', 'content': message['content'] ~ '\\n\\n' ~ 'class'} | tojson }}{{ messages | length }}",
    ):
        for name in ("chat_template.jinja", "prompt.j2", "additional_chat_templates/tool.jinja"):
            yield "template", name, text.encode()
        several = {"chat_template": [{"name": "a", "template": text}]}
        yield "template", "tokenizer_config.json", json.dumps(several).encode()
        yield "template", "m.gguf", b"GGUF\3\0\0\0" + bytes(20) + b"tokenizer.chat_template" + text.encode()


def _clean_settings() -> Iterator[Sample]:
    for number in range(10):
        table = (
            f'[project]\nname = "a{number}"\n[tool.ruff]\nline-length = 88\n[build-system]\nrequires = ["hatchling"]\n'
        )
        yield "toml", "pyproject.toml", table.encode()
        yield "toml", "train.toml", f'[optimizer]\n_target_ = "torch.optim.AdamW"\nlr = 0.{number + 1}\n'.encode()
    for name, text in (
        (".gitignore", "*.pyc\n"),
        (".editorconfig", "root = true\n"),
        ("environment.yml", "name: x\n"),
        (".vscode/extensions.json", '{"recommendations": []}'),
        ("CODEOWNERS", "* @x\n"),
        ("makefile.txt", "words\n"),
        ("my-dockerfile-notes.md", "words\n"),
        ("cpu.profile", "a 1\n"),
        ("VERSION", "1.2\n"),
        ("setup.txt", "import x\n"),
        ("data.csv", "a,b\n-1,+2\n=,x\n@home,-\n"),
        ("t.csv", "name,share\ncmd,|\n"),
        (".python-version", "3.12\n"),
    ):
        yield "settings", name, text.encode()


def _old_letters() -> Iterator[Sample]:
    for text, coding in (
        ("äöü\n", "latin-1"),
        ("umlaut äöü ÄÖÜ ß\n", "latin-1"),
        ("été à Noël, ça va\n", "cp1252"),
        ("модель\n", "cp1251"),
        ("Größe\nÜbung\nÄrger\n", "iso8859-15"),
        ("модель для задач\n", "koi8-r"),
        ("„Größe“ – 5 €\n", "cp1252"),
        ("模型說明\n", "big5"),
        ("模型说明用于分类\n", "gb18030"),
        ("モデルの説明です\n", "shift_jis"),
        ("モデルの説明\n", "euc_jp"),
        ("모델 설명\n", "euc_kr"),
    ):
        for name in ("umlaut.txt", "README", "labels.txt"):
            yield "old codes of letters", name, text.encode(coding)


# -- what is harmful ---------------------------------------------------------------------------------------------------


def harmful() -> Iterator[Sample]:
    """The same kinds, and they run something."""
    yield from _links()
    yield from _scripts()
    yield from _templates()
    yield from _run_by_name()
    yield from _within()
    yield from _behind()


SCHEMES = (
    "javascript:x()",
    "&#106;avascript:x()",
    "&#x6A;avascript:x()",
    "&#0000106avascript:x()",
    "java&#9;script:x()",
    "java\tscript:x()",
    "JaVaScRiPt:x()",
    " javascript:x()",
    "javascript&colon;x()",
    "data:text/html,x",
    "vbscript:x",
    "&#106;&#97;&#118;&#97;script&#58;x()",
    "java&Tab;script:x",
    "java&NewLine;script:x",
)
SCRIPTS = (
    "<script>x()</script>",
    "<SCRIPT src=x>",
    "<svg:script>x()</svg:script>",
    '<g onclick="x()"/>',
    "<g\nonload = x()>",
    '<set attributeName="onmouseover" to="x()"/>',
    '<animate attributeName="href" values="javascript:x()"/>',
    "<script\n type='text/javascript'>x()</script>",
    "<image/onerror=x() href=y>",
    '<iframe srcdoc="x"/>',
    "<foreignObject><body onload='x()'/></foreignObject>",
    "<script type=module>x()</script>",
)


def _links() -> Iterator[Sample]:
    for scheme in SCHEMES:
        picture = f'<svg xmlns="http://www.w3.org/2000/svg"><a href="{scheme}"><text>x</text></a></svg>'
        yield "svg", "a.svg", picture.encode()
        yield "html", "a.html", f"<html><iframe src='{scheme}'></iframe></html>".encode()
        yield "md", "README.md", f'# x\n\n<a href="{scheme}">y</a>\n'.encode()


def _scripts() -> Iterator[Sample]:
    for inner in SCRIPTS:
        for name in ("a.svg", "picture.xml", "picture"):
            yield "svg", name, f'<svg xmlns="http://www.w3.org/2000/svg">{inner}</svg>'.encode()
        yield "svg", "a.svgz", gzip.compress(f"<svg>{inner}</svg>".encode())
        yield "svg", "a.svg", f'<svg xmlns="http://www.w3.org/2000/svg">{inner}</svg>'.encode("utf-16")
        yield "html", "report.html", f"<!doctype html><html><body>{inner}</body></html>".encode()
        shown = ("words\n\n{}\n", "- one\n\n    {}\n", "<div>\n    {}\n</div>\n", "`\n\n{}\n\n`\n", "```\nx\n```\n{}\n")
        for words in shown:
            yield "md", "README.md", f"# Model\n\n{words.format(inner)}".encode()
    entity = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><PMML>&a;</PMML>'
    yield "xml", "model.pmml", entity.encode()
    yield "xml", "a.svg", b'<!DOCTYPE svg [<!ENTITY x "javas">]><svg><a href="&x;cript:y()"/></svg>'
    yield "csv", "data.csv", b"a,b\n=cmd|'/c calc'!A0,1\n"
    yield "csv", "data.tsv", b'a\tb\n"=WEBSERVICE(""http://x"")"\t1\n'


TEMPLATES = (
    """{{ ''["__cla"~"ss__"] }}""",
    """{{ ''|attr("__class__") }}""",
    """{{ x['__cl'+'ass__'] }}""",
    """{{ x|attr("__cl"~"ass__") }}""",
    """{{ x|attr(["__cla","ss__"]|join) }}""",
    """{{ x|attr(request) }}""",
    r"""{{ x["\x5f\x5fclass\x5f\x5f"] }}""",
    r"""{{ x["\u005f_class__"] }}""",
    r"""{{ x["\137\137class__"] }}""",
    """{% set u = '_' * 2 %}{{ x[u ~ 'class' ~ u] }}""",
    """{% set u = '__' %}{{ x[u+'class'+u] }}""",
    """{{ x['__ssalc__'[::-1]] }}""",
    """{{ x['__ssalc__'|reverse|join] }}""",
    """{{ x['%s%s'|format('__cl','ass__')] }}""",
    """{{ x['XXclassXX'|replace('XX','__')] }}""",
    """{{ (x|list)[0].gi_frame.f_globals }}""",
    """{{ x.f_back.f_builtins }}""",
    """{{ lipsum.__globals__['os'] }}""",
    """{{ [x]|map('attr', n)|list }}""",
    """{{ [x]|map(attribute='__class__')|list }}""",
    """{{ cycler.__init__.__globals__ }}""",
    """{{ x['YglobalsY'|replace('Y', u)] }}""",
    """{% if ''['__cla''ss__'] %}{% endif %}""",
    """{{ x.mro.__self__ }}""",
    """{{ x|attr('_' ~ '_class_' ~ '_') }}""",
)


def _templates() -> Iterator[Sample]:
    for inside in TEMPLATES:
        for name in ("chat_template.jinja", "prompt.j2", "additional_chat_templates/rag.jinja", "my_template.txt"):
            yield "template", name, inside.encode()
        for told in (inside, [{"name": "t", "template": inside}], {"default": inside}):
            yield "template", "tokenizer_config.json", json.dumps({"chat_template": told}).encode()
        yield "template", "m.gguf", b"GGUF\3\0\0\0" + bytes(20) + b"tokenizer.chat_template" + inside.encode()
        yield "template", "prompt.toml", f"prompt_template = {json.dumps(inside)}\n".encode()


def _run_by_name() -> Iterator[Sample]:
    for name in """
        Makefile GNUmakefile sub/makefile rules.mk justfile Snakefile CMakeLists.txt tox.ini Jenkinsfile Dockerfile
        app.dockerfile docker-compose.yml run.desktop job.service x.command x.vbs x.hta x.reg .pre-commit-config.yaml
        .vscode/tasks.json a/.vscode/settings.json .idea/workspace.xml .envrc .bashrc .github/workflows/ci.yml
        .gitlab-ci.yml .git/hooks/pre-commit .git/config .husky/pre-commit .gitmodules .devcontainer/devcontainer.json
        x.code-workspace x.ipy x.fish x.ts x.psm1 conftest.py sitecustomize.py usercustomize.py noxfile.py
    """.split():  # noqa: SIM905
        yield "run by its name", name, b"all:\n\tid\n"
    yield "desktop", "readme.txt", b"[Desktop Entry]\nType=Application\nExec=sh -c id\n"
    yield "site", "y.pth", b"# words\nimport os\n"
    backend = b'[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
    yield "build", "pyproject.toml", backend
    for module, name, *_ in CALLS:
        target = f"{module}.{name}"
        yield "toml", "config.toml", f'[model]\n_target_ = "{target}"\n'.encode()
        yield "toml", "conf.toml", f'[[layers]]\nlayer = {{ class_path = "{target}", n = 1 }}\n'.encode()
        yield "toml", "config", f'"_target_" = "{target}"\n'.encode()
    for head in (b"X\n\0\0\0\3\0\4\3\1", b"RDX3\nX\n\0\0\0\3", b"A\n3\n262914\n197888\n"):
        for name in ("model.rds", "model.RData", "model.bin"):
            yield "r", name, head + bytes(40)
        yield "r", "model.rds", gzip.compress(head + bytes(40))
    yield "r", "model.rda", b"words\n"


def _within() -> Iterator[Sample]:
    """Pickles within and behind files of data."""
    for module, name, *arguments in CALLS:
        for protocol in range(6):
            evil = pickle.dumps(Calls(module, name, *arguments), protocol)
            yield "pickle behind a picture", "a.png", png(b"row") + evil
            yield "pickle within a picture", "a.png", png(b"row", (b"tEXt", evil))
            yield "pickle behind sound", "a.wav", wav(bytes(40)) + evil
            yield "pickle within sound", "a.wav", wav(bytes(40), (b"LIST", evil))
            yield "pickle behind a head", "a.jpg", b"\xff\xd8\xff\xe0" + bytes(16) + evil
            yield "pickle behind a head", "a.gguf", b"GGUF\3\0\0\0" + bytes(16) + evil
        evil = pickle.dumps(Calls(module, name, *arguments), 4)
        yield "pickle behind a head", "a.gif", b"GIF89a\1\0\1\0" + bytes(7) + evil[2:]  # no opcode says that it begins
        yield "torch legacy tar", "model.tar", tarred({"storages": evil, "tensors": evil, "pickle": evil})
        packed = gzip.compress(pickle.dumps([np.ones(3), Calls(module, name, *arguments)]))
        yield "joblib", "model.joblib", packed
        yield "npz", "a.npz", zipped({"a.npy": npy(np.ones(3)), "b.npy": evil})


def _behind() -> Iterator[Sample]:
    """Archives behind files of data."""
    archive = zipped({"a": b"x"})
    graph = message((1, 8), (7, message((1, message((4, "Relu"))))), (8, message((2, 20))))
    for name, data in (
        ("a.png", png(b"row")),
        ("a.wav", wav(bytes(40))),
        ("a.jpg", b"\xff\xd8\xff\xe0" + bytes(60)),
        ("net.onnx", graph),
        ("w.npy", npy(np.ones(3))),
        ("model.safetensors", safetensors()),
        ("a.pdf", b"%PDF-1.7\n"),
        ("a.txt", b"words\n"),
        ("a.json", b"{}"),
        ("saved_model.pb", saved_model("MatMul")),
        ("a.pkl", pickle.dumps([1])),
        ("a.mp3", b"ID3\4" + bytes(80)),
        ("a.tflite", b"\x1c\0\0\0TFL3" + bytes(40)),
        ("a.csv", b"a,b\n1,2\n"),
    ):
        yield "archive behind", name, data + archive
        if name in ("a.png", "a.wav"):
            for more in (gzip.compress(b"x"), b"\x7fELF" + bytes(60), b"#!/bin/sh\nid\n", tarred({"a": b"x"})):
                yield "bytes behind", name, data + more
