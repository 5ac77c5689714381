"""What is held against its tensors each time a stored graph runs: operators that torch itself trusts there.

Some forward operators read or write beyond their tensors where sizes or indices do not agree (batch norms without
their means, transforms with fewer numbers than they say, bags with offsets outside of the indices), and some make as
much as a tensor says (`bincount`). Each keeps its place in the graph, behind a check. `ValueError` says what was
refused.
"""

from __future__ import annotations

import functools
import math
import operator as python
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

MAX_NUMBERS = 1 << 30  # that one call may make; the sizes may follow from the inputs
MAX_BITS = 128  # of a size that is computed
Check = Callable[[Mapping[str, Any]], None]


def install(module: torch.nn.Module) -> None:
    """Put the checks before the operators that need one, in all graphs of a loaded module."""
    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        changed = False
        for node in part.graph.nodes:
            found = _guarded(node.target) if node.op == "call_function" else None
            if found is not None:
                node.target, changed = found, True
        if changed:
            part.recompile()


@functools.cache
def _guarded(target: Any) -> Any:
    """`target` behind its check; None where it needs none."""
    if target in (python.mul, python.pow, python.add, python.sub):
        return _bounded(target)
    if not isinstance(target, torch._ops.OpOverload):
        return None
    name = target._schema.name.removeprefix("aten::")
    check = _CHECKS.get(name, _CHECKS.get(name.removesuffix("_")))  # in place it is the same operator
    if check is None:
        return None
    arguments = target._schema.arguments
    names = [argument.name for argument in arguments]
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}

    def run(*args: Any, **kwargs: Any) -> Any:
        check({**defaults, **dict(zip(names, args, strict=False)), **kwargs})
        return target(*args, **kwargs)

    run.__name__ = f"checked_{name.replace('::', '_')}_{target._overloadname}"
    return run


def _bounded(target: Any) -> Any:
    def run(left: Any, right: Any) -> Any:
        """Sizes that a graph computes stay sizes: Python's own integers grow without end."""
        if type(left) is int and type(right) is int:
            bits = left.bit_length() * max(1, right) if target is python.pow else left.bit_length() + right.bit_length()
            _need(bits <= MAX_BITS, f"a size of {bits:,} bits")
        return target(left, right)

    run.__name__ = f"checked_{target.__name__}"
    return run


def _need(good: Any, what: str) -> None:
    if not good:
        raise ValueError(f"the graph asks for {what}, which torch would not have checked")


def _known(*values: Any) -> bool:
    """Whether tensors have numbers: not while another tool traces the graph."""
    return all(type(value) in (torch.Tensor, torch.nn.Parameter) and not value.is_meta for value in values)


def _make(count: Any) -> None:
    if isinstance(count, (int, float)):
        _need(count <= MAX_NUMBERS, f"{count:,} numbers in one call (at most {MAX_NUMBERS:,})")


def _product(sizes: Any) -> Any:
    return math.prod(max(1, size) for size in sizes if isinstance(size, (int, float)))


def _channels(call: Mapping[str, Any]) -> None:
    """Of a batch norm: what is given for each channel has as many numbers as there are channels."""
    value = call["input"]
    _need(value.dim() >= 2, "a batch norm of fewer than two axes")
    for name in ("weight", "bias", "running_mean", "running_var"):
        given = call.get(name)
        if given is not None:
            _need(tuple(given.shape) == (value.shape[1],), f"a batch norm whose {name} is {list(given.shape)}")
            _need(given.is_floating_point(), f"a batch norm whose {name} is {given.dtype}")
    if call.get("training", call.get("train", False)) is not True and "running_mean" in call:
        both = call["running_mean"] is not None and call["running_var"] is not None
        _need(both, "a batch norm without its means")
    _need("running_mean" in call or call.get("training", True), "a batch norm without its means")
    _need(value.is_floating_point() and value.numel(), "a batch norm of no floating-point numbers")


def _transform(call: Mapping[str, Any]) -> None:
    value, axes = call["self"], call["dim"]
    good = len(axes) > 0 and all(-value.dim() <= axis < value.dim() for axis in axes) and value.numel() > 0
    _need(good and len({axis % value.dim() for axis in axes}) == len(axes), f"a transform along {list(axes)}")
    if "last_dim_size" in call:
        size = call["last_dim_size"]
        _need(size > 0 and value.shape[axes[-1]] >= size // 2 + 1, f"a transform of {size} numbers from fewer")
    _need(value.is_complex() or "onesided" in call, f"a transform of {value.dtype}")


def _bag(call: Mapping[str, Any]) -> None:
    weight, indices, offsets = call["weight"], call["indices"], call["offsets"]
    flat = weight.dim() == 2 and indices.dim() == 1 and offsets.dim() == 1
    _need(flat, "a bag whose weights, indices and offsets have other axes than 2, 1 and 1")
    whole = indices.dtype in (torch.int32, torch.int64) and offsets.dtype in (torch.int32, torch.int64)
    skipped = call.get("padding_idx")
    _need(whole and (skipped is None or -len(weight) <= skipped < len(weight)), "a bag of other indices than its own")
    given = call.get("per_sample_weights")
    _need(given is None or given.shape == indices.shape, "a bag with other weights than it has samples")
    _need(not call.get("include_last_offset") or len(offsets), "a bag without a last offset")
    if _known(weight, indices, offsets):
        for values, above, what in ((indices, len(weight), "indices"), (offsets, len(indices) + 1, "offsets")):
            inside = not len(values) or 0 <= int(values.min()) <= int(values.max()) < above
            _need(inside, f"a bag with {what} outside of 0 to {above - 1}")
        _need(not len(offsets) or bool((offsets.diff() >= 0).all()), "a bag whose offsets go back")
        if len(offsets):
            _need(int(offsets[0]) == 0, "a bag whose first offset is not 0")


def _norm(call: Mapping[str, Any]) -> None:
    v, g, dim = call["v"], call["g"], call["dim"]
    good = v.dim() > 0 and dim in (0, v.dim() - 1) and v.numel() > 0
    _need(good and g.dim() == v.dim() and g.numel() == g.shape[dim] == v.shape[dim], "a weight norm of other sizes")


def _strided(call: Mapping[str, Any]) -> None:
    """Only what the tensor itself holds: torch would give all of the memory that it is a view of."""
    value, sizes, strides, offset = call["self"], call["size"], call["stride"], call["storage_offset"] or 0
    good = len(sizes) == len(strides) and all(number >= 0 for number in (*sizes, *strides, offset))
    _need(good and value.is_contiguous() and value.storage_offset() == 0, "a view of memory that is not one tensor's")
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    _need(0 in sizes or last < value.numel(), "a view beyond a tensor")


def _finite(call: Mapping[str, Any]) -> None:
    value = call["self"]
    _need(not _known(value) or bool(value.isfinite().all()), "the eigenvalues of what is not finite")


def _pairs(call: Mapping[str, Any]) -> None:
    _need(call["self"].dim() == 2 and call["self"].is_floating_point(), "distances within something else than rows")


def _attention(call: Mapping[str, Any]) -> None:
    """Of the kernels below `scaled_dot_product_attention`, which compares what they are given."""
    query, key, value = call["query"], call["key"], call["value"]
    good = query.dim() == key.dim() == value.dim() == 4 and query.dtype == key.dtype == value.dtype
    good = good and query.is_floating_point() and query.shape[:2] == key.shape[:2] == value.shape[:2]
    good = good and key.shape[2] == value.shape[2] and query.shape[3] == key.shape[3] == value.shape[3]
    _need(good, "an attention whose queries, keys and values are of different sizes")
    for name in ("attn_mask", "attn_bias"):
        mask = call.get(name)
        if mask is not None:
            sizes = (*query.shape[:3], key.shape[2])
            fits = mask.dim() in (2, 4) and all(
                size in (1, wanted) for size, wanted in zip(reversed(mask.shape), reversed(sizes), strict=False)
            )
            _need(fits and mask.dtype in (torch.bool, query.dtype), f"an attention with a mask of {list(mask.shape)}")


def _heads(call: Mapping[str, Any]) -> None:
    """Of the fused layers, which divide by the number of heads."""
    heads, size = call["num_head" if "num_head" in call else "num_heads"], call["embed_dim"]
    _need(heads > 0 and size > 0 and size % heads == 0, f"an attention of {size} numbers in {heads} heads")


def _divided(call: Mapping[str, Any]) -> None:
    if call.get("rounding_mode") == "trunc":
        _quotient(call)


def _quotient(call: Mapping[str, Any]) -> None:
    """The least integer divided by -1 ends the process: the result is one more than its type can hold."""
    one, other = call["self"], call["other"]
    tensors = [value for value in (one, other) if isinstance(value, torch.Tensor)]
    if not _known(*tensors) or any(value.is_floating_point() or value.is_complex() for value in tensors):
        return
    if any(isinstance(value, float) for value in (one, other)):
        return
    least = torch.iinfo(kind).min if (kind := torch.result_type(one, other)) not in (torch.bool, torch.uint8) else None
    if least is not None:
        over = torch.logical_and(torch.as_tensor(one) == least, torch.as_tensor(other) == -1)
        _need(not bool(over.any()), f"{least} divided by -1, which no {str(kind)[6:]} can hold")


def _observed(call: Mapping[str, Any]) -> None:
    value, rows = call["self"], call["per_row_fake_quant"]
    good = value.dtype is torch.float32 and value.numel() > 0 and (not rows or 0 <= call["ch_axis"] < value.dim())
    count = value.shape[call["ch_axis"]] if good and rows else 1
    for name in ("running_min", "running_max", "scale", "zero_point"):
        good = good and call[name].dim() <= 1 and call[name].numel() == count
        good = good and call[name].dtype is (torch.int32 if name == "zero_point" else torch.float32)
    for name in ("observer_on", "fake_quant_on"):
        good = good and call[name].numel() == 1 and call[name].dtype in (torch.int64, torch.int32, torch.uint8)
    _need(good, "an observer whose statistics are of other sizes or types than its channels")


def _sized(*names: str, of: str | None = None) -> Check:
    """At most `MAX_NUMBERS`, whose sizes are the arguments `names`, for each number (or each row) of `of`."""

    def check(call: Mapping[str, Any]) -> None:
        sizes: list[Any] = []
        for name in names:
            given = call.get(name)
            sizes += given if isinstance(given, Sequence) else [] if given is None else [given]
        _make(_product(sizes) * (1 if of is None else max(1, call[of].numel())))

    return check


def _resized(call: Mapping[str, Any]) -> None:
    value = call["self"] if "self" in call else call["input"]
    sizes, scales = call.get("output_size"), call.get("scale_factors")
    if sizes is not None:
        _make(_product([*value.shape[: value.dim() - len(sizes)], *sizes]))
    elif scales is not None:
        _make(value.numel() * _product(scales))


def _spread(call: Mapping[str, Any]) -> None:
    """A view may repeat one number without end, and what reads it takes as long."""
    value, sizes = call["self"] if "self" in call else call["a"], call["size"] if "size" in call else call["shape"]
    own = [*[1] * (len(sizes) - value.dim()), *value.shape]
    _make(_product(have if size == -1 else size for size, have in zip(sizes, own, strict=False)))


def _padded(call: Mapping[str, Any]) -> None:
    value, pads = call["self"], call["pad"] if "pad" in call else call["padding"]
    sizes = list(value.shape)
    for number in range(min(len(pads) // 2, len(sizes))):
        sizes[-1 - number] += pads[2 * number] + pads[2 * number + 1]
    _make(_product(sizes))


def _ranged(call: Mapping[str, Any]) -> None:
    start, end, step = call.get("start", 0), call["end"], call.get("step", 1)
    if all(isinstance(number, (int, float)) for number in (start, end, step)) and step:
        _make(abs((end - start) / step))


def _counted(call: Mapping[str, Any]) -> None:
    value = call["self"]
    most = int(value.max()) if _known(value) and value.numel() and not value.is_floating_point() else 0
    least = call.get("minlength", 0)
    if "num_classes" in call:
        _make(max(most + 1, call["num_classes"]) * max(1, value.numel()))
    else:
        _make(max(most, least if isinstance(least, int) else 0))


def _repeated(call: Mapping[str, Any]) -> None:
    repeats, value = call["repeats"], call.get("self")
    if isinstance(repeats, torch.Tensor):
        if _known(repeats) and repeats.numel() and not repeats.is_floating_point():
            _need(int(repeats.min()) >= 0, "a negative number of repetitions")
            each = 1 if value is None else max(1, value.numel() // max(1, repeats.numel()))
            total = float(repeats.double().sum())
            _make(total * each)
            _need(call.get("output_size") in (None, int(total)), "another size than the repetitions give")
    else:
        _make((1 if value is None else max(1, value.numel())) * max(1, repeats))


def _multiplied(call: Mapping[str, Any]) -> None:
    """What takes every number of one tensor with every number of the others."""
    parts = [value for value in call.values() if isinstance(value, torch.Tensor)]
    parts += [value for value in call.get("tensors") or () if isinstance(value, torch.Tensor)]
    _make(_product([part.numel() for part in parts]) * max(1, len(parts)))


def _squared(call: Mapping[str, Any]) -> None:
    value = call["self"]
    _make(value.numel() * max(1, value.shape[-1] if value.dim() else 1))


def _smoothed(call: Mapping[str, Any]) -> None:
    """A resize with smoothing believes its scales: where they do not fit the sizes, the last numbers that it makes are
    of places behind the image."""
    _resized(call)
    value, sizes = call["self"] if "self" in call else call["input"], call.get("output_size")
    if sizes is None or call.get("align_corners"):
        return  # the sizes follow from the scales, or the scales from the sizes
    scales = call.get("scale_factors") or (call.get("scales_h"), call.get("scales_w"))
    for size, length, scale in zip(sizes, value.shape[-2:], scales, strict=False):
        if scale is not None and scale > 0 and not (size - 0.5) / scale < length:
            raise ValueError(f"the graph asks for {size} numbers of {length}, resized by a scale of {scale:g}")


_CHECKS: dict[str, Check] = {
    **dict.fromkeys(
        ["_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "native_batch_norm"], _channels
    ),
    **dict.fromkeys(["_fft_c2c", "_fft_c2r", "_fft_r2c"], _transform),
    **dict.fromkeys(["embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"], _bag),
    **dict.fromkeys(["_weight_norm", "_weight_norm_interface"], _norm),
    **dict.fromkeys(["linalg_eigvals", "linalg_eig", "linalg_cond"], _finite),
    **dict.fromkeys(["fused_moving_avg_obs_fake_quant", "_fused_moving_avg_obs_fq_helper"], _observed),
    **dict.fromkeys(
        [f"_scaled_dot_product_{kind}_attention{ends}" for kind in ("flash", "efficient", "cudnn")
         for ends in ("", "_for_cpu")],
        _attention,
    ),
    **dict.fromkeys(["_native_multi_head_attention", "_transformer_encoder_layer_fwd"], _heads),
    **dict.fromkeys(["div", "divide"], _divided),
    "prims::div": _quotient,
    **dict.fromkeys(["expand", "expand_copy", "broadcast_to", "prims::broadcast_in_dim"], _spread),
    "prims::full": _sized("shape"),
    "prims::iota": _sized("length"),
    "_pdist_forward": _pairs,
    "as_strided": _strided,
    **dict.fromkeys(
        ["zeros", "ones", "full", "empty", "rand", "randn", "randint", "new_zeros", "new_ones", "new_full", "new_empty",
         "empty_permuted", "affine_grid_generator"],
        _sized("size"),
    ),
    **dict.fromkeys(["repeat"], _sized("repeats", of="self")),
    **dict.fromkeys(["tile"], _sized("dims", of="self")),
    **dict.fromkeys(["linspace", "logspace"], _sized("steps")),
    **dict.fromkeys(["eye"], _sized("n", "m")),
    **dict.fromkeys(["randperm", "fft_fftfreq", "fft_rfftfreq"], _sized("n")),
    **dict.fromkeys(["tril_indices", "triu_indices"], _sized("row", "col")),
    **dict.fromkeys([f"{kind}_window" for kind in ("bartlett", "blackman", "hamming", "hann", "kaiser")],
                    _sized("window_length")),
    **dict.fromkeys([f"fft_{kind}fft" for kind in ("", "i", "r", "ir", "h", "ih")], _sized("n", of="self")),
    **dict.fromkeys([f"fft_{kind}fft{ends}" for kind in ("", "i", "r", "ir", "h", "ih") for ends in ("2", "n")],
                    _sized("s", of="self")),
    **dict.fromkeys(["histc"], _sized("bins")),
    **dict.fromkeys(
        [f"{prefix}upsample_{kind}"
         for kind in ("bicubic2d", "bilinear2d", "linear1d", "nearest1d", "nearest2d", "nearest3d", "trilinear3d",
                      "nearest_exact1d", "nearest_exact2d", "nearest_exact3d")
         for prefix in ("", "_")]
        + [f"{prefix}adaptive_{kind}_pool{axes}d"
           for prefix in ("", "_") for kind in ("avg", "max") for axes in (1, 2, 3)]
        + ["col2im", "max_unpool2d", "max_unpool3d", "fractional_max_pool2d", "fractional_max_pool3d"],
        _resized,
    ),
    **dict.fromkeys(["_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_lanczos2d_aa"], _smoothed),
    **dict.fromkeys(
        ["constant_pad_nd", "pad", "_pad_circular", "_pad_enum",
         *[f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)]],
        _padded,
    ),
    "arange": _ranged,
    "bincount": _counted,
    "one_hot": _counted,
    "repeat_interleave": _repeated,
    **dict.fromkeys(["outer", "ger", "kron", "cartesian_prod"], _multiplied),
    **dict.fromkeys(["diag_embed", "diagflat"], _squared),
}  # fmt: skip
