"""`nn.Module` ↔ `model.safetensors` and one `<method>.pt2` for each method that could be exported."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from catalog_core import tensors
from catalog_core.errors import NotTrusted, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest
from catalog_core.records import Description, TensorSpec

FILE = "model.safetensors"


def _dtype(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _bytes(value: torch.Tensor) -> Any:
    flat = value.detach().resolve_conj().resolve_neg().contiguous().cpu()
    return flat.reshape(-1).view(torch.uint8).numpy() if flat.numel() else b""


class _Method(torch.nn.Module):
    """Another method of a module, as the forward of one that shares its weights."""

    def __init__(self, owner: torch.nn.Module, method: str) -> None:
        super().__init__()
        self.owner = owner
        self._method = method
        self.__signature__ = inspect.signature(getattr(owner, method))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return getattr(self.owner, self._method)(*args, **kwargs)


class ExportedModule(torch.nn.Module):
    """Exported methods over one set of weights; loads without the class it came from."""

    def __init__(self, methods: Mapping[str, torch.nn.Module], names: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.input_names = {method: list(listed) for method, listed in names.items()}
        self._graphs = dict(methods)
        for method, graph in methods.items():
            self.add_module(f"_{method}", graph)

    def _run(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method not in self._graphs:
            raise SerializationError(f"{method!r} was not exported", hint=f"exported: {', '.join(self._graphs)}")
        named = dict(zip(self.input_names[method], args, strict=False)) | kwargs
        return self._graphs[method](**named)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the exported forward; inputs by position or name."""
        return self._run("forward", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        graphs = self.__dict__.get("_graphs", {})
        if name in graphs:
            return lambda *args, **kwargs: self._run(name, args, kwargs)
        return super().__getattr__(name)

    def train(self, mode: bool = True) -> ExportedModule:
        """Exported graphs keep the mode they were exported in; only `False` is possible."""
        if mode:
            raise SerializationError(
                "an exported graph cannot be switched to training", hint="load(ref, into=net) fills a live module"
            )
        return self


class TorchSerializer:
    """See `interfaces.serializer`."""

    name = "torch"

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Weights always; a graph for forward and each named method, where an example is given and torch can trace."""
        if not isinstance(obj, torch.nn.Module):
            return self._save_other(obj)
        state = obj.state_dict()
        meta: dict[str, Any] = {"class": f"{type(obj).__module__}:{type(obj).__qualname__}", "inputs": {}, "export": {}}
        self._save_state(state, directory, meta)
        if request.example is None:
            return meta
        training = obj.training
        obj.eval()
        try:
            for method in dict.fromkeys(("forward", *request.methods)):
                names = list(self.inputs(obj, method) or request.example)
                example = {name: torch.as_tensor(value) for name, value in request.example.items() if name in names}
                try:
                    if method == "forward":
                        self._export(obj, example, directory, method)
                    else:
                        self._export(_Method(obj, method), example, directory, method)
                    meta["inputs"][method] = names
                except SerializationError as exc:
                    meta["export"][method] = exc.message
        finally:
            obj.train(training)
        return meta

    @staticmethod
    def _save_other(obj: Any) -> Mapping[str, Any]:
        raise SerializationError(
            f"a {type(obj).__name__} is not an nn.Module",
            hint="publish a module, or its state dict (a dictionary of tensors)",
        )

    @staticmethod
    def _export(module: torch.nn.Module, example: Mapping[str, Any], directory: Directory, method: str) -> None:
        from catalog_torch import exported

        directory.write(f"{method}.pt2", [exported.export(module, example)])

    @staticmethod
    def _save_state(state: Mapping[str, Any], directory: Directory, meta: dict[str, Any]) -> None:
        kept: dict[str, torch.Tensor] = {}
        seen: dict[Any, str] = {}
        shared: dict[str, str] = {}
        for key, value in state.items():
            if not isinstance(value, torch.Tensor):
                raise SerializationError(f"the state dict holds {key!r}, a {type(value).__name__}, not a tensor")
            mark = (value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else key
            if mark in seen:
                shared[key] = seen[mark]
            else:
                seen[mark] = key
                kept[key] = value
        header, where = tensors.plan([(key, _dtype(value), tuple(value.shape)) for key, value in kept.items()], {})
        parts = [header, *[_bytes(kept[entry.name]) for entry in where.entries]]
        directory.write(FILE, parts, tensors.cuts(where, where.entries[-1].end if where.entries else len(header)))
        if shared:
            meta["shared"] = shared
        meta["order"] = list(state)

    def _state(self, reader: Reader, device: str | None) -> dict[str, torch.Tensor]:
        header = tensors.parse_header(lambda start, length: bytes(reader.view(FILE, start, length)), reader.files[FILE])
        whole = reader.view(FILE, writable=True)
        values: dict[str, torch.Tensor] = {}
        for entry in header.entries:
            dtype = getattr(torch, entry.dtype)
            if entry.end > entry.start:
                tensor = torch.frombuffer(whole[entry.start : entry.end], dtype=dtype).view(entry.shape)
            else:
                tensor = torch.empty(entry.shape, dtype=dtype)
            values[entry.name] = tensor if device in (None, "cpu") else tensor.to(device)
        for other, stored in reader.meta.get("shared", {}).items():
            values[other] = values[stored]
        return {key: values[key] for key in reader.meta["order"]}

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The exported module; where there is none, the state dict. See `interfaces.serializer.Serializer.load`."""
        state = self._state(reader, device)
        kind = options.get("as_")
        if into is not None:
            return _fill(into, state)
        if kind == "numpy":
            return {key: tensors.numpy_view(_bytes(value), tensors.Entry(key, _dtype(value), tuple(value.shape), 0, 0))
                    for key, value in state.items()}  # fmt: skip
        if options.get("trust") and kind is None:
            made = _construct(reader.meta["class"])
            return _fill(made, state)
        if kind == "state_dict" or not reader.meta["inputs"]:
            return {key: value.clone() for key, value in state.items()} if options.get("copy") else state
        from catalog_torch import exported

        graphs = {}
        for method in reader.meta["inputs"]:
            prefix = "" if method == "forward" else "owner."
            weights = {prefix + key: value for key, value in state.items()}
            graphs[method] = exported.load(bytes(reader.view(f"{method}.pt2")), weights)
        return ExportedModule(graphs, reader.meta["inputs"])

    def describe(self, obj: Any) -> Description:
        """Class, plain attributes, parameters and tensors."""
        if not isinstance(obj, torch.nn.Module):
            return Description("torch", torch.__version__)
        plain = {
            key: value
            for key, value in vars(obj).items()
            if not key.startswith("_") and key != "training" and isinstance(value, (bool, int, float, str))
        }
        return Description(
            "torch",
            torch.__version__,
            type(obj).__name__,
            plain,
            sum(parameter.numel() for parameter in obj.parameters()),
            {key: (_dtype(value), tuple(value.shape)) for key, value in obj.state_dict().items()},
            f"{type(obj).__module__}:{type(obj).__qualname__}",
        )

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """The parameters of the method, without self."""
        if isinstance(obj, ExportedModule):
            return obj.input_names.get(method)
        function = getattr(obj, method, None)
        if function is None:
            raise SerializationError(f"{type(obj).__name__} has no method {method!r}")
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a method in eval mode, without gradients; NumPy arrays out (torch tensors for dtypes NumPy lacks)."""
        if not isinstance(obj, torch.nn.Module):
            raise SerializationError(
                f"this component holds only a {type(obj).__name__} of weights: its class is needed to run it",
                hint="load(ref, into=net), or load(ref, trust=True)",
            )
        device = next((parameter.device for parameter in obj.parameters()), torch.device("cpu"))
        values = {
            name: (value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))).to(device)
            for name, value in inputs.items()
        }
        training = obj.training
        if training and not isinstance(obj, ExportedModule):
            obj.eval()
        try:
            with torch.no_grad():
                result = getattr(obj, method)(**values) if method != "forward" else obj(**values)
        finally:
            if training and not isinstance(obj, ExportedModule):
                obj.train()
        return {name: _out(value) for name, value in _named(result).items()}

    def signature(
        self, obj: Any, method: str, example: Mapping[str, Any]
    ) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Names, dtypes and shapes of inputs and outputs, found by running the method once; the first axis is free
        where all inputs share it."""
        values = {name: torch.as_tensor(value) for name, value in example.items()}
        sizes = {value.shape[0] for value in values.values() if value.ndim}
        batch = sizes.pop() if len(sizes) == 1 else None
        outputs = {name: torch.as_tensor(value) for name, value in self.call(obj, method, values).items()}
        return tuple(_spec(*item, batch) for item in values.items()), tuple(_spec(*i, batch) for i in outputs.items())


def _spec(name: str, value: torch.Tensor, batch: int | None) -> TensorSpec:
    shape: tuple[int | str | None, ...] = tuple(value.shape)
    if batch is not None and shape and shape[0] == batch:
        shape = ("batch", *shape[1:])
    return TensorSpec(name, _dtype(value), shape)


def _named(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return {str(key): value for key, value in result.items()}
    if isinstance(result, (tuple, list)):
        return {f"output_{number}": value for number, value in enumerate(result)}
    return {"output": result}


def _out(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    return value if value.dtype in (torch.bfloat16,) or "float8" in str(value.dtype) else value.numpy()


def _fill(target: Any, state: Mapping[str, torch.Tensor]) -> Any:
    live = target.state_dict() if isinstance(target, torch.nn.Module) else target
    problems = [f"{key} is not stored" for key in live if key not in state]
    problems += [f"{key} is stored, but the live module has none" for key in state if key not in live]
    for key in state.keys() & live.keys():
        if (state[key].shape, state[key].dtype) != (live[key].shape, live[key].dtype):
            problems.append(
                f"{key} is stored as {_dtype(state[key])}{list(state[key].shape)}, "
                f"the live one is {_dtype(live[key])}{list(live[key].shape)}"
            )
    if problems:
        raise SerializationError(
            f"the stored weights do not fit: {'; '.join(problems[:5])}", hint="nothing was changed"
        )
    with torch.no_grad():
        for key, value in state.items():
            live[key].copy_(value)
    return target


def _construct(path: str) -> Any:
    import importlib

    module, _, name = path.partition(":")
    if "<locals>" in name or module == "__main__":
        raise NotTrusted(f"{path} cannot be imported: it was defined in a script", hint="load(ref, into=net)")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise SerializationError(f"{path} is not a module class")
    try:
        return found()
    except TypeError as exc:
        raise SerializationError(f"{path} cannot be made without arguments: {exc}", hint="load(ref, into=net)") from exc
