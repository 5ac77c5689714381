"""Which axes of a torch module are free, which method is exported, and that the module is left as it was."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402

pytestmark = pytest.mark.framework


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


class Counted(nn.Module):
    """Tells how often its Python code ran: on data, or on the shapes by which torch traces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.ran: list[str] = RAN

    def forward(self, x: Any) -> Any:
        self.ran.append("traced" if type(x) is not torch.Tensor else "ran")
        return self.conv(x).mean((2, 3))


RAN: list[str] = []


class Graph(nn.Module):
    """Sums over edges, as graph networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, nodes: Any, edges: Any, weights: Any) -> Any:
        return self.layer(torch.zeros_like(nodes).index_add(0, edges[0], nodes[edges[1]] * weights))


class Flat(nn.Module):
    """Takes one size of image: what follows the convolution is as wide as that makes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2 * 8 * 6, 3)

    def forward(self, x: Any) -> Any:
        return self.last(self.conv(x).flatten(1))


class Reshaping(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.view(-1, 48) * 2


def shapes(version: Any, entry: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    point = version.manifest.entry_points[entry]
    return {s.name: s.shape for s in point.inputs}, {s.name: s.shape for s in point.outputs}


def test_image_sizes_are_free_and_the_example_runs_once_and_is_traced_once(catalog: Catalog) -> None:
    net = Counted()
    RAN.clear()
    version = catalog.save("m", net, example=torch.randn(4, 1, 8, 6))
    assert RAN == [] and net.ran is RAN, "what it keeps is put back"
    assert shapes(version) == ({"x": ("batch", 1, None, None)}, {"output": ("batch", 4)})
    with catalog.session("m") as session:
        for size in ((1, 1, 8, 6), (3, 1, 17, 40)):
            x = torch.randn(size)
            assert np.allclose(session.predict(x), net(x).detach(), atol=1e-5)


class Tally(nn.Linear):
    """Counts outside of itself, where nothing is put back."""

    def forward(self, x: Any) -> Any:
        TALLY.append("traced" if torch.compiler.is_exporting() else "ran")
        return super().forward(x)


TALLY: list[str] = []


def test_an_example_is_run_once_and_traced_once(catalog: Catalog) -> None:
    TALLY.clear()
    catalog.save("m", Tally(4, 2), example=torch.ones(3, 4))
    assert TALLY == ["ran", "traced"]
    TALLY.clear()
    points = {"predict": "model", "again": "model.forward"}
    catalog.save("m", Tally(4, 2), entry_points=points, example=torch.ones(3, 4))
    assert TALLY == ["ran", "traced"]


def test_node_and_edge_counts_of_graphs_are_free_and_equal_ones_have_one_name(catalog: Catalog) -> None:
    net = Graph()
    example = (torch.randn(10, 3), torch.randint(0, 10, (2, 30)), torch.rand(30, 1))
    version = catalog.save("m", net, example=example, verify=True)
    ins, outs = shapes(version)
    assert (ins["nodes"], ins["weights"], outs["output"]) == (("nodes_0", 3), ("edges_1", 1), ("nodes_0", 2))
    with catalog.session("m") as session:
        nodes, edges, weights = torch.randn(23, 3), torch.randint(0, 23, (2, 7)), torch.rand(7, 1)
        assert np.allclose(session.predict(nodes, edges, weights), net(nodes, edges, weights).detach(), atol=1e-6)
        with pytest.raises(InvalidInput, match=r"'weights' of predict: .*edges_1 = 7"):
            session.predict(nodes, edges, torch.rand(8, 1))


def test_the_length_of_a_sequence_is_free(catalog: Catalog) -> None:
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    version = catalog.save("m", net, example=torch.randn(4, 6, 8))
    assert shapes(version)[0]["src"][2] == 8 and not any(isinstance(a, int) for a in shapes(version)[0]["src"][:2])
    with catalog.session("m") as session:
        assert session.predict(torch.randn(2, 11, 8)).shape == (2, 11, 8)


class Loop(nn.Module):
    def forward(self, x: Any) -> Any:
        total = x[:, 0]
        for step in range(1, x.shape[1]):
            total = total + x[:, step]
        return total


def test_a_length_that_tracing_writes_out_is_said(catalog: Catalog) -> None:
    with pytest.warns(UserWarning, match="stored for 6 along axis 1 of 'x' only: its code takes other lengths"):
        version = catalog.save("m", Loop(), example=torch.randn(4, 6, 8))
    assert shapes(version)[0]["x"][:2] == ("batch", 6)
    with warnings.catch_warnings():  # and what the module itself fixes is in the schema, without a word
        warnings.simplefilter("error")
        catalog.save("m", Flat(), example=torch.randn(4, 1, 8, 6))
        catalog.save("m", Counted(), example=torch.randn(4, 1, 8, 6))


class Words(nn.Module):
    """Tokens, through a layer that torch.export writes out for each of them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.words, self.kind = nn.Embedding(10, 4), kind
        cell = {"cell": lambda: nn.GRUCell(4, 5), "bag": lambda: nn.EmbeddingBag(10, 4)}
        self.steps = cell[kind]() if kind in cell else getattr(nn, kind)(4, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Any) -> Any:
        if self.kind == "bag":
            return self.steps(x)
        if self.kind != "cell":
            return self.steps(self.words(x))[0]
        state = torch.zeros(x.shape[0], 5)
        for word in self.words(x).unbind(1):
            state = self.steps(word, state)
        return state


@pytest.mark.parametrize("kind", ["GRU", "LSTM", "RNN", "cell", "bag"])
def test_the_length_of_a_text_that_stays_as_in_the_example_is_said(catalog: Catalog, kind: str) -> None:
    """The axis of the length is the last one of its input."""
    with pytest.warns(UserWarning, match="stored for 7 along axis 1 of 'x' only: its code takes other lengths"):
        version = catalog.save("m", Words(kind), example=torch.ones(2, 7, dtype=torch.long))
    assert shapes(version)[0] == {"x": ("batch", 7)}


def test_what_a_module_keeps_while_its_lengths_are_tried_is_put_back(catalog: Catalog) -> None:
    """They are tried without data: what it kept would be of no use to it."""

    class Keeping(Words):
        def __init__(self) -> None:
            super().__init__("GRU")
            self.register_buffer("state", torch.zeros(2, 1, 5))

        def forward(self, x: Any) -> Any:
            found, state = self.steps(self.words(x))
            if not torch.compiler.is_exporting():
                self.state = state.mean(1, keepdim=True)
            return found + self.state.sum()

    net = Keeping()
    with pytest.warns(UserWarning, match="its code takes other lengths"):
        catalog.save("m", net, example=torch.ones(2, 7, dtype=torch.long))
    assert type(net.state) is torch.Tensor and net.state.tolist() == torch.zeros(2, 1, 5).tolist()
    assert net(torch.ones(1, 3, dtype=torch.long)).shape == (1, 3, 10)


def test_nothing_is_said_of_features_and_of_lengths_that_are_free(catalog: Catalog) -> None:
    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 4)

        def forward(self, x: Any) -> Any:
            return self.words(x).mean(1)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(takes other lengths|of the example only)")
        version = catalog.save("m", Averaged(), example=torch.ones(2, 7, dtype=torch.long))
        assert shapes(version)[0]["x"][0] == "batch" and not isinstance(shapes(version)[0]["x"][1], int)
        assert shapes(catalog.save("m", nn.Linear(7, 3), example=torch.ones(2, 7)))[0] == {"input": ("batch", 7)}


@pytest.mark.parametrize("net", [Flat(), Reshaping()], ids=["flatten", "view"])
def test_sizes_that_the_module_fixes_are_in_the_schema(catalog: Catalog, net: Any) -> None:
    version = catalog.save("m", net, example=torch.randn(4, 1, 8, 6))
    assert shapes(version)[0] == {"x": ("batch", 1, 8, 6)} and shapes(version)[1]["output"][0] == "batch"
    with catalog.session("m") as session, pytest.raises(InvalidInput, match=r"expected float32\[batch, 1, 8, 6\]"):
        session.predict(torch.randn(4, 1, 16, 6))


def test_axes_may_be_declared_and_bear_names(catalog: Catalog) -> None:
    axes = {"x": {0: "events", 2: "height"}}
    version = catalog.save("m", Counted(), example=torch.randn(1, 1, 8, 6), axes=axes)
    assert shapes(version) == ({"x": ("events", 1, "height", None)}, {"output": ("events", 4)})
    with pytest.warns(UserWarning, match=r"as long as in the example only \(axis 2 of 'x': 8\)"):
        version = catalog.save("m", Flat(), example=torch.randn(4, 1, 8, 6), axes=axes)
    assert shapes(version)[0] == {"x": ("events", 1, 8, 6)}


# -- the method of the entry point ----------------------------------------------------------------------------------


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, x: Any) -> Any:
        raise RuntimeError("forward is for training only")

    def encode(self, x: Any) -> Any:
        return self.down(x)

    def decode(self, z: Any) -> Any:
        return self.up(z)

    def log_prob(self, x: Any, given: Any) -> Any:
        return -((x - self.up(given)) ** 2).sum(1)


@pytest.mark.parametrize(
    "method, example",
    [
        ("decode", {"z": torch.ones(5, 3)}),
        ("encode", torch.ones(5, 4)),
        ("log_prob", (torch.ones(5, 4), torch.ones(5, 3))),
    ],
)
def test_the_method_of_the_entry_point_is_exported_and_forward_never_runs(
    catalog: Catalog, method: str, example: Any
) -> None:
    net = Autoencoder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        catalog.save("m", net, entry_points={"run_it": f"model.{method}"}, example=example, verify=True)
    assert {file.name for file in catalog.artifact("m").manifest.components[0].files} == {
        "model.safetensors",
        f"{method}.pt2",
    }
    values = list(example.values()) if isinstance(example, dict) else [*example] if method == "log_prob" else [example]
    with catalog.session("m") as session:
        assert np.allclose(session.run_it(*values), getattr(net, method)(*values).detach(), atol=1e-6)


def test_what_one_method_gives_is_the_example_of_another(catalog: Catalog) -> None:
    points = {"encode": "model.encode", "decode": "model.decode"}
    version = catalog.save("m", Autoencoder(), entry_points=points, example=torch.ones(5, 4), verify=True)
    assert shapes(version, 1) == ({"z": ("batch", 3)}, {"output": ("batch", 4)})


def test_networks_whose_inputs_have_one_name_are_verified_each_on_its_own(catalog: Catalog) -> None:
    with catalog.prepare(
        "gan",
        components={"generator": nn.Linear(3, 8), "critic": nn.Linear(8, 1)},
        entry_points={"generate": "generator", "score": "critic"},
        example={"generate": {"input": torch.ones(4, 3)}, "score": {"input": torch.ones(2, 8)}},
    ) as draft:
        checks = {check.id: check.result for check in draft.verify().checks}
    assert all(
        checks[f"{kind}:{entry}"] == "passed" for kind in ("run", "match", "batch") for entry in ("generate", "score")
    )


def test_a_method_that_cannot_be_traced_says_all_that_torch_says(catalog: Catalog) -> None:
    class Branching(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.warns(UserWarning, match="if x.sum") as caught:
        catalog.save("m", Branching(), example=torch.ones(4, 3))
    (told,) = [str(w.message) for w in caught if "stored as weights only" in str(w.message)]
    assert Path(__file__).name in told, "the line of the module is named"


class Flow(nn.Module):
    """A method that torch exports, and one that it does not."""

    def __init__(self, validate: bool | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2), validate_args=validate)

    def log_prob(self, x: Any) -> Any:
        return self.prior.log_prob(self.layer(x))

    def inverse(self, z: Any) -> Any:
        return self.layer(z)


FLOW: dict[str, Any] = {
    "entry_points": {"log_prob": "model.log_prob", "inverse": "model.inverse"},
    "example": {"log_prob": {"x": torch.ones(4, 2)}, "inverse": {"z": torch.ones(4, 2)}},
}


def test_an_entry_point_without_a_graph_says_so_beside_one_that_has_it(catalog: Catalog) -> None:
    with pytest.warns(UserWarning, match=r"log_prob of Flow is stored as weights only.*validate_args=False"):
        catalog.save("flow", Flow(validate=True), **FLOW)  # torch.compile turns the default off, for the whole process
    told = r"log_prob was stored without a graph \(.*validate_args=False"
    with catalog.session("flow") as session:
        assert session.inverse(z=torch.ones(3, 2)).shape == (3, 2)
        with pytest.raises(SerializationError, match=told) as caught:
            session.log_prob(x=torch.ones(3, 2))
    assert "into=net" in str(caught.value.hint) and "trust=True" in str(caught.value.hint)
    loaded = catalog.load("flow")
    with pytest.raises(AttributeError, match=told):
        loaded.log_prob(torch.ones(3, 2))
    with pytest.raises(SerializationError, match="'forward' was not exported"):
        loaded(torch.ones(3, 2))
    assert not hasattr(loaded, "log_prob") and not hasattr(loaded, "no_method_at_all")
    (cause,) = [check.cause for check in catalog.verify("flow").checks if check.id == "run:log_prob"]
    assert "log_prob was stored without a graph" in cause and "ExportedModule" not in cause


def test_the_remedy_for_a_distribution_that_checks_its_values_is_one(catalog: Catalog) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*stored as weights only")
        catalog.save("flow", Flow(validate=False), **FLOW)
    with catalog.session("flow") as session:
        assert session.log_prob(x=torch.ones(3, 2)).shape == (3,)


def test_tokens_and_their_mask_are_longer_together(catalog: Catalog) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.cells = nn.Embedding(9, 4), nn.GRU(4, 6, batch_first=True)

        def forward(self, x: Any, mask: Any) -> Any:
            return self.cells(self.words(x) * mask[..., None])[0]

    example = {"x": torch.randint(0, 9, (2, 7)), "mask": torch.ones(2, 7, dtype=torch.bool)}
    with pytest.warns(UserWarning, match="its code takes other lengths") as caught:
        catalog.save("m", Masked(), example=example)
    told = [str(w.message) for w in caught if "takes other lengths" in str(w.message)]
    assert [name for line in told for name in example if f"axis 1 of {name!r}" in line] == ["x", "mask"]


def test_arguments_without_names_are_free_too(catalog: Catalog) -> None:
    """`forward(*args, **kwargs)`, as PEFT writes it."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner(*args, **kwargs)

    version = catalog.save("m", Around(), example={"input": torch.ones(3, 4)}, verify=True)
    assert shapes(version) == ({"input": ("batch", 4)}, {"output": ("batch", 2)})
    version = catalog.save("m", Around(), example=torch.ones(3, 4), verify=True)
    assert shapes(version) == ({"input": ("batch", 4)}, {"output": ("batch", 2)})


class Cache:
    """What language models give beside their numbers."""


class Speaking(nn.Linear):
    def forward(self, x: Any) -> Any:
        return {"logits": super().forward(x), "cache": Cache(), "extra": x}


def test_outputs_that_are_no_arrays_are_named_and_skipped(catalog: Catalog) -> None:
    with pytest.raises(InvalidInput, match="a Cache as cache, which is no array") as caught:
        catalog.save("m", Speaking(4, 2), example=torch.ones(3, 4))
    assert caught.value.hint == "return arrays, or name what is none: skip=['cache']"
    version = catalog.save("m", Speaking(4, 2), example=torch.ones(3, 4), skip=["cache", "extra"], verify=True)
    assert shapes(version) == ({"x": ("batch", 4)}, {"logits": ("batch", 2)})
    assert version.manifest.entry_points[0].skipped == ("cache", "extra")
    with catalog.session("m") as session:
        assert session.predict(torch.ones(5, 4)).shape == (5, 2)
    with pytest.raises(InvalidInput, match="skip names 'cahce', which is no output") as caught:
        catalog.save("m", Speaking(4, 2), example=torch.ones(3, 4), skip=["cache", "cahce"])
    assert caught.value.hint == "did you mean cache?"


# -- the module is left as it was -----------------------------------------------------------------------------------


class Restless(nn.Module):
    """Changes all that a module can hold while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.codes = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("late", None)
        self.steps, self.history = 0, [torch.zeros(1)]
        self.generator = torch.Generator().manual_seed(1)

    def forward(self, x: Any) -> Any:
        if not torch.compiler.is_exporting():
            self.count += 1
            self.codes.data += 1
            self.late = torch.ones(3)
            self.steps += 1
            self.history.append(x)
            self.history[0] += 1
            self.cached = x
            self.layer.eval()
            with torch.enable_grad():
                self.layer(x.detach()).sum().backward()
            torch.rand(1, generator=self.generator)
            torch.rand(1), random.random(), np.random.random()
        return self.layer(x) + self.count


def test_preparing_leaves_a_module_and_all_random_numbers_as_they_were(catalog: Catalog) -> None:
    net = Restless()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    drawn, version = torch.get_rng_state(), net.layer.weight._version
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    own = net.generator.get_state()
    weights = dict(net.named_parameters())
    catalog.save("m", net, example=torch.ones(2, 3))
    assert net.state_dict().keys() == state.keys() and all(
        torch.equal(net.state_dict()[k], v) for k, v in state.items()
    )
    assert all(p.grad is None and weights[name] is p for name, p in net.named_parameters())
    assert (net.steps, len(net.history), float(net.history[0]), net.late) == (0, 1, 0.0, None)
    assert net.training and net.layer.training and not hasattr(net, "cached")
    assert torch.equal(torch.get_rng_state(), drawn) and torch.equal(net.generator.get_state(), own)
    assert random.getstate() == python and np.random.get_state()[1].tolist() == numpy
    assert net.layer.weight._version == version, "what was not changed is not written"
    assert catalog.load("m", as_="state_dict")["count"] == 0, "what is stored is the state before"


def test_observers_of_quantization_are_put_back(catalog: Catalog) -> None:
    net = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(3, 3))
    net.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    net.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.prepare_qat(net, inplace=True)
        net(torch.rand(8, 3))
        net.eval()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        try:
            catalog.save("m", net, example=torch.ones(2, 3) * 50)
        except SerializationError:
            pass
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_module_that_fails_is_put_back(catalog: Catalog) -> None:
    class Failing(Restless):
        def forward(self, x: Any) -> Any:
            super().forward(x)
            raise ValueError("no")

    net = Failing()
    with pytest.raises(InvalidInput, match="ValueError: no"):
        catalog.save("m", net, example=torch.ones(2, 3))
    assert (float(net.count), net.steps, net.layer.weight.grad, net.training) == (0.0, 0, None, True)


class Caching(nn.Module):
    """Makes a table when it first runs, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.table: Any = None

    def forward(self, x: Any) -> Any:
        if self.table is None:
            self.table = torch.arange(3.0)
        return self.layer(x) + self.table


def test_what_is_made_at_the_first_run_is_not_there_after_and_the_graph_runs(catalog: Catalog) -> None:
    net = Caching()
    catalog.save("m", net, example=torch.ones(2, 3), verify=True)
    assert net.table is None
    with catalog.session("m") as session:
        assert np.allclose(session.predict(torch.ones(5, 3)), net(torch.ones(5, 3)).detach(), atol=1e-6)
