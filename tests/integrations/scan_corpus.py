"""A corpus for the scanner, made anew in each run: files as folders of models hold them, and files that would run code.
`harmless` and `harmful` give (kind, name, bytes); both are the same in every run."""

from __future__ import annotations

import bz2
import gzip
import importlib
import inspect
import io
import json
import lzma
import pickle
import random
import re
import string
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from hostile_files import keras_file, layer, message, npy, onnx_file, safetensors, saved_model, zipped

from catalog_scan.formats import masked

Sample = tuple[str, str, bytes]
MODULES: list[str] = """
argparse ast asyncio base64 bisect calendar cmath cmd codecs collections colorsys concurrent.futures configparser
contextlib copy csv ctypes dataclasses datetime decimal difflib dis doctest email enum fractions functools gettext
glob graphlib heapq hmac html http.client imaplib inspect ipaddress itertools json keyword linecache locale logging
mailbox math mimetypes multiprocessing netrc numbers operator optparse os pathlib pdb pickletools platform plistlib
pprint profile queue random re sched secrets selectors shelve shlex smtplib socket socketserver sqlite3 ssl statistics
string struct subprocess symtable tarfile tempfile textwrap threading timeit token trace traceback types typing
unittest urllib.parse uuid venv warnings wave weakref xml.dom zipfile zlib
""".split()  # noqa: SIM905


def prose() -> list[str]:
    """Texts that people wrote: what the modules of the standard library say of themselves."""
    texts = [inspect.getdoc(importlib.import_module(name)) or "" for name in MODULES]
    texts += [inspect.getdoc(item) or "" for item in vars(inspect).values() if inspect.isroutine(item)]
    return [text + "\n" for text in texts if len(text) > 40][:150]  # as many in every version of Python


def words() -> list[str]:
    """Words in the order in which they come in these texts, each once."""
    return list(dict.fromkeys(re.findall(r"[A-Za-z]{1,16}", " ".join(prose()))))


# -- what is harmless --------------------------------------------------------------------------------------------------


def harmless() -> Iterator[Sample]:
    """Files that run nothing."""
    chance = random.Random(11)
    texts, vocabulary = prose(), words()
    for number, text in enumerate(texts):
        yield "prose", ("NOTES", "README.md", "LICENSE", "model_card.md", "log.txt", "notes")[number % 6], text.encode()
    for number in range(150):  # lists that begin with every kind of word
        part = vocabulary[number * 17 :][:300] or vocabulary
        yield (
            "vocabulary",
            ("vocab.txt", "labels.txt", "classes.names", "merges.txt")[number % 4],
            "\n".join(part).encode(),
        )
    for first in string.printable[:95]:
        for _ in range(2):
            yield "vocabulary", "vocab.txt", (first + "\n".join(chance.sample(vocabulary, 40)) + "\n").encode()
    for number in range(40):
        rows = "\n".join(",".join(f"{chance.gauss(0, 1):.6g}" for _ in range(6)) for _ in range(30))
        yield "table", ("data.csv", "data.tsv", "metrics.txt", "x.dat")[number % 4], f"a,b,c,d,e,f\n{rows}\n".encode()
    for text in (
        "café, naïve, Größe\n" * 20,
        "模型說明：用於分類。\n" * 20,
        "модель для классификации\n" * 20,
        "\ufeffdone\n",
    ):
        yield "other scripts", "README", text.encode()
        yield "other scripts", "README", text.encode("utf-16")
    yield "other scripts", "README", ("Die Größe der Schicht ist 3. " * 20).encode("latin-1")
    yield from _configs(chance)
    yield from _numbers(chance)
    yield from _archives()
    yield from _pictures()
    yield from _tensorflow()


def _configs(chance: random.Random) -> Iterator[Sample]:
    for number in range(30):
        config = {
            "model_type": "bert",
            "hidden_size": 64 * number,
            "architectures": ["BertModel"],
            "layers": list(range(number)),
            "max_tokens": 512,
            "torch_dtype": "float32",
            "id2label": {"0": "cat", "1": "dog"},
            "target": "loss",
            "type": "x",
        }
        yield (
            "json",
            ("config.json", "tokenizer_config.json", "hyperparameters.json")[number % 3],
            json.dumps(config).encode(),
        )
        lines = (
            f"lr: {0.1 / (number + 1)}\nmodel:\n  name: resnet{number}\n  layers: [1, 2]\nnotes: |\n  two\n  lines\n"
        )
        yield "yaml", ("config.yaml", "params.yml", "MLmodel", "conda.yaml")[number % 4], lines.encode()
        yield "toml", "pyproject.toml", f'[tool.x]\nname = "a{number}"\nvalues = [1, 2]\n'.encode()
        rows = [json.dumps({"text": f"sample {number}", "label": n}) for n in range(5)]
        yield "jsonl", "train.jsonl", "\n".join(rows).encode()
    for target in (
        "torch.nn.Linear",
        "torch.optim.AdamW",
        "torchvision.transforms.v2.Normalize",
        "keras.layers.Dense",
        "torch.optim.lr_scheduler.CosineAnnealingLR",
        "sklearn.linear_model.Ridge",
        "lightning.pytorch.callbacks.ModelCheckpoint",
    ):
        yield "hydra", "config.yaml", f"layer:\n  _target_: {target}\n  lr: 0.1\n".encode()
        yield "hydra", "config.json", json.dumps({"a": {"_target_": target}}).encode()
    template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + m['content'] }}{% endfor %}"
    yield "template", "tokenizer_config.json", json.dumps({"chat_template": template, "eos_token": "</s>"}).encode()
    yield "template", "chat_template.jinja", template.encode()
    yield "yaml", "train.yaml", b"a: &x {b: 1}\nc: *x\nd: !!str 5\ne: !!float 1\nwhen: 2024-01-01\n"
    yield (
        "json",
        "modules.json",
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]).encode(),
    )
    notebook = {"cells": [{"cell_type": "markdown", "source": ["# words"]}], "nbformat": 4, "metadata": {}}
    yield "notebook", "notes.ipynb", json.dumps(notebook).encode()
    yield "gitattributes", ".gitattributes", b"*.bin filter=lfs diff=lfs merge=lfs -text\n"
    yield "requirements", "requirements.txt", b"numpy==2.1.0\ntorch>=2.4\n"
    yield "svg", "plot.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0L1 1"/></svg>\n'
    yield "lightgbm", "model.txt", b"tree\nversion=v4\nnum_class=1\n\nTree=0\nnum_leaves=2\nend of trees\n"
    yield (
        "xgboost",
        "model.json",
        b'{"learner":{"attributes":{},"objective":{"name":"reg:squarederror"}},"version":[2,1,0]}',
    )


def _numbers(chance: random.Random) -> Iterator[Sample]:
    kinds = [np.float32, np.float64, np.int64, np.int8, np.bool_, np.complex64, np.float16, np.uint16]
    generator = np.random.default_rng(3)
    for number, kind in enumerate(kinds * 6):
        array = (generator.normal(size=(number + 1, 3)) * 10).astype(kind)
        yield "npy", "w.npy", npy(array)
        buffer = io.BytesIO()
        (np.savez if number % 2 else np.savez_compressed)(buffer, a=array, b=array[0])
        yield "npz", "w.npz", buffer.getvalue()
        yield "pickle of arrays", "w.pkl", pickle.dumps({"a": array, "n": number, "o": OrderedDict(x=1.5)}, number % 6)
    for size in range(4, 200, 8):
        yield "safetensors", "model.safetensors", safetensors(generator.bytes(size * 4), size * 4)
    state = pickle.dumps(OrderedDict(a=1, b=[1, 2]), 2)
    yield (
        "torch",
        "model.pt",
        zipped({"archive/data.pkl": state, "archive/version": b"3\n", "archive/data/0": generator.bytes(400)}),
    )
    yield "onnx", "net.onnx", message((1, 8), (7, message((1, message((4, "Relu"))))), (8, message((2, 20))))
    yield "ubjson", "model.ubj", b"{L\0\0\0\0\0\0\0\x07learner{}"


def _archives() -> Iterator[Sample]:
    text = prose()[0].encode()
    for name, pack in (("a.csv.gz", gzip.compress), ("a.csv.bz2", bz2.compress), ("a.csv.xz", lzma.compress)):
        yield "packed", name, pack(b"a,b\n1,2\n" * 50)
        yield "packed", name, pack(npy(np.arange(50.0)))
    yield "zip", "data.zip", zipped({"a.csv": b"a,b\n1,2\n", "b/README.md": text}, zipfile.ZIP_DEFLATED)
    yield "tar", "data.tar", tarred({"a.csv": b"a,b\n1,2\n", "b/README.md": text})
    yield "tar", "data.tar.gz", gzip.compress(tarred({"a.csv": b"a,b\n", "w.npy": npy(np.ones(3))}))
    for config in (
        layer("Dense", "keras.layers", units=3),
        layer("Mine", None, "Our>Mine"),
        function("keras.activations", "relu"),
        layer("Functional", "keras.src.models.functional"),
        layer("GlorotUniform", "keras.initializers"),
        layer("DTypePolicy", "keras"),
        layer("TextVectorization", "keras.layers", vocabulary=["a", "b"]),
    ):
        yield "keras", "m.keras", keras_file(config)
    for module, name, loader in (
        ("sklearn.linear_model._base", "LinearRegression", "ObjectNode"),
        ("builtins", "dict", "DictNode"),
        ("numpy", "ndarray", "NdArrayNode"),
        ("numpy", "log1p", "FunctionNode"),
        ("numpy", "float64", "TypeNode"),
        ("builtins", "list", "ListNode"),
        ("builtins", "str", "JsonNode"),
        ("collections", "OrderedDict", "DictNode"),
        ("sklearn.metrics._regression", "r2_score", "FunctionNode"),
        ("builtins", "float", "TypeNode"),
    ):
        yield "skops", "m.skops", skops(module, name, loader)


def _pictures() -> Iterator[Sample]:
    generator = np.random.default_rng(5)
    heads = {
        "a.png": b"\x89PNG\r\n\x1a\n",
        "a.jpg": b"\xff\xd8\xff\xe0",
        "a.gif": b"GIF89a",
        "a.wav": b"RIFF\0\0\1\0WAVEfmt ",
        "a.webp": b"RIFF\0\0\1\0WEBPVP8 ",
        "a.gguf": b"GGUF\3\0\0\0",
        "a.tflite": b"\x1c\0\0\0TFL3",
        "a.sqlite": b"SQLite format 3\0",
        "a.arrow": b"ARROW1\0\0",
        "a.pdf": b"%PDF-1.7\n",
        "a.flac": b"fLaC",
        "a.ogg": b"OggS",
        "a.tif": b"II*\0",
        "a.mp4": b"\0\0\0\x18ftypmp42",
        "a.fits": b"SIMPLE  =                    T",
        "a.root": b"root\0\0\xfb\xf4\0\0\0\x64",
    }
    for name, head in heads.items():
        for size in (40, 700, 5000):
            yield "picture and the like", name, head + generator.bytes(size)
    yield "parquet", "a.parquet", b"PAR1" + generator.bytes(200) + b"PAR1"
    bitmap = generator.bytes(300)
    yield "bitmap", "a.bmp", b"BM" + (len(bitmap) + 6).to_bytes(4, "little") + bitmap


def _tensorflow() -> Iterator[Sample]:
    generator = np.random.default_rng(6)
    for number in range(20):
        hashes = b"".join(message((field, int(generator.integers(1, 1 << 62)))) for field in (1, 2, 3, 4, 5))
        yield (
            "fingerprint",
            "fingerprint.pb",
            hashes + message((6, message((1, 1)))) + (message((7, b"%032x" % number)) if number % 2 else b""),
        )
    yield "savedmodel", "saved_model.pb", saved_model("MatMul", "Relu")
    pieces = b"".join(message((1, message((1, word.encode())) + b"\x15" + b"\0\0\x80\xbf")) for word in words()[:50])
    yield "sentencepiece", "spiece.model", pieces
    node = (
        message((2, 1))
        + message((3, b"root"))
        + message((4, b"_tf_keras_layer"))
        + message((5, b'{"class_name": "Dense"}'))
    )
    yield "keras metadata", "keras_metadata.pb", message((1, node))
    record = b"".join(frame(generator.bytes(30)) for _ in range(5))
    yield "tfrecord", "events.out.tfevents.17.host", record
    yield "index", "ckpt-1.index", generator.bytes(40) + bytes.fromhex("57fb808b247547db")


def function(module: str, name: str) -> dict[str, Any]:
    """A function in a configuration of Keras."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def frame(data: bytes) -> bytes:
    """A record of TensorFlow."""
    size = len(data).to_bytes(8, "little")
    return size + masked(size).to_bytes(4, "little") + data + masked(data).to_bytes(4, "little")


def skops(module: str, name: str, loader: str, **more: Any) -> bytes:
    """An archive of skops whose tree has one such node."""
    node = {"__class__": name, "__module__": module, "__loader__": loader, "content": {}, **more}
    return zipped(
        {
            "schema.json": json.dumps(
                {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {"a": node}}
            ).encode()
        }
    )


def tarred(members: dict[str, bytes], link: str | None = None) -> bytes:
    """A tar of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return buffer.getvalue()


# -- what is harmful ---------------------------------------------------------------------------------------------------


class Calls:
    """Calls a function by its name when it is unpickled."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.function, self.arguments = getattr(importlib.import_module(module), name), arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


CALLS = [
    ("os", "system", "id"),
    ("builtins", "eval", "1"),
    ("builtins", "exec", "1"),
    ("subprocess", "Popen", ["id"]),
    ("runpy", "run_path", "x"),
    ("importlib", "import_module", "x"),
    ("builtins", "__import__", "os"),
    ("webbrowser", "open", "x"),
    ("socket", "create_connection", ("h", 1)),
    ("pickle", "loads", b"x"),
    ("shutil", "rmtree", "/x"),
    ("builtins", "open", "x", "w"),
    ("ctypes", "CDLL", "x"),
    ("pty", "spawn", "x"),
    ("builtins", "compile", "1", "x", "exec"),
    ("timeit", "timeit", "1"),
    ("operator", "attrgetter", "x"),
    ("functools", "partial", print),
]


def harmful() -> Iterator[Sample]:
    """Files that would run code, or lead a reader elsewhere."""
    yield from _pickles()
    yield from _named()
    yield from _graphs()
    for name in (
        "score.py",
        "setup.py",
        "code.pyc",
        "lib.so",
        "run.sh",
        "run.bat",
        "x.ps1",
        "x.js",
        "x.pl",
        "x.rb",
        "x.jar",
        "a.lua",
    ):
        yield "source", name, b"something(1)\n" if not name.endswith(("pyc", "so", "jar")) else bytes(range(1, 200))
    for head in (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n", b"\0asm"):
        yield "native code", "weights.bin", head + bytes(200)
    for line in ("#!/bin/sh", "#!/usr/bin/env python3", "#!/usr/bin/perl"):
        yield "script", "weights", line.encode() + b"\nrm -rf /\n"
    yield "site", "x.pth", b"import os; os.system('id')\n"
    yield "browser", "a.svg", b"<svg><script>fetch('/x')</script></svg>"
    yield "browser", "a.svg", b'<svg onload="x()"></svg>'
    yield "pdf", "a.pdf", b"%PDF-1.7\n1 0 obj <</OpenAction <</S /JavaScript /JS (x)>> >>\n"
    evil = pickle.dumps(Calls("os", "system", "id"))
    for name in ("../x", "/etc/x", "a/../../x", "a\\x"):
        yield "path", "a.zip", zipped({name: b"x"})
        yield "path", "a.tar", tarred({name: b"x"})
    yield "link", "a.tar", tarred({"a": b"x"}, "/etc/passwd")
    yield "hidden", "a.png", b"\x89PNG\r\n\x1a\n" + bytes(20) + zipped({"a": evil})
    yield "bomb", "a.gz", gzip.compress(bytes(210 << 20), 1)
    yield "lie", "m.safetensors", safetensors(bytes(16), 4096)


def _pickles() -> Iterator[Sample]:
    for module, name, *arguments in CALLS:
        for protocol in range(6):
            evil = pickle.dumps(Calls(module, name, *arguments), protocol)
            yield (
                "pickle",
                ("model.pkl", "weights.npy", "vocab.txt", "README.md", "a.png", "model.safetensors")[protocol],
                evil,
            )
            yield "pickle cut short", "model.bin", evil[:-1]
            yield (
                "pickle beside arrays",
                "model.pt",
                pickle.dumps([np.ones(3), Calls(module, name, *arguments)], protocol),
            )
        evil = pickle.dumps(Calls(module, name, *arguments), 2)
        yield "torch", "model.pt", zipped({"archive/data.pkl": evil, "archive/version": b"3"})
        yield "torch", "renamed.onnx", zipped({"archive/data.pkl": evil, "archive/version": b"3"}, zipfile.ZIP_DEFLATED)
        yield "npy", "w.npy", npy(np.array([Calls(module, name, *arguments)], dtype=object))
        yield "npz", "w.npz", zipped({"a.npy": npy(np.array([Calls(module, name, *arguments)], dtype=object))})
        for pack in (gzip.compress, bz2.compress, lzma.compress):
            yield "packed", "model.joblib", pack(evil)
        yield "tar", "model.tar", tarred({"a/model.pkl": evil})
        yield "tar", "model.tgz", gzip.compress(tarred({"a/model.pkl": evil}))
        yield "nested", "a.zip", zipped({"b.zip": zipped({"model.pkl": evil})})
        yield "second", "a.pkl", pickle.dumps([1]) + evil
    for module, name in (
        ("os", "system"),
        ("posix", "system"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("nt", "system"),
    ):
        yield "text", "notes.txt", f"c{module}\n{name}\n(S'id'\ntR.".encode()
        yield "text", "notes.txt", f"(S'id'\ni{module}\n{name}\n.".encode()
        yield "text", "vocab.txt", f"I1\n0c{module}\n{name}\n(S'id'\ntR".encode()
        yield "text", "vocab.txt", f"Vwords words\n0c{module}\n{name}\n(Vid\ntR and more words\n".encode()
        yield "text", "labels.txt", f"(c{module}\n{name}\nS'id'\no.".encode()


def _named() -> Iterator[Sample]:
    calls = [f"{module}.{name}" for module, name, *_ in CALLS]
    for target in [
        *calls,
        "torch.load",
        "torch.hub.load",
        "mypackage.models.Net",
        "numpy.load",
        "hydra.utils.call",
        "sklearn.datasets.fetch_openml",
        "torch.utils.cpp_extension.load",
        "keras.utils.get_file",
        "keras.models.load_model",
        "src.train:main",
        "eval",
    ]:
        for key in ("_target_", "class_path", "_component_"):
            yield "hydra", "config.yaml", f"a:\n  - b: 1\n    {key}: {target}\n".encode()
            yield "hydra", "config", json.dumps({"a": [{"b": {key: target}}]}).encode()
    for call in calls:
        for tag in ("apply", "new"):
            yield "yaml", "config.yaml", f"a: !!python/object/{tag}:{call} [x]\n".encode()
        yield "yaml", "config", f"a: !!python/name:{call}\n".encode()
        yield "yaml", "c.yml", f"%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!object/apply:{call} [x]\n".encode()
        yield "yaml", "c.yaml", f"a: !<tag:yaml.org,2002:python/object/apply:{call}> [x]\n".encode()
    yield "yaml", "c.yaml", b"a: !!python/module:os\n"
    yield "yaml", "c.yaml", b"a: [1\nb: !!python/object/apply:os.system [id]\n"
    for name in ("AutoModel", "AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        yield "auto_map", "config.json", json.dumps({"model_type": "x", "auto_map": {name: "modeling_x.Net"}}).encode()
        yield "auto_map", "tokenizer_config.json", json.dumps({"auto_map": {name: ["tok_x.Tok", None]}}).encode()
    for inside in (
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__init__.__globals__['os'].system('id') }}",
        "{{ cycler|attr('__init__') }}",
    ):
        yield "template", "tokenizer_config.json", json.dumps({"chat_template": inside}).encode()
        yield "template", "chat_template.jinja", inside.encode()
        yield "template", "m.gguf", b"GGUF\3\0\0\0" + bytes(20) + b"tokenizer.chat_template" + inside.encode()
    for version in (3, 4):
        notebook = {"cells": [{"cell_type": "code", "source": ["import os"]}], "nbformat": version, "metadata": {}}
        yield "notebook", "train.ipynb", json.dumps(notebook).encode()
        yield "notebook", "notes", json.dumps(notebook, indent=1).encode()
    yield "mlflow", "MLmodel", b"flavors:\n  python_function:\n    loader_module: evil.module\n"
    yield "hub", "modules.json", json.dumps([{"idx": 0, "name": "0", "path": "", "type": "custom_x.Net"}]).encode()
    for module, name, loader in (
        ("builtins", "eval", "FunctionNode"),
        ("builtins", "exec", "FunctionNode"),
        ("builtins", "open", "FunctionNode"),
        ("os", "system", "FunctionNode"),
        ("builtins", "eval", "TypeNode"),
        ("builtins", "getattr", "ObjectNode"),
        ("numpy", "load", "FunctionNode"),
        ("numpy", "fromfile", "FunctionNode"),
        ("functools", "partial", "PartialNode"),
        ("operator", "methodcaller", "OperatorFuncNode"),
        ("subprocess", "Popen", "ObjectNode"),
        ("sklearn.datasets", "fetch_openml", "FunctionNode"),
        ("collections", "namedtuple", "FunctionNode"),
        ("scipy.io", "loadmat", "FunctionNode"),
        ("builtins", "print", "MethodNode"),
        ("x", "Y", "ReduceNode"),
        ("x", "Y", "ConstructorFromReduceNode"),
        ("evil", "Net", "ObjectNode"),
    ):
        yield "skops", "m.skops", skops(module, name, loader)


def _graphs() -> Iterator[Sample]:
    for config in (
        layer("Lambda"),
        layer("__lambda__"),
        layer("Bidirectional", layer=layer("Lambda")),
        layer("TFSMLayer", "keras.layers"),
        function("keras.utils", "get_file"),
        layer("get_file", "keras.utils"),
        function("keras.src.utils.file_utils", "get_file"),
        function("keras.saving", "load_model"),
        function("keras.config", "enable_unsafe_deserialization"),
        function("builtins", "eval"),
        function("builtins", "exec"),
        layer("eval", "builtins"),
        layer("system", "os"),
        function("subprocess", "call"),
        layer("TorchModuleWrapper", "keras.layers"),
        layer("JaxLayer", "keras.layers"),
        function("keras.applications", "VGG16"),
        layer("VGG16", "keras.applications.vgg16"),
        layer("Net", "mypackage"),
        layer("TextVectorization", "keras.layers", vocabulary="/etc/passwd"),
        function("tensorflow.io", "read_file"),
        function("keras.datasets.mnist", "load_data"),
        function("keras.export", "ExportArchive"),
    ):
        yield "keras", "m.keras", keras_file(config)
        yield "keras", "config.json", json.dumps(config).encode()
        if config["class_name"] != "Net":
            yield (
                "keras",
                "keras_metadata.pb",
                message((1, message((2, 1)) + message((5, json.dumps(config).encode())))),
            )
    for operator in (
        "ReadFile",
        "WriteFile",
        "PyFunc",
        "EagerPyFunc",
        "LoadLibrary",
        "MatchingFiles",
        "RestoreV2X",
        "PrintV2",
        "Save",
    ):
        yield "savedmodel", "saved_model.pb", saved_model("MatMul", operator)
    for domain in ("evil.corp", "com.x", "ai.onnx.contrib", "local"):
        yield "onnx", "net.onnx", onnx_file("w.bin", "Run", domain)
    for location in ("../w.bin", "/etc/passwd", "a/../../w"):
        yield "onnx", "net.onnx", onnx_file(location)
    for target in (
        "os.system",
        "torch.ops.evil.run",
        "builtins.eval",
        "torch.ops.aten.from_file.default",
        "torch.load",
    ):
        graph = {"graph_module": {"graph": {"nodes": [{"target": target, "inputs": [], "outputs": []}]}}}
        yield (
            "pt2",
            "model.pt2",
            zipped({"m/models/model.json": json.dumps(graph).encode(), "m/archive_format": b"pt2"}),
        )
    yield "pt2", "model.pt2", zipped({"m/models/model.json": json.dumps({"guards_code": ["eval('x')"]}).encode()})
