"""What a stored torch graph may call: real models pass the list, and nothing wild reaches torch."""

from __future__ import annotations

import inspect
import io
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, SerializationError  # noqa: E402
from catalog_torch import calls, exported, expressions, guards, operations, tables, tracing  # noqa: E402
from catalog_torch.serializer import ExportedModule  # noqa: E402

pytestmark = pytest.mark.framework
nn, F = torch.nn, torch.nn.functional


class Net(nn.Module):
    """A function of one or two tensors, over parts and buffers."""

    def __init__(self, function: Any, *parts: Any, **buffers: Any) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: Any, y: Any = None) -> Any:
        return self.function(self, x) if y is None else self.function(self, x, y)


def message_passing(net: Any, nodes: Any, edges: Any) -> Any:
    """As PNA: five ways to gather what the neighbours say, scaled by the number of neighbours."""
    said, where = nodes[edges[0]], edges[1][:, None].expand(-1, nodes.shape[1])
    ways = [
        torch.zeros_like(nodes).scatter_reduce(0, where, said, way, include_self=False)
        for way in ("mean", "amax", "amin", "sum", "prod")
    ]
    degree = torch.zeros(nodes.shape[0]).scatter_add(0, edges[1], torch.ones(edges.shape[1]))
    return net.parts[0](torch.cat(ways, -1) * torch.log(degree + 1)[:, None])


def attention(net: Any, nodes: Any, edges: Any) -> Any:
    """As GAT: a softmax over the edges that end in a node."""
    score = F.leaky_relu(net.parts[0](torch.cat([nodes[edges[0]], nodes[edges[1]]], 1)))[:, 0]
    weight = (score - score.max()).exp()
    total = torch.zeros(nodes.shape[0]).index_add(0, edges[1], weight)
    return torch.zeros_like(nodes).index_add(0, edges[1], nodes[edges[0]] * (weight / total[edges[1]])[:, None])


def selected(net: Any, nodes: Any, edges: Any) -> Any:
    """Keeps some edges, as networks for tracking do: how many depends on the numbers."""
    edges = edges[:, edges[0] != edges[1]]
    return net.parts[0](nodes[edges[0]] - nodes[edges[1]]).mean()


def spectral_layer(net: Any, x: Any) -> Any:
    """As a Fourier neural operator."""
    weight = torch.view_as_complex(net.weight)
    return torch.fft.irfft2(torch.einsum("bixy,ioxy->boxy", torch.fft.rfft2(x)[:, :, :4, :4], weight), s=(16, 16))


def coupling(net: Any, x: Any) -> Any:
    kept, changed = x[:, :4], x[:, 4:]
    scale, shift = net.parts[0](kept).chunk(2, 1)
    return torch.cat([kept, changed * scale.tanh().exp() + shift], 1)[:, net.order]


def no_gradients(net: Any, x: Any) -> Any:
    with torch.no_grad():
        hidden = net.parts[0](x)
    return net.parts[0](hidden)


def reduced_precision(net: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.parts[0](x).float()


def looped(net: Any, x: Any) -> Any:
    from torch._higher_order_ops.while_loop import while_loop

    start = torch.zeros((), dtype=torch.int64)
    return while_loop(lambda step, x: step < 3, lambda step, x: (step + 1, net.parts[0](x)), (start, x))[1]


def scanned(net: Any, x: Any) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda total, row: (total + row, total * row), torch.zeros(8), x)


torch.manual_seed(0)
IMAGE, VOLUME, SEQUENCE = torch.randn(2, 3, 16, 16), torch.randn(2, 1, 8, 8, 8), torch.randn(2, 7, 8)
ROWS, WORDS = torch.randn(4, 8), torch.randint(0, 10, (2, 7))
NODES, EDGES = torch.randn(6, 8), torch.randint(0, 6, (2, 20))
MODELS: dict[str, tuple[Any, ...]] = {
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same"),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(),
            nn.GroupNorm(2, 8),
            nn.ReflectionPad2d(1),
            nn.CircularPad2d(1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        IMAGE,
    ),
    "volumes": (
        nn.Sequential(
            nn.Conv3d(1, 4, (3, 3, 2)),
            nn.LeakyReLU(0.3),
            nn.BatchNorm3d(4),
            nn.Upsample(scale_factor=2),
            nn.ConstantPad3d(1, 0),
            nn.AvgPool3d(2),
        ),
        VOLUME,
    ),
    "transposed": (
        nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.PixelUnshuffle(2)),
        IMAGE,
    ),
    "normalised": (
        nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
            nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)),
            nn.RMSNorm(8),
            nn.LayerNorm(8),
        ),
        ROWS,
    ),
    "batch statistics": (nn.BatchNorm1d(8, track_running_stats=False), ROWS),
    "transformer": (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), SEQUENCE),
    "causal": (
        Net(lambda n, x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)),
        SEQUENCE,
    ),
    "lstm": (nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True), SEQUENCE),
    "gru": (nn.GRU(8, 5, batch_first=True), SEQUENCE),
    "cells": (Net(lambda n, x: [part(x) for part in n.parts], nn.LSTMCell(8, 5), nn.GRUCell(8, 5)), ROWS),
    "bag": (nn.EmbeddingBag(10, 4, mode="mean"), WORDS),
    "bag with offsets": (
        Net(lambda n, x, y: n.parts[0](x, y), nn.EmbeddingBag(10, 4)),
        torch.arange(9),
        torch.tensor([0, 5]),
    ),
    "noise": (Net(lambda n, x: x + torch.randn_like(x) + torch.empty_like(x).uniform_()), ROWS),
    "flow": (Net(coupling, nn.Linear(4, 8), order=torch.randperm(8)), ROWS),
    "fourier": (Net(spectral_layer, weight=torch.randn(3, 3, 4, 4, 2)), IMAGE),
    "spectrogram": (
        Net(
            lambda n, x: torch.stft(x, 16, 4, window=n.window, return_complex=True).abs(), window=torch.hann_window(16)
        ),
        torch.randn(2, 64),
    ),
    "message passing": (Net(message_passing, nn.Linear(40, 2)), NODES, EDGES),
    "graph attention": (Net(attention, nn.Linear(16, 1)), NODES, EDGES),
    "selected edges": (Net(selected, nn.Linear(8, 1)), NODES, EDGES),
    "resized": (
        Net(
            lambda n, x: (
                [F.interpolate(x, scale_factor=2, mode=m) for m in ("nearest", "bilinear", "bicubic")]
                + [F.interpolate(x, size=(8, 8), mode="bilinear", antialias=True)]
            )
        ),
        IMAGE,
    ),
    "warped": (
        Net(
            lambda n, x: F.grid_sample(
                x,
                F.affine_grid(n.at.expand(x.shape[0], 2, 3), [x.shape[0], 3, 16, 16], align_corners=False),
                align_corners=False,
            ),
            at=torch.tensor([[1.0, 0, 0], [0, 1, 0]]),
        ),
        IMAGE,
    ),
    "sorted": (Net(lambda n, x: (x.sort(-1)[0], x.topk(2)[1], x.argsort(), x.median(1)[0], x.quantile(0.5, 1))), ROWS),
    "linear algebra": (
        Net(
            lambda n, x: (
                lambda a: (
                    torch.linalg.cholesky(a),
                    torch.linalg.inv(a),
                    torch.linalg.svd(a)[1],
                    torch.linalg.solve(a, x.T),
                    torch.linalg.eigvals(a).abs(),
                )
            )(x.T @ x + 8 * torch.eye(8))
        ),
        ROWS,
    ),
    "unfolded": (Net(lambda n, x: F.fold(F.unfold(x, 3, padding=1), (16, 16), 3, padding=1)), IMAGE),
    "unpooled": (Net(lambda n, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)), IMAGE),
    "strided": (Net(lambda n, x: x.contiguous().as_strided((x.shape[0], 3, 2, 8), (56, 16, 8, 1))), SEQUENCE),
    "counted": (Net(lambda n, x, y: x / torch.bincount(y[1], minlength=6)[:6, None].clamp(min=1)), NODES, EDGES),
    "in place": (
        Net(lambda n, x: x.clone().index_fill_(1, n.at, 1.0).clamp_(-1, 1).mul_(2), at=torch.tensor([2])),
        ROWS,
    ),
    "sizes": (Net(lambda n, x: x.new_zeros(x.shape[0] * 2 + 1, x.shape[1] // 2).sum() + x.sum()), ROWS),
    "branch": (
        Net(lambda n, x: torch.cond(x.sum() > 0, lambda x: n.parts[0](x), lambda x: -x, (x,)), nn.Linear(8, 8)),
        ROWS,
    ),
    "loop": (Net(looped, nn.Linear(8, 8)), ROWS),
    "scan": (Net(scanned), ROWS),
    "no gradients": (Net(no_gradients, nn.Linear(8, 8)), ROWS),
    "autocast": (Net(reduced_precision, nn.Linear(8, 8)), ROWS),
}


def written(program: Any) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return exported._strip(buffer.getvalue())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_real_models_load_as_they_are_and_in_the_core_operators(name: str) -> None:
    net, *values = MODELS[name]
    net = net.eval()
    names = ["x", "y"] if isinstance(net, Net) else list(inspect.signature(net.forward).parameters)
    inputs = dict(zip(names, values, strict=False))
    program = tracing.trace(net, inputs, keep=lambda program: program).program
    state = {**net.state_dict(), **program.state_dict}
    forms = ["as it is", "decomposed"]
    for form in forms[: 1 if name == "linear algebra" else 2]:  # torch makes tokens of its checks, which are not listed
        made = program if form == "as it is" else program.run_decompositions()
        loaded = exported.load(written(made), state)
        with torch.no_grad():
            torch.manual_seed(1)
            expected = torch.utils._pytree.tree_leaves(net(*values))
            torch.manual_seed(1)
            got = torch.utils._pytree.tree_leaves(loaded(**inputs))
        assert len(got) == len(expected)
        for one, two in zip(got, expected, strict=True):
            assert torch.allclose(one, two, atol=1e-4, equal_nan=True), form


def named(**arguments: Any) -> list[dict[str, Any]]:
    """The arguments of a call, as a graph has them."""
    kinds = {str: "as_string", int: "as_int", float: "as_float", list: "as_ints"}
    return [
        {
            "name": name.removesuffix("_"),
            "arg": value if isinstance(value, dict) else {kinds[type(value)]: value},
            "kind": 1,
        }
        for name, value in arguments.items()
    ]


T = {"as_tensor": {"name": "x"}}


@pytest.mark.parametrize(
    "name",
    [
        "max_pool2d_with_indices_backward.default",
        "embedding_dense_backward.default",
        "index_put_.hacked_twin_x",
        "_print.default",
        "set_.source_Storage",
        "set_.source_Tensor",
        "resize_.default",
        "_resize_output_.default",
        "as_strided_.default",
        "empty_strided.default",
        "_unsafe_masked_index_put_accumulate.default",
        "warn.default",
        "_sparse_coo_tensor_unsafe.default",
        "_sparse_csr_tensor_unsafe.default",
        "sparse_resize_.default",
        "_nested_view_from_buffer.default",
        "_reshape_alias.default",
        "_fused_adam_.default",
        "_foreach_add.List",
        "_thnn_fused_lstm_cell.default",
        "_pack_padded_sequence.default",
        "lstm.data",
        "add.out",
        "add.t",
        "add.str",
        "mul.left_t",
        "pow.int",
        "_validate_compressed_sparse_indices.default",
        "quantize_per_tensor.default",
        "_make_per_tensor_quantized_tensor.default",
        "segment_reduce.default",
        "record_stream.default",
        "pin_memory.default",
        "_local_scalar_dense",
        "relu",
        "seed.default",
        "manual_seed.default",
        "from_file.default",
        "unsafe.default",
    ],
)
def test_other_operators_of_aten_are_refused(name: str) -> None:
    with pytest.raises(SerializationError, match="not on the list of operators"):
        calls.check(f"torch.ops.aten.{name}", named(self=T))


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("full.default", named(size=[1 << 40], fill_value=0.0)),
        ("zeros.default", named(size=[1 << 20, 1 << 20])),
        ("zeros.default", named(size={"as_sym_ints": [{"as_int": 1 << 30}, {"as_name": "s0"}]})),
        ("arange.default", named(end=1 << 50)),
        ("arange.start_step", named(start=0, end=1, step=1e-12)),
        ("arange.default", named(end=math.inf)),
        ("eye.m", named(n=1 << 20, m=1 << 20)),
        ("tril_indices.default", named(row=1 << 20, col=1 << 20)),
        ("repeat.default", named(self=T, repeats=[1 << 40])),
        ("tile.default", named(self=T, dims=[1 << 40])),
        ("repeat_interleave.self_int", named(self=T, repeats=1 << 40)),
        (
            "upsample_nearest2d.vec",
            named(input=T, output_size={"as_none": True}, scale_factors={"as_floats": [1e9, 1e9]}),
        ),
        ("upsample_nearest2d.default", named(self=T, output_size=[1 << 20, 1 << 20])),
        ("constant_pad_nd.default", named(self=T, pad=[1 << 40, 0])),
        ("one_hot.default", named(self=T, num_classes=1 << 40)),
        ("bincount.default", named(self=T, minlength=1 << 40)),
        ("histc.default", named(self=T, bins=1 << 40)),
        ("fft_fft.default", named(self=T, n=1 << 40)),
        ("chunk.default", named(self=T, chunks=1 << 30)),
        ("mvlgamma.default", named(self=T, p=1 << 40)),
        ("linspace.default", named(start=0, end=1, steps=1 << 40)),
        ("randperm.default", named(n=1 << 40)),
        ("narrow.default", named(self=T, dim=0, start=1 << 64, length=1)),
    ],
)
def test_numbers_that_would_exhaust_memory_are_refused_before_torch_sees_them(name: str, arguments: Any) -> None:
    with pytest.raises(SerializationError, match=r"one call may make|a number that is none"):
        calls.check(f"torch.ops.aten.{name}", arguments)


def test_numbers_that_say_where_may_be_large() -> None:
    calls.check("torch.ops.aten.slice.Tensor", named(self=T, dim=0, start=0, end=2**63 - 1))
    calls.check("torch.ops.aten.view.default", named(self=T, size=[1 << 20, 1 << 20]))
    calls.check("torch.ops.aten.masked_fill.Scalar", named(self=T, mask=T, value=-1e300))


def test_arguments_that_an_operator_does_not_have_are_refused() -> None:
    for arguments in (named(self=T, evil=1), named(), [*named(self=T), *named(self=T)], "x", [{"name": "self"}], None):
        with pytest.raises(SerializationError, match=r"arguments"):
            calls.check("torch.ops.aten.relu.default", arguments)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "Max(" + ", ".join(f"u{number}" for number in range(200)) + ")",
        "Max(" * 15 + "u0" + "".join(f", u{number})" for number in range(15)),
        "Pow(Integer(9), Integer(999999999))",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
        "Mul(" * 70 + "Integer(2)" + ", Integer(2))" * 70,
        "LShift(Integer(1), Integer(99999999999))",
        "PowByNatural(Symbol('s0'), Symbol('s1'))",
        "Pow(Integer(2), Integer(10)) ** 10 ** 10",
        "Symbol('x')",
        "Symbol('u99999999999')",
        "Symbol('s0', evil=True)",
        "Symbol(__import__('os'))",
        "Float('9' * 10**9)",
        "Integer('9')",
        "factorial(Integer(999999))",
        "Integral(Symbol('s0'))",
        "s0!",
        "s0.__class__",
        "[s0]",
        "1 if 1 else 2",
        "Float('1', precision=10**9)",
        "+".join(["s0"] * 5000),
        "(" * 500 + "s0" + ")" * 500,
        "binomial(9, 4)",
        "",
        None,
        7,
        "Mul(" + ", ".join(["Integer(99999999999999999999999999)"] * 90) + ")",
    ],
)
def test_expressions_that_would_not_end_or_are_no_arithmetic_are_refused(text: Any) -> None:
    with pytest.raises(SerializationError, match="which is not plain arithmetic"):
        expressions.checked(text)


def test_expressions_are_spelt_as_sympy_spells_them() -> None:
    import sympy
    from torch.utils._sympy import functions

    x, y = sympy.Symbol("s77", positive=True, integer=True), sympy.Symbol("u0", integer=True)
    for made in (
        x <= y,
        x < 7,
        x >= 2,
        sympy.Eq(x, y),
        sympy.Ne(x, y),
        sympy.And(x > 1, y < 2),
        sympy.Not(sympy.Eq(x, 3)),
        sympy.Max(x, y),
        sympy.Min(x, 5),
        3 * x**2 - 1,
        functions.FloorDiv(x + 1, 2),
        functions.PythonMod(x, y),
        functions.Mod(x, 3),
        functions.CeilToInt(functions.IntTrueDiv(x, 2)),
        functions.ToFloat(x) * 0.5,
        functions.ModularIndexing(x, 2, 3),
        sympy.Rational(1, 2) * x,
        functions.TruncToInt(functions.FloatTrueDiv(x, 2)),
    ):
        text = sympy.srepr(made)
        names = {name: getattr(functions, name) for name in dir(functions) if name[0].isupper()}
        assert sympy.sympify(expressions.checked(text), locals={**names, "Max": sympy.Max, "Min": sympy.Min}) == made, (
            text
        )
    expressions.checked("FloatPow(FloatTrueDiv(Float('1.0', precision=53), ToFloat(Symbol('s53'))), Float('0.5'))")
    expressions.checked("Pow(Symbol('s53', positive=True), Rational(-1, 2))")
    assert sympy.sympify(expressions.checked("2*s0 + s1**2 - 1")) == sympy.sympify("2*s0 + s1**2 - 1")


def test_expressions_that_are_too_many_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "MAX_WORK", 1_000)
    few = [{"expr_str": "Max(s0, s1)"} for _ in range(8)]
    exported._check({"planted": few})
    with pytest.raises(SerializationError, match="more expressions of sizes than a network has"):
        exported._check({"planted": few + few})


def test_symbols_that_torch_would_count_up_to_are_refused() -> None:
    graph = {"range_constraints": {"u999999999999": {"min_val": 0, "max_val": None}}}
    with pytest.raises(SerializationError, match="torch would not write"):
        exported._check(graph)


@pytest.fixture(scope="module")
def net() -> Any:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()


@pytest.fixture(scope="module")
def archive(net: Any) -> bytes:
    return exported.export(net, {"input": torch.randn(4, 3)})[0]


@pytest.mark.parametrize(
    "state",
    [
        {"0.weight": torch.zeros(2, 300_000)},
        {"0.weight": torch.zeros(2, 3, dtype=torch.float64)},
        {"1.running_mean": torch.zeros(1)},
        {"0.bias": torch.zeros(2, 1)},
    ],
)
def test_weights_of_other_sizes_than_the_graph_takes_are_refused_before_torch_reads_it(
    net: Any, archive: bytes, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exported, "_opened", lambda data: pytest.fail("torch reads the graph"))
    with pytest.raises(SerializationError, match=r"the graph takes .* stored is"):
        exported.load(archive, {**net.state_dict(), **state})


@pytest.mark.parametrize("sizes, stored", [([1 << 40], 0), ([1 << 20, 1 << 20], 4), ([3], 8), ([-1], 8)])
def test_constants_larger_than_their_bytes_are_refused(sizes: list[int], stored: int) -> None:
    meta = {
        "dtype": 7,
        "sizes": [{"as_int": size} for size in sizes],
        "strides": [{"as_int": 1} for _ in sizes],
        "storage_offset": {"as_int": 0},
    }
    with pytest.raises(SerializationError, match=r"bytes are stored for it|described wrongly"):
        tables.fits("constant", meta, stored)


O, P = torch.ops.aten, torch.ops.prims  # noqa: E741
LONG = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    "operator, args",
    [
        (O._native_batch_norm_legit_no_training.default, (ROWS, None, None, torch.zeros(1), torch.zeros(1), 0.1, 1e-5)),
        (O._native_batch_norm_legit.no_stats, (ROWS, None, torch.zeros(1), True, 0.1, 1e-5)),
        (O.native_batch_norm.default, (ROWS, None, None, None, None, False, 0.1, 1e-5)),
        (O._fft_c2r.default, (torch.zeros(4, 2, dtype=torch.complex64), [1], 0, 1 << 20)),
        (O._fft_c2c.default, (torch.zeros(4, 2, dtype=torch.complex64), [7], 0, True)),
        (O._embedding_bag.default, (ROWS, LONG, torch.tensor([0, 1 << 40]))),
        (O._embedding_bag.default, (ROWS, torch.tensor([0, 99]), torch.tensor([0]))),
        (O.embedding_bag.default, (ROWS, LONG, torch.tensor([0, -5]))),
        (O._weight_norm_interface.default, (ROWS, torch.ones(1, 1), 0)),
        (O.as_strided.default, (ROWS, [9], [1 << 40])),
        (O.as_strided.default, (ROWS[2:], [4], [1], 0)),
        (O._pdist_forward.default, (torch.zeros(2, 2, 0, 3), 1.0)),
        (O.linalg_eigvals.default, (torch.full((4, 4), float("nan")),)),
        (O.bincount.default, (torch.tensor([1 << 40]),)),
        (O.one_hot.default, (torch.tensor([1 << 40]),)),
        (O.repeat_interleave.Tensor, (torch.tensor([1 << 40]),)),
        (O.repeat_interleave.self_int, (ROWS, 1 << 40)),
        (O.zeros.default, ([1 << 40],)),
        (O.arange.default, (1 << 40,)),
        (O.upsample_nearest2d.vec, (IMAGE, None, [1e6, 1e6])),
        *[
            (kernel.default, (IMAGE, [12, 14], False, *scales))
            for kernel in (O._upsample_bilinear2d_aa, O._upsample_bicubic2d_aa)
            for scales in ((1e-6, 0.001), (None, 1e-6), (0.001, None), (0.05, 2.0), (1e-30, 1e-30))
        ],
        (O.constant_pad_nd.default, (ROWS, [1 << 40, 0])),
        (O.diag_embed.default, (torch.zeros(1 << 17),)),
        (O.expand.default, (torch.zeros(1), [1 << 40])),
        (O.expand.default, (torch.zeros(1 << 20, 1), [-1, 1 << 20])),
        (O.broadcast_to.default, (torch.zeros(1), [1 << 40])),
        (P.broadcast_in_dim.default, (torch.zeros(1), [1 << 40], [0])),
        (P.full.default, ([1 << 40], 0.0)),
        (P.iota.default, (1 << 40,)),
        (P.div.default, (torch.tensor([-(1 << 63)]), torch.tensor([-1]))),
        *[
            (kernel.default, (torch.ones(2, 1, 3, 8), torch.ones(*sizes), torch.ones(*sizes)))
            for kernel in (O._scaled_dot_product_flash_attention_for_cpu, O._scaled_dot_product_flash_attention)
            for sizes in ((1, 1, 4, 8), (2, 2, 4, 8), (2, 1, 4, 9))
        ],
        (O.outer.default, (torch.zeros(1 << 17), torch.zeros(1 << 17))),
        *[
            (O._native_multi_head_attention.default, (*[torch.ones(2, 3, 8)] * 3, 8, heads, *[torch.ones(8)] * 4))
            for heads in (0, -2, 3)
        ],
        *[
            (O._transformer_encoder_layer_fwd.default, (torch.ones(2, 3, 8), 8, heads, *[torch.ones(8)] * 4))
            for heads in (0, -2, 3)
        ],
    ],
    ids=lambda value: str(value) if not isinstance(value, tuple) else "",
)
def test_what_torch_itself_trusts_is_checked_when_the_graph_runs(operator: Any, args: Any) -> None:
    with pytest.raises(ValueError, match="the graph asks for"):
        guards._guarded(operator)(*args)


@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("operator", [O.div.Tensor_mode, O.div_.Tensor_mode, O.divide.Tensor_mode])
def test_the_least_integer_is_not_divided_by_minus_one(operator: Any, kind: torch.dtype) -> None:
    """The processor ends a process for it, also where an honest graph gets it as an input."""
    least = torch.iinfo(kind).min
    checked = guards._guarded(operator)
    with pytest.raises(ValueError, match=f"{least} divided by -1"):
        checked(torch.tensor([1, least], dtype=kind), torch.tensor(-1, dtype=kind), rounding_mode="trunc")
    done = checked(torch.tensor([7, least], dtype=kind), torch.tensor([-1, 1], dtype=kind), rounding_mode="trunc")
    assert done.tolist() == [-7, least]
    if operator is O.div.Tensor_mode:
        floor = checked(torch.tensor([7], dtype=kind), torch.tensor([-2], dtype=kind), rounding_mode="floor")
        assert floor.tolist() == [-4]


def test_attention_and_views_run_as_before_behind_their_checks() -> None:
    query, key = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8)
    kernel = O._scaled_dot_product_flash_attention_for_cpu.default
    for mask in (None, torch.zeros(4, 5), torch.zeros(2, 1, 4, 5), torch.zeros(2, 3, 4, 5)):
        given = (query, key, key, 0.0, False)
        assert torch.equal(guards._guarded(kernel)(*given, attn_mask=mask)[0], kernel(*given, attn_mask=mask)[0])
    with pytest.raises(ValueError, match="with a mask of"):
        guards._guarded(kernel)(query, key, key, attn_mask=torch.zeros(7, 5))
    assert guards._guarded(O.expand.default)(torch.ones(3, 1), [2, -1, 4]).shape == (2, 3, 4)


def test_a_loaded_graph_runs_behind_the_checks() -> None:
    """A stored number decides how much is made: `bincount` of a buffer, and integers that grow without end."""
    net = Net(lambda n, x: x.sum() + torch.bincount(n.at).sum(), at=torch.tensor([3]))
    graph = exported.export(net, {"x": ROWS})[0]
    assert exported.load(graph, net.state_dict())(x=ROWS) == ROWS.sum() + 1
    with pytest.raises(ValueError, match="numbers in one call"):
        exported.load(graph, {"at": torch.tensor([1 << 40])})(x=ROWS)
    with pytest.raises(ValueError, match="a size of"):
        guards._guarded(__import__("operator").pow)(9, 1 << 60)


def test_a_graph_of_the_list_that_torch_cannot_read_is_not_published() -> None:
    """`torch.export.save` writes what `torch.export.load` refuses: no gradients around the last call."""

    class Switching(nn.Linear):
        def forward(self, x: Any) -> Any:
            with torch.set_grad_enabled(True):
                y = super().forward(x)
            return y * 2

    with torch.no_grad(), pytest.raises(SerializationError, match=r"cannot load the graph.*wrap_with_set_grad_enabled"):
        exported.export(Switching(8, 8), {"x": ROWS})


def in_halves(net: Any, x: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.parts[0](x)


def repeated(net: Any, x: Any) -> Any:
    from torch._higher_order_ops.while_loop import while_loop

    return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, net.parts[0](x)), (torch.tensor(0), x))[1]


@pytest.mark.parametrize("function", [in_halves, repeated])
def test_the_scan_has_the_list_of_the_loader(function: Any, tmp_path: Path) -> None:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        version = catalog.save("m", Net(function, nn.Linear(8, 8)), example={"x": torch.ones(2, 8)})
        version.load()
        assert {check.id: check.result for check in version.verify().checks}["unsafe"] == "passed"


def wild(tmp_path: Path, trials: int, *names: str) -> str:
    script = Path(__file__).with_name("torch_wild.py")
    command = [sys.executable, str(script), str(trials), "11", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False)
    assert "tried" in done.stdout, done.stdout + done.stderr
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith(("SIGNAL", "MEMORY")))


def test_wild_arguments_crash_none_of_the_operators_that_trust_theirs(tmp_path: Path) -> None:
    checked = [name for name in guards._CHECKS if name in operations.ATEN]
    assert wild(tmp_path, 60, *checked[:40], "gather", "scatter", "index_put", "embedding", "lstm", "take") == ""


@pytest.mark.campaign
def test_wild_arguments_crash_no_operator(tmp_path: Path) -> None:
    assert wild(tmp_path, 400) == ""


def test_a_division_by_nothing_among_the_sizes_of_a_graph_is_one_error() -> None:
    class Divides(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.new_zeros(4 // (len(x) - 2))

    notes = {"inputs": {"forward": ["x"]}, "order": []}
    graph = ExportedModule({"forward": Divides()}, {}, notes)
    assert graph(torch.ones(3)).shape == (4,)
    with pytest.raises(InvalidInput, match=r"cannot take x: \[2\]: integer division"):
        graph(torch.ones(2))
