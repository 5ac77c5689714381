"""Archives of graphs that try to run code: none of it runs, and the error says what was refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_files import saying

torch = pytest.importorskip("torch")

from tolerance import close  # noqa: E402

from catalog_core.errors import CatalogError, SerializationError  # noqa: E402
from catalog_torch import exported, expressions  # noqa: E402

pytestmark = pytest.mark.framework
GRAPH = "archive/models/model.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def net() -> Any:
    return torch.nn.Linear(3, 2).eval()


@pytest.fixture(scope="module")
def members(net: Any) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(exported.export(net, {"input": torch.randn(4, 3)})[0])) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], *more: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*members.items(), *more]:
            archive.writestr(name, data)
    return buffer.getvalue()


def changed(members: dict[str, bytes], change: Callable[[dict[str, Any]], Any], name: str = GRAPH) -> bytes:
    value = json.loads(members[name])
    change(value)
    return packed({**members, name: json.dumps(value).encode()})


def inner(graph: dict[str, Any]) -> dict[str, Any]:
    return graph["graph_module"]["graph"]


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"echo ran > '{self.path}'",)


def test_the_untouched_archive_loads(net: Any, members: dict[str, bytes]) -> None:
    x = torch.randn(7, 3)
    close(exported.load(packed(members), net.state_dict())(input=x), net(x))


def test_a_pickle_in_the_sample_inputs_never_runs(net: Any, members: dict[str, bytes], tmp_path: Path) -> None:
    canary, file = tmp_path / "canary", tmp_path / "hostile.pt2"
    buffer = io.BytesIO()
    torch.save(Canary(canary), buffer)
    program = torch.export.export(net, (torch.randn(4, 3),))
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    sample = next(name for name in whole if "/sample_inputs/" in name)
    prefix = sample.split("/")[0]
    whole = {"archive" + name.removeprefix(prefix): data for name, data in whole.items()}
    whole["archive/data/sample_inputs/model.pt"] = buffer.getvalue()
    file.write_bytes(exported._write(whole))
    code = f"import torch; torch.export.load({str(file)!r})"
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert canary.exists(), "torch itself unpickles it: this is what the list guards against"
    canary.unlink()
    exported.load(file.read_bytes(), net.state_dict())
    assert not canary.exists()


def test_guard_code_is_dropped(net: Any, members: dict[str, bytes], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"__import__('os').system('touch {canary}') == 0"
    exported.load(changed(members, lambda g: g.update(guards_code=[code])), net.state_dict())(input=torch.randn(2, 3))
    assert not canary.exists()


@pytest.mark.parametrize(
    "more",
    [
        ("archive/../../evil", b"x"),
        ("/etc/evil", b"x"),
        ("archive/data/aotinductor/model/evil.so", b"\x7fELF"),
        ("archive/data/constants/custom_obj_0", pickle.dumps(1)),
        ("archive/extra/anything", b"x"),
        (GRAPH, b"{}"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_are_not_on_the_list_are_refused(
    net: Any, members: dict[str, bytes], more: tuple[str, bytes]
) -> None:
    with pytest.raises(SerializationError, match="the archive holds"):
        exported.load(packed(members, more), net.state_dict())


def test_a_zip_bomb_is_refused(net: Any, members: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "MAX_GRAPH", 1 << 20)
    with pytest.raises(SerializationError, match="unpacks to more"):
        exported.load(packed(members, ("archive/data/constants/tensor_0", bytes(2 << 20))), net.state_dict())


def test_a_member_that_is_longer_than_it_says_is_not_unpacked(net: Any, members: dict[str, bytes]) -> None:
    size = 200 << 20
    lying = saying(packed(members, ("archive/data/constants/tensor_0", bytes(size))), size, 100)
    tracemalloc.start()
    exported.load(lying, net.state_dict())  # nothing of the graph asks for it
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


@pytest.mark.parametrize("key, value", [("use_pickle", True), ("path_name", "../../evil")])
def test_pickled_and_strayed_weights_are_refused(net: Any, members: dict[str, bytes], key: str, value: Any) -> None:
    with pytest.raises(SerializationError):
        exported.load(changed(members, lambda c: c["config"]["weight"].update({key: value}), WEIGHTS), net.state_dict())


@pytest.mark.parametrize(
    "target",
    [
        "builtins.eval",
        "os.system",
        "torch.ops.aten..__class__",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.relu.name",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.higher_order.call_torchbind",
        "torch.load",
        "torch.hub.load",
        "torch.sym_not.__globals__",
        "_operator.methodcaller",
        "_operator.attrgetter",
        "_operator.setitem",
        "#evil:op",
        7,
    ],
)
def test_calls_that_are_not_on_the_list_are_refused(net: Any, members: dict[str, bytes], target: Any) -> None:
    with pytest.raises(SerializationError, match="not on the list"):
        exported.load(changed(members, lambda g: inner(g)["nodes"][0].update(target=target)), net.state_dict())
    operator = {"arg": {"as_operator": target}, "name": "x", "kind": 1}
    with pytest.raises(SerializationError, match="not on the list"):
        exported.load(changed(members, lambda g: inner(g)["nodes"][0]["inputs"].append(operator)), net.state_dict())


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('x')", "Symbol('s0').__class__", "(1).__class__", "Symbol('x\\'')", "lambda: 1", 7],
)
def test_expressions_are_arithmetic_only(net: Any, members: dict[str, bytes], text: Any) -> None:
    def put(value: dict[str, Any]) -> None:
        value["planted"] = {"as_expr": {"expr_str": text, "hint": None}}

    with pytest.raises(SerializationError, match="arithmetic"):
        exported.load(changed(members, put), net.state_dict())
    with pytest.raises(SerializationError, match="arithmetic"):
        exported.load(changed(members, put, WEIGHTS), net.state_dict())


def test_plain_expressions_pass() -> None:
    for text in ("Symbol('s0')", "Mul(Integer(3), Symbol('s17', positive=True, integer=True))", "2*s0 + 1"):
        expressions.checked(text)


EVIL = "x):\n  __import__('os').system('true')\n#"


@pytest.mark.parametrize(
    "plant",
    [
        lambda g: inner(g)["nodes"][0].update(name=EVIL),
        lambda g: inner(g)["nodes"][0]["inputs"][0].update(name=EVIL),
        lambda g: inner(g)["tensor_values"].update({EVIL: next(iter(inner(g)["tensor_values"].values()))}),
        lambda g: g.update(planted={"as_tensor": {"name": EVIL}}),
        lambda g: g.update(forward_arg_names=[EVIL]),
        lambda g: g.update(parameter_name=EVIL),
    ],
)
def test_names_that_would_reach_generated_code_are_refused(
    net: Any, members: dict[str, bytes], plant: Callable[[dict[str, Any]], Any]
) -> None:
    with pytest.raises(SerializationError, match="the graph holds"):
        exported.load(changed(members, plant), net.state_dict())


@pytest.mark.parametrize(
    "kind, context",
    [
        (
            "collections.defaultdict",
            {"default_factory_module": "evil", "default_factory_name": "f", "dict_context": []},
        ),
        ("builtins.dict", '{"__enum__": true, "fqn": "evil:E", "name": "x"}'),
        ("builtins.dict", '[{"__enum__": true, "fqn": "evil:E", "name": "x"}]'),
        ("builtins.dict", json.dumps([EVIL])),
    ],
)
def test_structures_that_import_are_refused(net: Any, members: dict[str, bytes], kind: str, context: Any) -> None:
    text = json.dumps([1, {"type": kind, "context": context, "children_spec": []}])
    with pytest.raises(SerializationError, match="structure"):
        exported.load(changed(members, lambda g: g.update(in_spec=text)), net.state_dict())


def test_garbage_is_an_error_of_the_tree(net: Any, members: dict[str, bytes]) -> None:
    for data in (b"", b"PK", packed({}), packed({**members, GRAPH: b"[]"}), packed({**members, WEIGHTS: b"{}"})):
        with pytest.raises(SerializationError):
            exported.load(data, net.state_dict())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a tree of JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inside for found in [(*path, key), *places(item, (*path, key))]]


@pytest.mark.parametrize("name", [GRAPH, WEIGHTS])
@pytest.mark.parametrize("value", [-1, True, 1.5, "x", None, [], {}, [[]], 2**62, {"as_int": -1}], ids=str)
def test_whatever_stands_anywhere_is_one_error_of_ours(
    name: str, value: Any, net: Any, members: dict[str, bytes]
) -> None:
    """Each value at each place of what the signature, the values and the weights are told to be."""
    told = json.loads(members[name])
    mine = [path for path in places(told) if name == WEIGHTS or {"tensor_values", "signature"} & {*path}]
    assert len(mine) > 10
    for path in mine:

        def change(whole: Any, path: tuple[Any, ...] = path) -> None:
            for key in path[:-1]:
                whole = whole[key]
            whole[path[-1]] = value

        with contextlib.suppress(CatalogError):  # some change nothing that counts
            exported.load(changed(members, change, name), net.state_dict())
