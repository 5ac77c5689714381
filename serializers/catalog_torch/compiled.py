"""Modules that AOTInductor compiled for one kind of device: machine code, quick to start, and of use there only."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from catalog_core import tensors
from catalog_core.errors import BackendError, InvalidInput, NotTrusted, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.session import in_order
from catalog_core.values import refuse_pickle
from catalog_torch import exported, tracing
from catalog_torch.serializer import TorchSerializer, _evaluating, _Method, _path, _place, _tensor, methods_of

# what compilers use where a processor has it
_FLAGS = frozenset([
    "asimd", "sve", "sve2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
])  # fmt: skip


def here(device: torch.device) -> dict[str, Any]:
    """What code for `device` depends on, on this machine."""
    found: dict[str, Any] = {
        "torch": torch.__version__, "system": platform.system(), "machine": platform.machine(), "device": device.type,
        "flags": [],
    }  # fmt: skip
    with suppress(OSError):
        words = set(Path("/proc/cpuinfo").read_text().split())
        found["flags"] = sorted(words & _FLAGS)
    if device.type == "cuda":
        found["capability"] = list(torch.cuda.get_device_capability(device))
    return found


class CompiledModule(torch.nn.Module):
    """Compiled methods; inputs by position or name, on `device`."""

    def __init__(self, methods: Mapping[str, Any], names: Mapping[str, list[str]], device: torch.device) -> None:
        super().__init__()
        self.training = False
        self.input_names = dict(names)
        self.device = device
        self._methods = dict(methods)

    def _run(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = in_order(f"the compiled {method}", self.input_names[method], args, kwargs)
        if set(named) != set(self.input_names[method]):
            raise InvalidInput(f"the compiled {method} takes {', '.join(self.input_names[method])}")
        values = {name: named[name].to(self.device).contiguous() for name in self.input_names[method]}
        try:
            return self._methods[method](**values)
        except (RuntimeError, TypeError, ValueError) as exc:
            got = ", ".join(f"{name}: {value.dtype} {list(value.shape)}" for name, value in values.items())
            raise InvalidInput(f"the compiled {method} cannot take {got}: {str(exc).strip()[:300]}") from exc

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        refuse_pickle(self, "catalog.load(reference)", "it is native code of this process")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled forward."""
        return self._run("forward", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_methods", {}):
            return lambda *args, **kwargs: self._run(name, args, kwargs)
        return super().__getattr__(name)


class CompiledSerializer(TorchSerializer):
    """See `interfaces.serializer`. Saving compiles, which takes a C++ compiler and up to a minute; the weights are in
    the code. Loading runs what is stored, so only with `trust`."""

    name = "aoti"
    save_options = ()
    load_options = ()

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """A package for each method that an entry point names, for the device that the module is on."""
        obj = self._module(obj)
        if isinstance(obj, CompiledModule):
            raise SerializationError("a compiled module cannot be stored again", hint="publish the module it came from")
        if request.example is None:
            raise SerializationError("a module is compiled for an example", hint="prepare(…, example=…)")
        place = _place(obj)
        meta: dict[str, Any] = {"class": _path(obj), "inputs": {}, "fixed": {}, "shapes": {}, "made_for": here(place)}
        for method in methods_of(request):
            trial = request.trials.get(method)
            given = trial.example if trial else request.example
            names = [name for name in self.inputs(obj, method) or given if name in given]
            example = {name: _tensor(given[name]).to(place) for name in names}
            with _evaluating(obj), torch.no_grad():
                module = obj if method == "forward" else _Method(obj, method)
                axes = trial.axes if trial else None
                traced = tracing.trace(module, example, axes, keep=lambda program: None, all_axes=False)
                _compile(traced.program, directory.path(f"{method}.pt2"))
            meta["inputs"][method] = names
            meta["shapes"][method] = traced.shapes
            if traced.fixed:
                meta["fixed"][method] = traced.fixed
        return meta

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The compiled module, where this machine is of the kind that it was compiled for. Raises `NotTrusted` without
        `trust`, and `BackendError` on another kind."""
        if options.get("as_") is not None or into is not None:
            raise SerializationError("a compiled module is loaded as it is", hint="load without as_ and into")
        if not options.get("trust"):
            raise NotTrusted(
                "loading runs machine code that the author of the version compiled",
                hint="trust=True, if you trust the author; other formats of the component need no trust",
            )
        made, names = reader.meta.get("made_for"), reader.meta.get("inputs")
        if not isinstance(made, dict) or not isinstance(names, dict):
            raise SerializationError("the manifest does not say what the module was compiled for")
        place = tensors.torch_device(torch, device or made.get("device", "cpu"))
        misfit = _misfit(made, here(place))
        if misfit:
            raise BackendError(
                f"it was compiled for another machine: {misfit}",
                hint="load another format of the component, or compile it here",
                backend=self.name,
            )
        methods = {}
        for method in names:
            if f"{method}.pt2" not in reader.files:
                raise SerializationError(f"the component holds no {method}.pt2")
            methods[method] = _open(reader.path(f"{method}.pt2"), place)
        return CompiledModule(methods, {method: list(found) for method, found in names.items()}, place)

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """The parameters of the method, without self."""
        return obj.input_names.get(method) if isinstance(obj, CompiledModule) else super().inputs(obj, method)


def _misfit(made: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why code of one machine will not run on another; None where it will."""
    for key in ("system", "machine", "device", "torch", "capability"):
        if made.get(key) != now.get(key):
            return f"{key} {made.get(key)}, not {now.get(key)}"
    lacking = sorted(set(map(str, made.get("flags") or ())) - set(now["flags"]))
    return f"its processor has {', '.join(lacking)}" if lacking else None


def _compile(program: torch.export.ExportedProgram, path: Path) -> None:
    try:
        with exported.ONE_AT_A_TIME, exported.quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as exc:  # whatever the compilers of kernels, C++ and CUDA say
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise SerializationError(
            f"AOTInductor cannot compile it: {cause}", hint="it needs a C++ compiler: is g++ installed?"
        ) from exc


def _open(path: Path, place: torch.device) -> Any:
    index = -1 if place.index is None else place.index
    try:
        return torch._inductor.aoti_load_package(str(path), device_index=index)
    except Exception as exc:
        cause = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise SerializationError(f"the compiled module cannot be loaded: {cause}") from exc
