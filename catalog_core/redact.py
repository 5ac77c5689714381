"""Secrets, masked in one place for all: command lines, provenance, addresses, messages, what is shown.

A command line is turned round: its program and the arguments that are known to be harmless are kept (numbers, paths,
words behind options of known names), all else is masked. Texts that others wrote keep what is not known to be a secret:
users and passwords in addresses, values that are named like one, tokens of known shapes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from catalog_core.secret_shapes import KEYS, TOKENS, looks_secret, secret_name

MASK = "***"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Every repetition that a long word could restart at each of its letters is bounded: strangers' texts are scrubbed too.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,40}://[^\s'\"<>`\x00-\x1f]+")
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|x-[a-z-]{0,60}(?:key|token)|(?:set-)?cookie)(\s*:\s*)([^\n'\"]+)"
)
_BEARER = re.compile(r"\b([Bb]earer|[Bb]asic)(\s+)(?=[\w.~+/=-]*[\dA-Z=])[\w.~+/-]{8,}=*")
_PAIR = re.compile(
    r"(?<![\w.-])([\"']?)([\w.-]{1,200})\1(\s*=\s*|(?<=[\"'])\s*:\s*)"
    r"(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&\"'\]})]+)"
)
# `--password x` and `Password: x` in the middle of a text.
_OPTION_OF_TEXT = re.compile(r"(?<![\w-])(--?[A-Za-z][\w.-]{0,200})(\s+)(\"[^\"\n]*\"|'[^'\n]*'|[^\s'\"-]\S*)")
_TOLD = re.compile(
    r"(?i)\b(password|passwd|passphrase|client[ _-]secret|api[ _-]?key|access[ _-]token)(\s*:\s*)([^\s'\",;)}]+)"
)
_QUERY = _words("""
version versionid v rev revision ref branch tag format page path subset split download generation snapshot lang
start end from to limit offset size width height dataset model
""")
# What an OCI address that anybody may use, and the like, have in their paths.
_PATHS = re.compile(r"(/p/)[^/]{8,}(?=/n/)|(/services/)[^?#]+|(/bot)\d+:[\w-]+|(/api/webhooks/)[^?#]+")
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)([eE][+-]?\d+)?[kKMGT]?i?[bB]?|[+-]?(inf|nan)")
_OPTION = re.compile(r"--?[A-Za-z][\w.-]{0,60}")
_KEY = re.compile(r"[+~]{0,2}[A-Za-z_][\w./@-]{0,80}")
_SUFFIX = re.compile(
    r"\.(py|ya?ml|json|jsonl|toml|cfg|ini|txt|csv|tsv|parquet|h5|hdf5|npz?|npy|pth?|ckpt|onnx|keras|pb|safetensors|root|bin"
    r"|tar|gz|bz2|xz|zst|zip|ipynb|log|sh|md|arrow|feather|sqlite|db|xml|tfrecords?|pkl|pickle|joblib|model|gguf|png|jpe?g"
    r"|skops|ubj|pt2|hdf|fits|dat|out|lock|bundle)$",
    re.I,
)
# Options whose values may be words, by the last word of their names.
_NAMES = _words("""
lr rate batch size epoch epochs step steps iter iters seed gpu gpus device devices worker workers node nodes rank
world precision dtype model models arch architecture backbone dataset datasets data split fold folds task config cfg
optimizer optim scheduler schedule loss activation act dropout decay momentum beta gamma alpha eps epsilon warmup
layer layers hidden dim dims head heads depth width channels kernel stride padding resolution height length interval
log level output out outdir dir folder path file files input inputs experiment project run version tag tags mode
phase strategy backend format framework alias stage metric metrics monitor checkpoint ckpt resume weights pretrained
sampler norm init initializer policy objective objectives method kind type augment augmentation transform transforms
features classes class target targets label labels component entry point points example serializer catalog commit
sha digest revision rev branch logger verbosity nprocs threads accelerator plugins callbacks search tuner trainer
engine solver penalty criterion booster tree grow
""")
_WORDS = _words("""
train training eval evaluate test fit predict run save load list show search export import download upload infer
inference serve preprocess prepare generate sample validate finetune pretrain resume benchmark tune sweep init
compare convert copy sync verify true false none null yes no on off auto cpu cuda gpu tpu mps xla adam adamw sgd
rmsprop adagrad lbfgs nadam lion relu gelu tanh sigmoid softmax mse mae bce mnist cifar10 cifar100 imagenet coco
debug info warning error critical float64 float32 float16 bfloat16 fp16 fp32 bf16 int8 tf32 cosine linear constant
small medium large tiny base ddp fsdp deepspeed horovod torch tensorflow keras jax sklearn onnx
""")
_LETTERS = frozenset("bdefgijlmnoqrsvwxz")  # options of one letter that are seldom users, passwords or headers


def address(url: str) -> str:
    """A URL without user and password, and with values of its query and its path masked that may be secrets."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    if "@" not in place and re.search(r":(?!\d{1,5}$)", place) and "@" in path:  # a password that holds a slash
        cut = path.rindex("@") + 1
        place, path = place + slash + path[:cut] + path[cut:].partition("/")[0], path[cut:].partition("/")[2]
        slash = "/" if path else ""
    user, at, host = place.rpartition("@")
    if at and (scheme.lower() != "oci" or ":" in user):  # bucket@namespace is no user
        place = host
    tail = path
    split = re.search(r"[?#]", place + slash + path)
    whole = place + slash + path
    if split is None:
        tail, query, fragment = whole, "", ""
    else:
        tail, rest = whole[: split.start()], whole[split.start() :]
        query, _, fragment = rest.partition("#") if rest[0] == "?" else ("", "", rest[1:])
    tail = _PATHS.sub(lambda found: next(group for group in found.groups() if group) + MASK, tail)
    tail = "/".join(MASK if looks_secret(part) else part for part in tail.split("/"))
    if query:
        query = "?" + "&".join(_parameter(part, MASK) for part in query[1:].split("&"))
    if fragment:
        plain = all(_parameter(part, MASK) == part for part in fragment.split("&") if "=" in part)
        fragment = "#" + (fragment if plain and not looks_secret(fragment) and "@" not in fragment else MASK)
    return f"{scheme}://{tail}{query}{fragment}"


def _parameter(part: str, mask: str) -> str:
    name, equals, value = part.partition("=")
    if not equals:
        return mask if looks_secret(part) else part
    known = name.lower().replace("-", "").replace("_", "") in _QUERY or name in ("egg", "subdirectory")
    return part if known and not looks_secret(value) else f"{name}={mask}"


def text(value: str) -> str:
    """A text without its secrets: those in addresses, in headers, behind a telling name, and known tokens."""
    found = value
    if "://" in found:
        found = _ADDRESS.sub(lambda match: address(match[0]), found)
    if ":" in found:
        found = _HEADER.sub(lambda match: f"{match[1]}{match[2]}{MASK}", found)
    if "=" in found or ":" in found:
        found = _PAIR.sub(_pair, found)
        found = _TOLD.sub(lambda match: f"{match[1]}{match[2]}{MASK}", found)
    if " -" in found or found.startswith("-"):
        found = _OPTION_OF_TEXT.sub(lambda m: f"{m[1]}{m[2]}{MASK}" if secret_name(m[1]) else m[0], found)
    if "earer " in found or "asic " in found:
        found = _BEARER.sub(lambda match: f"{match[1]}{match[2]}{MASK}", found)
    return TOKENS.sub(MASK, found)


def _pair(match: re.Match[str]) -> str:
    if not secret_name(match[2]) or match[2].lower() in KEYS or match[4][:2] in ("==", "<="):
        return match[0]
    quote = match[4][0] if match[4][0] in "\"'" else ""
    return match[0][: match.start(4) - match.start(0)] + f"{quote}{MASK}{quote}"


def tree(value: Any, name: str = "") -> Any:
    """JSON values of any depth without their secrets, by the names of keys and by shapes; a list called `command` or
    `argv` is taken for a command line."""
    if isinstance(value, Mapping):
        inner = name if secret_name(name) else ""
        for key in ("key", "name"):  # trackers keep lists of such pairs
            if isinstance(value.get(key), str) and "value" in value and secret_name(value[key]):
                value = {**value, "value": MASK}
        pair = {"key", "value"} <= value.keys() and isinstance(value["key"], str)  # there, `key` is a name
        return {
            key: text(item) if pair and key == "key" else tree(item, inner or str(key)) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        if name.rpartition(".")[2] in ("command", "argv") and value and all(isinstance(item, str) for item in value):
            return [value[0], *command(list(value[1:]))]
        return [tree(item, name) for item in value]
    if secret_name(name) and value is not None and not isinstance(value, bool) and value != "":
        return MASK
    return text(value) if isinstance(value, str) else value


def command(arguments: list[str]) -> list[str]:
    """The arguments of a program: those that are known to be harmless, and `***` for the others. Options keep their
    names."""
    result: list[str] = []
    waiting: str | None = None  # the option that the next argument may belong to
    for argument in arguments:
        is_option = len(argument) > 1 and argument[0] == "-" and _NUMBER.fullmatch(argument) is None
        if waiting is not None and not is_option:
            result.append(_shown(waiting, argument))
            waiting = None
            continue
        if waiting is not None and secret_name(waiting) and _last(argument) not in _NAMES and "=" not in argument:
            result.append(MASK)  # a password may begin with a hyphen
            waiting = None
            continue
        waiting = None
        name, equals, value = argument.partition("=")
        if argument == "--":
            result.append(argument)
        elif is_option:
            if _OPTION.fullmatch(name) is None or looks_secret(name):
                result.append(MASK)
            elif not name.startswith("--") and not _single(name):  # a value that hangs on its letter: -psecret
                result.append(name[:2] + MASK)
            elif equals:
                result.append(f"{name}={_shown(name, value)}")
            else:
                result.append(name)
                waiting = name
        elif equals and _KEY.fullmatch(name) and not looks_secret(name):
            result.append(f"{name}={_shown(name, value)}")
        else:
            result.append(_shown("", argument))
    return result


def _single(name: str) -> bool:
    """Whether an option behind one hyphen is a letter, one letter several times, or a known name."""
    return len(set(name[1:])) == 1 or _last(name) in _NAMES


def _last(name: str) -> str:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    return words[-1] if words else ""


def _shown(name: str, value: str) -> str:
    """The value of an option or variable, or of an argument without a name, where it is known to be harmless."""
    if secret_name(name):
        return MASK
    if value[:1] in ("{", "["):
        return _structure(name, value)
    inner, equals, more = value.partition("=")
    if equals and name.startswith("-") and _KEY.fullmatch(inner) and not looks_secret(inner):  # --param lr=0.1
        return f"{inner}={_shown(inner, more)}"
    if re.fullmatch(r"-[A-Za-z]", name) and name[1] not in _LETTERS:
        return MASK
    if value == "" or _NUMBER.fullmatch(value) or value.lower() in _WORDS:
        return value
    if _ADDRESS.fullmatch(value):
        return text(value)
    parts = re.split(r"[/\s]", value)
    if len(value) >= 24 and not _SUFFIX.search(value):
        parts.append(value.replace("/", ""))  # Base64 has slashes too
    if any(looks_secret(part) for part in parts):
        return MASK
    if _is_path(value):
        return value
    known = _last(name) in _NAMES and not re.fullmatch(r"-[A-Za-z]", name)
    if known or (name == "-m" and "." in value):
        return value if re.fullmatch(r"[\w.,+@/-]{1,100}", value) else MASK
    return MASK


def _is_path(value: str) -> bool:
    if not re.fullmatch(r"[^\s:@\"'{}|<>;&]{1,400}", value):
        return False
    return bool(_SUFFIX.search(value)) or value.startswith(("./", "../", "/", "~/")) or os.path.lexists(value)


def _structure(name: str, value: str) -> str:
    """JSON, and the lists of Hydra, item by item."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        items = value[1:-1].split(",") if value[-1:] == "]" and "[" not in value[1:] and "{" not in value else []
        shown = [_shown(name, item.strip()) for item in items]
        return "[" + ",".join(shown) + "]" if shown else MASK

    def plain(item: Any, key: str) -> Any:
        if isinstance(item, dict):
            return {text(inner): plain(more, inner) for inner, more in item.items()}
        if isinstance(item, list):
            return [plain(more, key) for more in item]
        if isinstance(item, str):
            return _shown(key, item)
        return MASK if secret_name(key) and item is not None and not isinstance(item, bool) else item

    shown = plain(found, name)
    return value if shown == found else json.dumps(shown, ensure_ascii=False)
