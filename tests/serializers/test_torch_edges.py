"""Torch modules at the edges: dtypes, ties, modes, buffers, shapes, and live objects that cannot be filled."""

from __future__ import annotations

import collections
import copy
import dataclasses
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tolerance import close  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402
from catalog_torch.serializer import TorchSerializer, _notes  # noqa: E402

pytestmark = pytest.mark.framework
nn = torch.nn
DTYPES = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "bool", "int64", "uint8", "complex64", "float64"]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as opened:
        yield opened


def bits(tensor: Any) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class Every(nn.Module):
    """Buffers of all dtypes, some without axes, some empty."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        for dtype in DTYPES:
            for name, shape in (("some", (2, 3)), ("scalar", ()), ("empty", (0, 2))):
                tensor = torch.full(shape, fill).to(getattr(torch, dtype))
                self.register_buffer(f"{dtype}_{name}", tensor)


def test_every_dtype_and_shape_comes_back_bit_by_bit(catalog: Catalog) -> None:
    net = Every(3)
    catalog.save("every", net)
    state, fresh = catalog.load("every"), catalog.load("every", into=Every(0))
    for key, value in net.state_dict().items():
        for other in (state[key], fresh.state_dict()[key]):
            assert (other.dtype, other.shape, bits(other)) == (value.dtype, value.shape, bits(value)), key
    arrays = catalog.load("every", as_="numpy")
    assert list(arrays) == list(state)
    assert arrays["bfloat16_some"].dtype == ml_dtypes.bfloat16
    assert arrays["float8_e5m2_some"].dtype == ml_dtypes.float8_e5m2
    assert all(array.tobytes() == bits(state[key]) for key, array in arrays.items())


class Signs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1 + 2j, 3 - 4j], [5j, 6 + 0j]]))
        self.again = self.weight
        self.register_buffer("conj", self.weight.detach().conj())

    def forward(self, x: Any) -> Any:
        return x.to(torch.complex64) @ self.weight @ self.conj


def test_complex_weights_are_tied_only_where_their_signs_agree(catalog: Catalog) -> None:
    net, x = Signs().eval(), torch.randn(3, 2)
    catalog.save("signs", net, example={"x": x})
    assert catalog.artifact("signs").manifest.components[0].meta["shared"] == {"again": "weight"}
    state = catalog.load("signs", as_="state_dict")
    assert torch.equal(state["conj"], net.weight.conj().resolve_conj())
    assert state["again"].data_ptr() == state["weight"].data_ptr() != state["conj"].data_ptr()
    close(catalog.load("signs")(x), net(x))


class Parts(nn.Module):
    """A frozen part in eval mode, and one part that stands twice."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
        self.head = nn.Sequential(nn.Dropout(), self.frozen[0])

    def forward(self, x: Any) -> Any:
        return self.head(self.frozen(x))


def test_each_part_keeps_its_mode_through_save_call_and_failure(catalog: Catalog) -> None:
    net, serializer = Parts(), TorchSerializer()
    modes = [part.training for part in net.modules()]
    assert set(modes) == {True, False}
    catalog.save("parts", net, example={"x": torch.randn(4, 3)})
    assert [part.training for part in net.modules()] == modes
    first, second = (serializer.call(net, "forward", {"x": torch.ones(2, 3)})["output"] for _ in range(2))
    assert np.array_equal(first, second), "dropout is off"
    with pytest.raises(RuntimeError):
        serializer.call(net, "forward", {"x": torch.ones(2, 5)})
    assert [part.training for part in net.modules()] == modes


class Buffers(nn.Module):
    """A buffer that the state dict does not hold, and a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.inner.weight.requires_grad_(False)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0]), persistent=False)
        self.shift = torch.tensor([4.0, 5.0, 6.0])

    def forward(self, x: Any) -> Any:
        return self.inner(x) * self.scale + self.shift + torch.arange(3)


@pytest.mark.parametrize("net", [Buffers(), nn.Identity(), nn.ReLU()], ids=lambda net: type(net).__name__)
def test_hidden_buffers_and_modules_without_parameters_load_without_their_class(catalog: Catalog, net: Any) -> None:
    x = torch.randn(4, 3)
    name = next(iter(TorchSerializer().inputs(net, "forward") or ()))
    version = catalog.save("net", net, example={name: x})
    assert version.summary["parameters"] == sum(p.numel() for p in net.parameters())
    close(catalog.load("net")(x), net(x))
    assert catalog.load("net", into=net) is net
    assert catalog.load("net", device="meta")(x.to("meta")).device.type == "meta", "constants move too"


def test_what_was_loaded_without_its_class_can_be_saved_again(catalog: Catalog) -> None:
    net, x = Buffers().eval(), torch.randn(4, 3)
    points = {"predict": "model"}
    catalog.save("net", components={"model": net}, entry_points=points, example={"x": x})
    loaded = catalog.load("net")
    assert list(loaded.state_dict()) == list(net.state_dict())
    catalog.save("again", components={"model": loaded}, entry_points=points, example={"x": x})
    one, two = (catalog.artifact(name).manifest for name in ("net", "again"))
    assert one.components == two.components and one.description == two.description


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Any, mask: Any = None, scale: float = 2.0) -> Any:
        out, state = self.cell(x)
        return {"out": out * scale if mask is None else out * mask, "state": state, "none": None}


def test_nested_outputs_have_names_and_inputs_left_out_are_not_asked_for(catalog: Catalog) -> None:
    net, x = Recurrent().eval(), torch.randn(2, 5, 3)
    catalog.save("net", net, example={"x": x})
    point = catalog.artifact("net").manifest.entry_points[0]
    assert [(spec.name, spec.shape) for spec in point.inputs] == [("x", ("batch", 5, 3))]
    assert {spec.name: spec.shape for spec in point.outputs} == {
        "out": ("batch", 5, 4), "state_0": (1, "batch", 4), "state_1": (1, "batch", 4),
    }  # fmt: skip
    more = torch.randn(7, 5, 3)
    with catalog.session("net") as session:
        outputs = session.predict(x=more.numpy())
    close(outputs["state_1"], net(more)["state"][1].detach().numpy())


class Rigid(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.reshape(4, 3).sum(1)


def test_a_first_axis_that_is_not_free_is_not_called_free(catalog: Catalog) -> None:
    catalog.save("rigid", Rigid(), example={"x": torch.ones(4, 3)})
    artifact = catalog.artifact("rigid")
    assert [spec.shape for spec in artifact.manifest.entry_points[0].inputs] == [(4, 3)]
    assert [spec.shape for spec in artifact.manifest.entry_points[0].outputs] == [(4,)]
    assert "forward" in artifact.manifest.components[0].meta["fixed"]
    with pytest.raises(InvalidInput, match=r"cannot take x: \[5, 3\]"):
        catalog.load("rigid")(torch.ones(5, 3))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_dtypes_that_numpy_lacks_go_through_a_session(catalog: Catalog, dtype: str) -> None:
    class Cast(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.float() * 2

    x = torch.arange(6.0).reshape(2, 3).to(getattr(torch, dtype))
    catalog.save("net", Cast(), example={"x": x})
    with catalog.session("net") as session:
        for value in (x, x.float().numpy().astype(getattr(ml_dtypes, dtype))):
            assert np.array_equal(session.predict(x=value), x.float().numpy() * 2)


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"a": {1}}


@pytest.mark.parametrize(
    "net, why",
    [
        (nn.LazyLinear(3), "no shape yet"),
        (nn.Linear(2, 2, device="meta"), "without data"),
        (Extra(2, 2), "_extra_state"),
        (nn.Linear(2, 2, dtype=torch.complex128), "complex128"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name_and_described_without_an_error(
    catalog: Catalog, net: Any, why: str
) -> None:
    assert TorchSerializer().describe(net).framework == "torch"
    with pytest.raises(SerializationError, match=why):
        catalog.save("net", net)


def test_live_objects_that_cannot_be_filled_are_refused(catalog: Catalog) -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    catalog.save("net", net)
    tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tied[1].weight = tied[0].weight
    repeated = {"0.weight": torch.zeros(2, 2), "1.weight": torch.zeros(1, 2).expand(2, 2)}
    empty = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False, device="meta"))
    for target, why in ((tied, "one live tensor"), (repeated, "read-only"), (empty, "without data")):
        live = target if isinstance(target, dict) else target.state_dict()
        before = live["0.weight"].clone()
        with pytest.raises(SerializationError, match=why):
            catalog.load("net", into=target)
        assert torch.equal(live["0.weight"], before)
    for nonsense in (7, [1], "x", {"0.weight": 1, "1.weight": 2}):
        with pytest.raises(SerializationError):
            catalog.load("net", into=nonsense)
    tied[1].weight = nn.Parameter(torch.zeros(2, 2))
    assert torch.equal(catalog.load("net", into=tied)[1].weight, net[1].weight)


def test_a_stored_tie_fills_a_live_one(catalog: Catalog) -> None:
    def pair() -> Any:
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        net[1].weight = net[0].weight
        return net

    net = pair()
    catalog.save("net", net)
    fresh = catalog.load("net", into=pair())
    assert fresh[0].weight is fresh[1].weight and torch.equal(fresh[0].weight, net[0].weight)


def test_long_texts_and_large_integers_among_the_attributes_do_not_stop_a_save(catalog: Catalog) -> None:
    net = nn.Linear(2, 2)
    net.seed, net.source, net.note, net.rate = 2**63, "x" * 100_000, "short", float("nan")
    params = catalog.save("net", net).params
    assert (params["seed"], params["note"]) == (str(2**63), "short")
    assert not {"source", "rate"} & params.keys()


@pytest.mark.parametrize("mask", [-1e18, 2.0**53, 1e20, float("-inf"), np.float64(-1e18)])
def test_a_module_with_a_large_or_infinite_attribute_is_saved_and_comes_back(catalog: Catalog, mask: Any) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mask = mask
            self.lin = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return torch.where(x > 0, self.lin(x), torch.full_like(x, float(self.mask)))

    x = torch.tensor([[1.0, -1.0], [2.0, 3.0]])
    net = Masked()
    version = catalog.save("net", net, example={"x": x})
    assert version.params["mask"] == (str(mask) if np.isinf(mask) else mask)
    assert torch.allclose(catalog.load("net", into=Masked())(x), net(x))
    assert catalog.fsck().clean


def test_weights_are_neither_written_into_a_graph_nor_copied_when_it_is_loaded(
    catalog: Catalog, recwarn: pytest.WarningsRecorder
) -> None:
    net, x = nn.Linear(1000, 1000), torch.ones(2, 1000)
    catalog.save("net", net, example={"input": x})
    files = {file.name: file.size for file in catalog.artifact("net").manifest.components[0].files}
    assert files["forward.pt2"] < 20_000 < 4_000_000 < files["model.safetensors"]
    loaded = catalog.load("net")
    close(loaded(x), net(x))
    with Path("/proc/self/maps").open() as maps:
        regions = [line.split()[0].split("-") for line in maps if f"/{catalog.url.rsplit('/', 1)[1]}/blobs/" in line]
    place = loaded.state_dict()["weight"].data_ptr()
    assert any(int(low, 16) <= place < int(high, 16) for low, high in regions), "the weight lies in the mapped file"
    assert not [warning for warning in recwarn.list if "complete tensor" in str(warning.message)]


def test_what_cannot_be_traced_is_said_in_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as catalog, pytest.warns(UserWarning, match="forward of Branching"):
        catalog.save("m", Branching(), example={"x": torch.ones(4, 3)})
    assert capfd.readouterr() == ("", "")


class Stepping(nn.Module):
    """Runs for any number of rows; torch can export it for those of the example only."""

    def forward(self, x: Any) -> Any:
        return torch.stack([row * 2 for row in x])


def test_what_is_exported_for_the_sizes_of_the_example_is_recorded_so(catalog: Catalog) -> None:
    with pytest.warns(UserWarning, match=r"'predict' is stored for the sizes of the example only \(x \[3, 4\]\)"):
        draft = catalog.prepare("stepping", Stepping(), example=torch.ones(3, 4))
    with draft:
        (point,) = draft.manifest.entry_points
        assert (point.inputs[0].shape, point.outputs[0].shape) == ((3, 4), (3, 4))
        assert draft.verify().passed
        draft.save()
    with catalog.session("stepping") as session:
        assert (session.predict(torch.ones(3, 4)) == 2).all()
        with pytest.raises(InvalidInput, match=r"expected float32\[3, 4\], got float32\[5, 4\]"):
            session.predict(torch.ones(5, 4))


class Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True)

    def forward(self, sequence: Any, state: Any = None) -> Any:
        out, state = self.layer(sequence, state)
        return {"out": out, "state": state, "flat": out.flatten(0, 1)}


def test_rows_that_are_not_the_first_axis_are_free_too(catalog: Catalog) -> None:
    """A recurrent state has its rows on the second axis."""
    version = catalog.save("gru", Gru(), example=torch.ones(3, 7, 4), verify=True)
    found = {spec.name: spec.shape for spec in catalog.artifact(version).manifest.entry_points[0].outputs}
    assert found == {"out": ("batch", 7, 5), "state": (1, "batch", 5), "flat": (None, 5)}
    with catalog.session("gru") as session:
        assert session.predict(torch.ones(2, 7, 4))["state"].shape == (1, 2, 5)


Pair = collections.namedtuple("Pair", "mean spread")


@dataclasses.dataclass
class Told:
    logits: Any
    loss: Any = None


class Fields(nn.Linear):
    """Gives what has fields: a named tuple, a dataclass, what `torch.max` returns."""

    def __init__(self, kind: str) -> None:
        super().__init__(4, 4)
        self.kind = kind

    def forward(self, x: Any) -> Any:
        y = super().forward(x)
        return {
            "pair": Pair(y, y.exp()), "told": Told(y), "max": y.max(1), "ordered": collections.OrderedDict(y=y)
        }[self.kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind, names",
    [("pair", ["mean", "spread"]), ("told", ["logits"]), ("max", ["output_0", "output_1"]), ("ordered", ["y"])],
)
def test_results_with_fields_are_exported_under_their_names(catalog: Catalog, kind: str, names: list[str]) -> None:
    net = Fields(kind)
    assert catalog.save(kind, net, example=torch.ones(3, 4), verify=True).summary["verification"] == "passed"
    assert "forward" not in vars(net), "the live one is as it was"
    assert [spec.name for spec in catalog.artifact(kind).manifest.entry_points[0].outputs] == names
    with catalog.session(kind) as session:
        session.predict(torch.ones(2, 4))


def test_a_result_that_is_no_array_is_named(catalog: Catalog) -> None:
    net = nn.Linear(4, 4)
    net.forward = lambda x: torch.distributions.Normal(x, 1.0)  # type: ignore[method-assign]
    with pytest.raises(InvalidInput, match="it gives a Normal as output, which is no array"):
        catalog.save("m", net, example=torch.ones(3, 4))


@pytest.mark.parametrize("around", ["compile", "DataParallel", "both"])
def test_what_is_put_around_a_module_is_left_out(catalog: Catalog, around: str) -> None:
    """`torch.compile` and `DataParallel` rename the weights; what is stored fits the module itself, and both."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    wrapped: Any = net if around == "compile" else nn.DataParallel(net)
    wrapped = wrapped if around == "DataParallel" else torch.compile(wrapped, backend="eager")
    x = torch.randn(3, 4)
    version = catalog.save("m", wrapped, example=x, verify=True)
    assert version.summary["algorithm"] == "Sequential"
    fresh = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    catalog.load("m", into=fresh)
    assert (fresh.eval()(x) == net.eval()(x)).all()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    catalog.load("m", into=wrapped)
    assert (fresh(x) == net(x)).all()


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.ones(3, 4))])
def test_torchscript_is_stored_as_weights_with_the_reason(catalog: Catalog, make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = make(nn.Linear(4, 4))
    with pytest.warns(UserWarning, match=r"stored as weights only.*Exporting a ScriptModule is not supported"):
        catalog.save("m", net, example=torch.ones(3, 4))
    assert (catalog.load("m")["weight"] == net.weight).all()


def test_exported_programs_and_packed_weights_are_refused_with_a_way_out(catalog: Catalog) -> None:
    program = torch.export.export(nn.Linear(4, 4), (torch.ones(3, 4),))
    with pytest.raises(SerializationError, match="publish the module that it was made from, or import the"):
        catalog.save("m", program, example=torch.ones(3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    with pytest.raises(SerializationError, match=r"packed by torch\.ao\.quantization, which no safe format holds"):
        catalog.save("m", packed)


class Two(nn.Module):
    def forward(self, left: Any, right: Any) -> Any:
        return left + right


def test_an_example_without_names_is_taken_by_position(catalog: Catalog) -> None:
    one, rows = torch.ones(3, 4), [[1.0, 2.0], [3.0, 4.0]]
    for given in (one, (one,), [one]):
        version = catalog.save("one", nn.ReLU(), example=given)
        assert [s.name for s in catalog.artifact(version).manifest.entry_points[0].inputs] == ["input"]
    catalog.save("two", Two(), example=(one, 2 * one))
    with catalog.session("two") as session:
        assert (session.predict(one, 2 * one) == 3).all()
    version = catalog.save("rows", nn.ReLU(), example=rows)
    assert catalog.artifact(version).manifest.entry_points[0].inputs[0].shape == (
        "batch",
        "input_1",
    ), "a list of numbers; an activation takes any number of columns"
    with pytest.raises(InvalidInput, match="the example has 3 arrays, and 'predict' takes left, right"):
        catalog.save("m", Two(), example=(one, one, one))
    for odd in ({"x": one}, (one, one), None, "text"):
        with pytest.raises(InvalidInput, match=r"the example's 'right' is a \w+.*, not an array"):
            catalog.save("m", Two(), example={"left": one, "right": odd})


def test_an_example_that_nobody_asked_to_run_and_that_does_not_run_is_told(catalog: Catalog) -> None:
    class Any_(nn.Linear):
        def forward(self, *xs: Any) -> Any:
            return super().forward(xs[0])

    with pytest.warns(UserWarning, match=r"'predict' is not stored to be run: .*unexpected keyword argument"):
        catalog.save("m", Any_(4, 4), example=torch.ones(3, 4))


class TwoWays(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, x: Any) -> Any:
        return self.layer(x)

    def shifted(self, x: Any, by: Any) -> Any:
        return self.layer(x) + by


def test_another_method_is_exported_for_any_number_of_rows(catalog: Catalog) -> None:
    net = TwoWays().eval()
    example = {"x": torch.ones(4, 3), "by": torch.ones(4, 2)}
    with catalog.prepare("m", net, entry_points={"shift": "model.shifted"}, example=example) as draft:
        assert draft.verify().passed
        version = draft.save()
    component = catalog.artifact(version).manifest.components[0]
    assert "shifted" not in component.meta.get("export", {}), component.meta
    values = {"x": torch.rand(7, 3), "by": torch.rand(7, 2)}
    with catalog.session(version) as session, torch.no_grad():
        got = session.shift(**values)
        assert torch.allclose(torch.as_tensor(got), net.shifted(**values), atol=1e-6)


class Talks(nn.Module):
    """While it is traced, another thread of the process logs."""

    def forward(self, x: Any) -> Any:
        thread = threading.Thread(target=lambda: logging.getLogger("torch.app").error("request failed"))
        thread.start()
        thread.join()
        return x * 2


def test_the_logs_of_other_threads_go_on_while_a_module_is_saved(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[int] = []

    class Counts(Talks):
        def forward(self, x: Any) -> Any:
            heard.append(1)
            return super().forward(x)

    catalog.save("net", Counts(), example={"x": torch.ones(2, 3)})
    assert len(heard) > 1
    assert [record.message for record in caplog.records].count("request failed") == len(heard)


def test_a_graph_that_is_saved_again_keeps_its_free_axes(catalog: Catalog) -> None:
    x = torch.ones(2, 3, 8, 8)
    catalog.save("net", nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), example={"input": x})
    for _ in range(2):
        catalog.save("net", catalog.load("net"), example={"input": x})
    first, *others = [catalog.artifact(f"net@{n}").manifest.entry_points[0] for n in (1, 2, 3)]
    assert first.inputs[0].shape == ("batch", 3, "input_2", "input_3")
    assert all(point == first for point in others)
    with catalog.session("net@3") as session:
        assert session.predict(input=torch.ones(5, 3, 9, 7).numpy()).shape == (5, 4, 9, 7)


@pytest.mark.parametrize(
    "axes",
    [[], {"forward": []}, {"forward": {"inputs": {}}}, {"forward": {"inputs": {"x": [True]}, "outputs": {}}},
     {"forward": {"inputs": {"x": [-1]}, "outputs": {}}}, {"forward": {"inputs": {"x": 3}, "outputs": {}}},
     {"forward": {"inputs": {}, "outputs": {}, "why": 3}}, {"forward": {"inputs": {}, "outputs": {}, "more": {}}}],
    ids=repr,
)  # fmt: skip
def test_axes_that_a_stranger_wrote_are_read_as_axes_only(axes: Any) -> None:
    with pytest.raises(SerializationError, match="cannot be read"):
        _notes({"order": [], "inputs": {}, "axes": axes})


def test_what_is_registered_in_a_copy_of_a_loaded_graph_is_not_in_the_graph(catalog: Catalog) -> None:
    catalog.save("net", nn.Linear(3, 4), example={"input": torch.ones(2, 3)})
    graph = catalog.load("net")
    made = copy.copy(graph)
    made.add_module("extra", nn.Linear(1, 1))
    made.register_buffer("more", torch.ones(1))
    made.register_parameter("most", nn.Parameter(torch.ones(1)))
    made.register_forward_hook(lambda *_: torch.zeros(1))
    assert not {"extra", "more", "most"} & {*graph._modules, *graph._buffers, *graph._parameters}
    assert graph(torch.ones(2, 3)).shape == (2, 4) and made(torch.ones(2, 3)).shape == (1,)
