"""Live modules are filled by torch's own protocol, under other names and in part."""

from __future__ import annotations

import collections
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402
from catalog_torch import extras  # noqa: E402

pytestmark = pytest.mark.framework
nn = torch.nn


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


class Scaled(nn.Module):
    """Keeps a number that is no parameter, as a tensor."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 2), scale

    def get_extra_state(self) -> Any:
        return torch.tensor(self.scale)

    def set_extra_state(self, state: Any) -> None:
        self.scale = float(state)


class Deaf(Scaled):
    """Does not take what it gave."""

    def set_extra_state(self, state: Any) -> None:
        pass


class Fussy(Scaled):
    def set_extra_state(self, state: Any) -> None:
        if float(state) > 2:
            raise ValueError("too large")
        super().set_extra_state(state)


class Hooked(nn.Linear):
    """Stores its weight the other way round, as old checkpoints do."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        found = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        found[prefix + "kernel"] = found.pop(prefix + "weight").T.clone()
        return found

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        state[prefix + "weight"] = state.pop(prefix + "kernel").T
        super()._load_from_state_dict(state, prefix, *rest)


class Cached(nn.Linear):
    """Computes with a copy of its weight, which a hook renews."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_load_state_dict_post_hook(lambda module, keys: module.renew())
        self.renew()

    def renew(self) -> None:
        self.doubled = self.weight.detach() * 2


class Adapter(nn.Module):
    """As LoRA: a frozen base, and what was learned beside it, which alone is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(4, 4), nn.Linear(4, 1, bias=False), nn.Linear(1, 4, bias=False)
        self.base.requires_grad_(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        found = super().state_dict(*args, **kwargs)
        return {key: value for key, value in found.items() if "base." not in key}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state, strict=False, assign=assign)


def test_an_extra_state_that_is_a_tensor_is_given_to_the_module(catalog: Catalog) -> None:
    stored, live = Scaled(3.0), nn.Sequential(Scaled(1.0))
    catalog.save("m", nn.Sequential(stored))
    assert catalog.load("m", into=live) is live
    assert live[0].scale == 3.0 and torch.equal(live[0].layer.weight, stored.layer.weight)


@pytest.mark.parametrize("kind, why", [(Deaf, "reports another state: _extra_state"), (Fussy, "refuses.*too large")])
def test_a_module_that_is_not_what_was_stored_afterwards_is_put_back(catalog: Catalog, kind: Any, why: str) -> None:
    catalog.save("m", Scaled(3.0))
    live = kind(1.0)
    before = live.layer.weight.detach().clone()
    with pytest.raises(SerializationError, match=why) as refused:
        catalog.load("m", into=live)
    assert "given back the state" in str(refused.value)
    assert live.scale == 1.0 and torch.equal(live.layer.weight, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Hooked(3, 2),
        lambda: nn.Sequential(nn.Linear(3, 3), Hooked(3, 2)),
        Adapter,
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(3, 2)),
        lambda: nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
        lambda: nn.BatchNorm1d(3),
        lambda: nn.DataParallel(nn.Linear(3, 2)),
    ],
)
def test_subclasses_hooks_and_parametrizations_load_as_torch_loads_them(catalog: Catalog, make: Any) -> None:
    stored, live, theirs = make(), make(), make()
    catalog.save("m", stored)
    catalog.load("m", into=live)
    theirs.load_state_dict(stored.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(live.state_dict()[key], value), key


def test_hooks_that_run_after_loading_run(catalog: Catalog) -> None:
    stored, live = Cached(3, 2), Cached(3, 2)
    catalog.save("m", stored)
    assert torch.equal(catalog.load("m", into=live).doubled, stored.weight * 2)


def test_a_lazy_module_takes_the_shapes_that_are_stored(catalog: Catalog) -> None:
    stored = nn.Sequential(nn.Linear(5, 3), nn.ReLU())
    catalog.save("m", stored)
    live = catalog.load("m", into=nn.Sequential(nn.LazyLinear(3), nn.ReLU()))
    assert torch.equal(live[0].weight, stored[0].weight)


def test_nan_is_filled_as_it_is(catalog: Catalog) -> None:
    stored = nn.Linear(2, 2)
    nn.init.constant_(stored.weight, float("nan"))
    catalog.save("m", stored)
    assert torch.isnan(catalog.load("m", into=nn.Linear(2, 2)).weight).all()


def test_what_was_loaded_without_its_class_is_filled_too(catalog: Catalog) -> None:
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    catalog.save("one", one, example=torch.ones(2, 3))
    catalog.save("two", two, example=torch.ones(2, 3))
    loaded = catalog.load("one")
    catalog.load("two", into=loaded)
    assert torch.equal(loaded(torch.ones(2, 3)), two(torch.ones(2, 3)))


class Old(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 10)


class New(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.classify = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2)
        self.backbone[0].weight.requires_grad_(False)


def test_a_network_is_used_again_for_another_task(catalog: Catalog) -> None:
    old, new = Old(), New()
    catalog.save("base", old)
    head = new.classify.weight.detach().clone()
    with pytest.raises(SerializationError) as refused:
        catalog.load("base", into=new)
    told = str(refused.value)
    assert "7 missing" not in told and "backbone.0.weight" in told and "encoder.0.weight" in told
    assert "'encoder.': 'backbone.'" in told or "'encoder': 'backbone'" in told
    done = catalog.load("base", into=new, rename={"encoder": "backbone", "head": "classify"}, partial=True)
    assert done.into is new and torch.equal(new.backbone[0].weight, old.encoder[0].weight)
    assert torch.equal(new.backbone[1].running_mean, old.encoder[1].running_mean)
    assert done.frozen == ("backbone.0.weight",) and len(done.loaded) == 7
    assert list(done.skipped) == ["classify.weight", "classify.bias"] and torch.equal(new.classify.weight, head)
    done = catalog.load("base", into=new, rename=lambda name: name.replace("encoder", "backbone"), partial=True)
    assert done.new == ("classify.weight", "classify.bias") and done.left_over == ("head.weight", "head.bias")
    assert "loaded: 7" in str(done) and "left over: 2 (head.weight, head.bias)" in str(done)


def test_renaming_alone_is_strict_and_gives_the_module(catalog: Catalog) -> None:
    stored = nn.Sequential(nn.Linear(2, 2))
    catalog.save("m", stored)
    live = nn.Linear(2, 2)
    assert catalog.load("m", into=live, rename={"0": ""}) is live
    assert torch.equal(live.weight, stored[0].weight)
    with pytest.raises(SerializationError, match="1 left over"):
        catalog.load("m", into=nn.Linear(2, 2, bias=False), rename={"0.": ""})


def test_a_dictionary_of_tensors_is_filled_so_too(catalog: Catalog) -> None:
    catalog.save("state", {"a.x": torch.ones(2), "a.y": torch.ones(3)})
    live = nn.ParameterDict({"x": torch.zeros(2), "z": torch.zeros(1)})
    done = catalog.load("state", into=live, rename={"a": ""}, partial=True)
    assert (done.loaded, done.new, done.left_over) == (("x",), ("z",), ("y",))
    assert live["x"].tolist() == [1, 1]


class Keeps(nn.Module):
    """Keeps data of any kind beside its layer."""

    def __init__(self, data: Any = None) -> None:
        super().__init__()
        self.layer, self.data = nn.Linear(2, 2), data

    def forward(self, x: Any) -> Any:
        return self.layer(x)

    def get_extra_state(self) -> Any:
        return self.data

    def set_extra_state(self, state: Any) -> None:
        self.data = state


def shown(value: Any) -> Any:
    """A value with the types of all that is in it."""
    if isinstance(value, dict):
        return type(value), [(shown(key), shown(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shown(part) for part in value]
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return type(value), str(value.dtype), value.tolist()
    return type(value), repr(value)


PLAIN = [
    {"a": 1}, {}, None, True, 0, -(1 << 80), 0.1, -0.0, float("nan"), float("-inf"), "text é\n", "",
    b"", b"\x00\xff", [], (), {1: "a", None: 2, (1, "x"): 3.5},
    [1, (2.0, None), {"deep": [b"x", {"deeper": (True,)}]}], collections.OrderedDict(b=1, a=2),
    {"scale": torch.tensor([1.5, 2.5]), "many": [torch.ones(2, 3, dtype=torch.int8), torch.zeros(0)]},
    {"half": torch.ones(2, dtype=torch.bfloat16)}, np.arange(3), np.float64(0.25), {"_extra_state#0": torch.ones(1)},
]  # fmt: skip


@pytest.mark.parametrize("data", PLAIN, ids=lambda data: repr(data)[:30])
def test_an_extra_state_of_plain_data_comes_back_with_its_types(catalog: Catalog, data: Any) -> None:
    """In a live module, in the state dict, and in a graph that is saved again."""
    catalog.save("m", nn.Sequential(Keeps(data), Keeps([data])), example={"input": torch.ones(2, 2)})
    catalog.save("again", catalog.load("m"), example={"input": torch.ones(2, 2)})
    for name in ("m", "again"):
        live = nn.Sequential(Keeps("before"), Keeps())
        assert catalog.load(name, into=live) is live
        assert (shown(live[0].data), shown(live[1].data)) == (shown(data), shown([data]))
        assert shown(catalog.load(name, as_="state_dict")["0._extra_state"]) == shown(data)
        assert shown(catalog.load(name).state_dict()["1._extra_state"]) == shown([data])
        with catalog.session(name) as session:
            assert session.predict(input=np.ones((3, 2), np.float32)).shape == (3, 2)


def test_a_state_dict_with_plain_data_is_filled(catalog: Catalog) -> None:
    catalog.save("m", Keeps({"a": (1, 2)}))
    state = Keeps([3]).state_dict()
    weight = state["layer.weight"]
    assert catalog.load("m", into=state) is state
    assert state["_extra_state"] == {"a": (1, 2)}
    assert torch.equal(weight, catalog.load("m")["layer.weight"])


class Own(dict):  # type: ignore[type-arg]
    pass


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    "data, why",
    [(object(), "object"), ([{1}], "set"), (Own(), "Own"), (io.BytesIO(), "BytesIO"), (len, "builtin_function"),
     (ENDLESS, "nested more than"), (1j, "complex"), ("\ud800", "cannot be written"), (torch.float32, "dtype")],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "",
)  # fmt: skip
def test_an_extra_state_that_is_no_plain_data_is_refused(catalog: Catalog, data: Any, why: str) -> None:
    with pytest.raises(SerializationError, match=why):
        catalog.save("m", Keeps(data))
    assert list(catalog.models()) == []


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"a": 3}', '{"a": {"pickle": "x"}}', '{"a": {"tensor": "nothing"}}',
     '{"a": {"int": "9", "float": "x"}}',
     '{"a": {"dict": [[1]]}}', '{"a": {"dict": [[{"list": []}, null]]}}', '{"a": {"list": 3}}', '{"a": {"int": "z"}}',
     '{"a": ' + '{"list": [' * 40 + "]}" * 40 + "}"],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_plain_data_that_a_stranger_wrote_are_one_error(text: str) -> None:
    class Written:
        files: Any = {extras.FILE: len(text)}  # noqa: RUF012

        def view(self, name: str) -> Any:
            return memoryview(text.encode())

    with pytest.raises(SerializationError, match="cannot be read"):
        extras.read(Written(), {})  # type: ignore[arg-type]


def test_a_module_that_refuses_plain_data_is_put_back(catalog: Catalog) -> None:
    class Picky(Keeps):
        def set_extra_state(self, state: Any) -> None:
            super().set_extra_state({**state, "seen": True})

    catalog.save("m", Keeps({"a": [1]}))
    live = Picky({"b": [2]})
    with pytest.raises(SerializationError, match="reports another state: _extra_state"):
        catalog.load("m", into=live)
    assert live.data["b"] == [2]


class Tied(nn.Module):
    """A language model as many are published: the head is the table of words."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.words, self.body = nn.Embedding(7, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x: Any) -> Any:
        return self.head(self.body(self.words(x)))


@pytest.mark.parametrize("omitted", ["head.weight", "words.weight"])
@pytest.mark.parametrize("how", ["whole", "partial", "rename", "dictionary"])
def test_a_file_that_holds_tied_weights_once_fills_all_their_names(catalog: Catalog, how: str, omitted: str) -> None:
    source = Tied()
    state = {name: value.detach().clone() for name, value in source.state_dict().items() if name != omitted}
    prefix = "module." if how == "rename" else ""
    catalog.save("m", {f"{prefix}{name}": value for name, value in state.items()})
    net = Tied()
    if how == "partial":
        done = catalog.load("m", into=net, partial=True)
        assert (set(done.loaded), done.new, done.left_over, done.skipped) == (set(net.state_dict()), (), (), {})
    else:
        options = {"rename": {"module": ""}} if how == "rename" else {}
        catalog.load("m", into=net.state_dict() if how == "dictionary" else net, **options)
    assert net.head.weight is net.words.weight
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


def test_what_is_not_tied_is_still_missing(catalog: Catalog) -> None:
    state = {name: value for name, value in Tied().state_dict().items() if name != "head.weight"}
    catalog.save("m", state)
    net = Tied(tied=False)
    with pytest.raises(SerializationError, match=r"1 missing from what is stored .head.weight"):
        catalog.load("m", into=net)
    assert catalog.load("m", into=net, partial=True).new == ("head.weight",)
    with torch.device("meta"):  # nothing there has a place, and nothing is tied by that
        bare = Tied(tied=False)
    with pytest.raises(SerializationError, match=r"1 missing from what is stored .head.weight"):
        catalog.load("m", into=bare)
    array = np.zeros((2, 2), np.float32)
    catalog.save("a", {"one": np.ones((2, 2), np.float32)})
    catalog.load("a", into={"one": array, "two": array})
    assert array.tolist() == [[1, 1], [1, 1]]
    with pytest.raises(SerializationError, match=r"missing from what is stored .two"):
        catalog.load("a", into={"one": array, "two": array.copy()})
