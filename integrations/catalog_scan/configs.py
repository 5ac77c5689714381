"""Texts that make some program import, call or evaluate what they name: configurations of Keras, skops, graphs of
torch, notebooks, YAML, Hydra and its like, the Hugging Face Hub, chat templates."""

from __future__ import annotations

import builtins
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from catalog_scan import markup
from catalog_torch.operations import listed

Problems = Iterator[tuple[str, str]]
MAX_YAML = 16 << 20  # bytes that are parsed; YAML beyond is a finding
SOURCE = (
    ".py", ".pyc", ".pyx", ".pyw", ".so", ".sh", ".bash", ".zsh", ".bat", ".cmd", ".ps1", ".js", ".mjs", ".rb", ".pl",
    ".lua", ".php", ".jl", ".r", ".jar", ".class",
)  # fmt: skip
_YAML = (".yaml", ".yml", "mlmodel")


def text(data: str, name: str) -> Problems:
    """What is wrong with a text, whatever it is called."""
    lower = name.lower()
    if data.startswith("#!"):
        yield "code", "it is a script"
    if lower.endswith(".pth") and re.search(r"^import[ \t]", data, re.M):
        yield "code", "Python runs its lines that begin with import when it starts"
    if re.search(r"^\[Desktop Entry\]", data, re.M) and re.search(r"^Exec[ \t]*=", data, re.M):
        yield "code", "a desktop would run its command"
    yield from markup.text(data, lower)
    if lower.endswith(".toml") or re.search(r"^[ \t]*[\"']?(_target_|class_path)[\"']?[ \t]*=", data, re.M):
        yield from _toml(data)
    if data.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        try:
            value = json.loads(data.removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            found, all_of_it = _lines(data)
            if all_of_it or lower.endswith((".jsonl", ".ndjson")):  # many a data set called .json has a value a line
                yield from found
                return
            if lower.endswith((".json", ".ipynb")):
                yield "cannot read", "it is no JSON"
                return
        else:
            yield from dict.fromkeys(tree(value))
            return
    if lower.endswith(_YAML) or "!!python/" in data or "2002:python/" in data or "_target_" in data:
        yield from dict.fromkeys(_yaml(data, lower.endswith(_YAML)))


def _toml(data: str) -> Problems:
    """The same keys as in JSON; and what a program that installs packages would import."""
    try:
        value = tomllib.loads(data.removeprefix("\ufeff").replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError):
        if re.search(r"_target_|class_path", data):
            yield "cannot read", "it is no TOML"
        return
    yield from dict.fromkeys(tree(value))
    build = value.get("build-system")
    if isinstance(build, dict) and "backend-path" in build:
        yield "code", "pip would import what builds it from beside it"


def _lines(data: str) -> tuple[dict[tuple[str, str], None], bool]:
    """What is wrong with a text that has a value of JSON on each line, and whether each line is one."""
    found: dict[tuple[str, str], None] = {}
    broken = False
    for line in data.split("\n"):  # not at the ends of lines that only Unicode knows, which a value may hold
        try:
            found |= dict.fromkeys(tree(json.loads(line))) if line.strip() else {}
        except (ValueError, RecursionError):
            broken = True
    return found, not broken


def _yaml(data: str, by_name: bool) -> Problems:
    """Tags that make Python objects, and the same keys as in JSON. Nothing is made: only nodes are looked at."""
    import yaml

    from catalog_scan.nodes import TooDeep, documents

    if len(data) > MAX_YAML:
        yield "cannot read", f"it is YAML of more than {MAX_YAML:,} characters"
        return
    try:
        for document in documents(data):
            yield from _nodes(document)
    except TooDeep as exc:
        yield "cannot read", str(exc)
    except (yaml.YAMLError, RecursionError, ValueError) as exc:  # a reader runs the documents before it
        if by_name and re.search(r"!!python/|2002:python/", data):
            yield "code", "it holds a tag of YAML that makes a Python object"
        elif by_name and re.search(r"_target_|loader_module|class_path", data):
            yield "cannot read", f"it is no YAML: {' '.join(str(exc).split())[:120]}"


def _nodes(document: Any) -> Problems:
    import yaml

    waiting, seen = [document], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if str(node.tag).startswith("tag:yaml.org,2002:python/"):
            yield "code", f"a tag of YAML makes a Python object: {node.tag[18:98]}"
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if isinstance(node, yaml.MappingNode):
            item = {}
            for key, value in node.value:
                waiting += (key, value)
                plain = isinstance(value, yaml.ScalarNode)
                item[str(key.value) if isinstance(key, yaml.ScalarNode) else ""] = value.value if plain else [value.tag]
            yield from _named(item)


def tree(value: Any) -> Problems:
    """Code in configurations of Keras, calls in archives of torch, strange types in trees of skops, and what others
    would import by a name."""
    if isinstance(value, dict) and isinstance(value.get("cells"), list) and "nbformat" in value:
        kinds = [cell.get("cell_type") for cell in value["cells"] if isinstance(cell, dict)]
        if "code" in kinds or not kinds:
            yield "code", f"it is a notebook with {kinds.count('code')} cells of code"
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        if not isinstance(item, dict):
            continue
        waiting += item.values()
        yield from _layer(item)
        yield from _named(item)
        if item.get("use_pickle") is True:
            yield "pickle", "it says that its weights are pickled"
        for key in ("target", "as_operator"):  # of a graph of torch.export
            if isinstance(item.get(key), str) and ("inputs" in item or key != "target") and not listed(item[key]):
                yield "operator", f"{item[key][:100]} is not on the list"
        if item.get("guards_code"):
            yield "code", "it holds Python code that torch would evaluate"
        if "__loader__" in item:
            yield from _skops(item)


# -- what a name calls -------------------------------------------------------------------------------------------------

_TARGETS = ("_target_", "_component_", "class_path", "__target__", "_cls_", "_fn_", "py_object", "$target")
# Classes that compute, by the part of a library that has them: those whose classes read files, load weights, run
# programs or take functions are left out. A path of lower-case parts and, at its end, one class.
_COMPUTES = re.compile(
    r"(torch\.(nn|optim)|torchvision\.(transforms|models|ops)|torchmetrics(?!\.functional)"
    r"|torchaudio\.transforms|keras\.(layers|optimizers|losses|metrics|regularizers|initializers)"
    r"|sklearn\.(?!datasets|utils|externals|_)\w+|lightning\.pytorch|pytorch_lightning|optax"
    r"|flax\.linen|timm\.(loss|optim|scheduler))(\.[a-z][a-z0-9_]*)*\.[A-Z][A-Za-z0-9]*"
)
_LIGHTNING = re.compile(r"(lightning\.pytorch|pytorch_lightning)\.(?P<rest>.*)")
_OF_LIGHTNING = re.compile(
    r"((trainer\.)?(trainer\.)?Trainer|callbacks(\.[a-z_]+)*\.(EarlyStopping|ModelCheckpoint|LearningRateMonitor|\w*ProgressBar"
    r"|RichModelSummary|ModelSummary|GradientAccumulationScheduler|StochasticWeightAveraging|Timer|DeviceStatsMonitor)"
    r"|loggers(\.[a-z_]+)*\.(CSVLogger|TensorBoardLogger|WandbLogger|MLFlowLogger)"
    r"|strategies(\.[a-z_]+)*\.(DDPStrategy|FSDPStrategy|SingleDeviceStrategy))"
)
# Keras layers and sklearn's classes that run what they are given: code, another framework's model, files.
_RUNS = ("Lambda", "FunctionTransformer", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "TFLayer")

# Metrics that fetch or load a network when they are made, from a file or address that they are given.
_LOADS = frozenset(
    """ARNIQA BERTScore CLIPImageQualityAssessment CLIPScore CocoBackend DeepImageStructureAndTextureSimilarity
    DeepNoiseSuppressionMeanOpinionScore FrechetInceptionDistance InceptionScore InfoLM KernelInceptionDistance
    LearnedPerceptualImagePatchSimilarity MemorizationInformedFrechetInceptionDistance NoTrainInceptionV3
    NonIntrusiveSpeechQualityAssessment PerceptualPathLength ROUGEScore""".split()  # noqa: SIM905  # a table to read
)
_PLACES = ("feature_extractor_weights_path", "filepath", "idf_weights", "model_name_or_path", "vocabulary")


def computes(target: str) -> bool:
    """Whether a name is a class of a library that computes, and neither opens files nor runs what it is given."""
    if _COMPUTES.fullmatch(target) is None or target.rpartition(".")[2] in (*_RUNS, *_LOADS):
        return False
    lightning = _LIGHTNING.fullmatch(target)
    return lightning is None or _OF_LIGHTNING.fullmatch(lightning["rest"]) is not None


def _named(item: Mapping[str, Any]) -> Problems:
    """Keys under which programs take a name, import it and call it."""
    for key in _TARGETS:
        target = item.get(key)
        if isinstance(target, str) and not computes(target) and re.search(r"[.:]", target):
            yield "call", f"{key} would import and call {target[:100]}"
        elif isinstance(target, str) and hasattr(builtins, target):
            yield "call", f"{key} would call {target[:100]}"
        elif isinstance(target, str) and "." in target:
            for place in _PLACES:
                if isinstance(item.get(place), str):
                    yield "path", f"{target[:80]} would read {item[place][:100]!r}"
    for key in ("auto_map", "custom_pipelines", "custom_generate"):
        if item.get(key):
            yield "code", f"{key} names code beside the model, which transformers would import"
    module = item.get("loader_module")
    if isinstance(module, str) and not module.startswith("mlflow."):
        yield "code", f"MLflow would import {module[:100]}"
    kind = item.get("type")
    hub = {"idx", "name", "path", "type"} <= item.keys() and isinstance(kind, str) and "." in kind
    if hub and not str(kind).startswith("sentence_transformers."):
        yield "code", f"sentence-transformers would import {str(kind)[:100]}"
    for key, value in item.items():
        if isinstance(key, str) and "template" in key.lower():
            yield from _templates(value)


def _templates(value: Any) -> Problems:
    """A template, or several in lists and mappings."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield from markup.template(item)
        elif isinstance(item, (list, dict)):
            waiting += item.values() if isinstance(item, dict) else item


# -- skops -------------------------------------------------------------------------------------------------------------

_CALLS = ("ConstructorFromReduceNode", "MethodNode", "OperatorFuncNode", "PartialNode", "ReduceNode")
_SKOPS = ("builtins", "collections", "lightgbm", "numpy", "scipy", "sklearn", "xgboost")
_TYPES = frozenset(
    ["NoneType", "bool", "bytearray", "bytes", "complex", "dict", "ellipsis", "float", "frozenset", "int", "list",
     "range", "set", "slice", "str", "tuple", "type"]
)  # fmt: skip
_COLLECTIONS = frozenset(["OrderedDict", "Counter", "defaultdict", "deque"])
_FUNCTIONS = re.compile(
    r"(numpy(\.\w+)*|scipy\.special(\.\w+)*)\.(abs|absolute|add|arcsin\w*|arctan\w*|cbrt|ceil|clip|cos|cosh|deg2rad|divide|exp"
    r"|exp2|expit|expm1|floor|identity|isfinite|isnan|log|log10|log1p|log2|logit|max|maximum|mean|median|min|minimum|multiply"
    r"|nan_to_num|negative|power|rad2deg|reciprocal|round|sign|sin|sinh|sqrt|square|std|subtract|sum|tan|tanh|var)"
    r"|sklearn\.(metrics|feature_selection|preprocessing|kernel_approximation|decomposition|neighbors|cluster|linear_model"
    r"|svm|tree|ensemble|model_selection|impute|_loss|base|gaussian_process)(\.\w+)*\.[a-z_]\w*"
)


def _skops(item: Mapping[str, Any]) -> Problems:
    """A node of a tree of skops."""
    module, name, loader = str(item.get("__module__")), str(item.get("__class__")), item["__loader__"]
    top = module.partition(".")[0]
    shown = f"{module[:80]}.{name[:80]}"
    if loader in _CALLS:
        yield "call", f"it would call something by a {loader}"
    elif top not in _SKOPS:
        yield "type", f"it would make a {shown}"
    elif loader == "FunctionNode" and _FUNCTIONS.fullmatch(f"{module}.{name}") is None:
        yield "call", f"it names the function {shown}"
    elif (top == "builtins" and name not in _TYPES) or (top == "collections" and name not in _COLLECTIONS):
        yield "call", f"it names {shown}"


# -- Keras -------------------------------------------------------------------------------------------------------------

_VALUES = ("__tuple__", "__bytes__", "__slice__", "__ellipsis__", "__keras_tensor__", "__tensor__", "__numpy__")
_FOREIGN = ("FlaxLayer", "JaxLayer", "TFLayer", "TFSMLayer", "TorchModuleWrapper")
# The parts of Keras whose classes make up models; not utils, saving, export, datasets, applications, config, backend.
_KERAS = re.compile(
    r"(tf_)?keras(\.(api|src|_tf_keras|engine))*(\.(layers|models|optimizers|losses|metrics|initializers|regularizers"
    r"|constraints|activations|dtype_policies|quantizers|random|ops|engine|feature_column|mixed_precision|distillers)(\.\w+)*)?"
)
_KERAS_FUNCTIONS = re.compile(
    r"(tf_)?keras(\.(api|src|_tf_keras))*\.(activations|losses|metrics|initializers|regularizers|constraints|ops)(\.\w+)*"
)


def _layer(item: dict[str, Any]) -> Problems:
    """An object of a configuration of Keras."""
    name, module, config = item.get("class_name"), item.get("module"), item.get("config")
    if not isinstance(name, str):
        return
    if name in ("Lambda", "TFOpLambda") or (name.startswith("__") and name not in _VALUES):
        yield "code", f"a layer of Keras holds Python code ({name[:80]})"
    elif name in _FOREIGN:
        yield "code", f"a layer of Keras runs what another framework has stored ({name})"
    elif isinstance(module, str):
        yield from _imported(name, module, config)
    if isinstance(config, dict):
        for key in ("filepath", "idf_weights", "vocabulary"):
            if isinstance(config.get(key), str):
                yield "path", f"a layer of Keras reads the file {config[key][:100]!r}"


def _imported(name: str, module: str, config: Any) -> Problems:
    """What Keras would import, by the module that stands there."""
    top, function = module.partition(".")[0], name == "function"
    called = str(config if function else name)[:80]
    if top not in ("builtins", "keras", "tf_keras"):
        yield "type", f"Keras would import {module[:80]}.{name[:80]}"
    elif top == "builtins":
        if called not in _TYPES and hasattr(builtins, called):
            yield "code", f"Keras would call {called}"
    elif not (_KERAS_FUNCTIONS if function else _KERAS).fullmatch(module):
        yield "code", f"Keras would call {module[:80]}.{called}"


def keras_metadata(texts: Sequence[str]) -> Problems:
    """The JSON texts of `keras_metadata.pb`, beside a SavedModel of Keras 2."""
    for told in texts:
        try:
            yield from tree(json.loads(told))
        except (ValueError, RecursionError):
            yield "cannot read", "its JSON is broken"
