"""`nn.Module` ↔ `model.safetensors` and one `<method>.pt2` for each method that could be exported."""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np
import torch
from torch.utils._pytree import tree_structure

from catalog_core import callers, tensors
from catalog_core import quiet as quietly
from catalog_core.axes import measured
from catalog_core.errors import CatalogError, InvalidInput, NotTrusted, SerializationError
from catalog_core.filling import OPTIONS
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Signature, Trial
from catalog_core.modules import fill, state_of
from catalog_core.outputs import by_name, fields_of, left_out, skips
from catalog_core.records import Description
from catalog_core.session import in_order
from catalog_core.shown import an
from catalog_core.snapshots import Snapshot
from catalog_core.values import refuse_pickle
from catalog_torch import extras
from catalog_torch.snapshot import snapshot

_OWNER = "owner."


class _Method(torch.nn.Module):
    """Another method of a module, as the forward of one that shares its weights."""

    def __init__(self, owner: torch.nn.Module, method: str) -> None:
        super().__init__()
        self.owner = owner

        def forward(*args: Any, **kwargs: Any) -> Any:
            return getattr(owner, method)(*args, **kwargs)

        forward.__signature__ = inspect.signature(getattr(owner, method))  # type: ignore[attr-defined]
        self.forward = forward  # torch.export asks it for the names of its inputs


class ExportedModule(torch.nn.Module):
    """Exported methods over one set of weights; loads without the class it came from, and can be saved again."""

    def __init__(
        self,
        graphs: Mapping[str, torch.nn.Module],
        archives: Mapping[str, bytes],
        notes: Any,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.training = False
        self.input_names: dict[str, list[str]] = notes["inputs"]
        self.notes = notes
        self.archives = dict(archives)
        self._graphs = dict(graphs)
        for method, graph in graphs.items():
            self.add_module(f"_{method}", graph)
        self._rest: dict[str, Any] = {}
        inside = self.state_dict()  # graphs hold parameters and buffers, and no extra states
        self._rest = {key: value for key, value in (state or {}).items() if key not in inside}

    def _run(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if method not in self._graphs:
            raise self.lacking(method)
        named = in_order(f"the exported {method}", self.input_names[method], args, kwargs)
        try:
            return self._graphs[method](**named)
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as exc:
            got = ", ".join(f"{name}: {list(getattr(value, 'shape', ()))}" for name, value in named.items())
            raise InvalidInput(
                f"the exported {method} cannot take {got}: {str(exc).strip().partition(chr(10))[0][:300]}",
                hint=f"it takes {', '.join(self.input_names[method])}, of the shapes it was exported for",
            ) from exc

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        refuse_pickle(
            self,
            "catalog.load(reference); or pickle its state_dict()",
            "its graphs are programs of torch, which pickle cannot write",
        )

    def __copy__(self) -> ExportedModule:
        made = self.__class__.__new__(self.__class__)
        kept = vars(self).items()  # what is registered in the copy, modules and hooks too, is not in this one
        made.__dict__ = {key: copy.copy(value) if isinstance(value, (dict, set)) else value for key, value in kept}
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> ExportedModule:
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        with quietly.quiet("torch"):  # torch warns of what it finds in its own graphs
            made.__dict__ = copy.deepcopy(self.__dict__, memo)
        return made

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the exported forward; inputs by position or name."""
        return self._run("forward", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        graphs = self.__dict__.get("_graphs", {})
        if name in graphs:
            return lambda *args, **kwargs: self._run(name, args, kwargs)
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in self.__dict__.get("notes", {}).get("export", {}):
                raise AttributeError(str(self.lacking(name))) from None
            raise

    def lacking(self, method: str) -> SerializationError:
        """Why it cannot run a method: torch could not export it, or nobody wanted it."""
        why = self.notes.get("export", {}).get(method)
        exported = ", ".join(self._graphs)
        if why is None:
            return SerializationError(f"{method!r} was not exported", hint=f"exported: {exported}")
        return SerializationError(
            f"{method} was stored without a graph ({why.partition(' torch says:')[0][:300]})",
            hint=f"its class can run it: load(ref, into=net), or session(ref, trust=True); exported: {exported}",
        )

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """The weights under the names they have in the module that was exported."""
        found = {
            key if method == "forward" else key.removeprefix(_OWNER): value
            for method, graph in self._graphs.items()
            for key, value in graph.state_dict(keep_vars=keep_vars).items()
        }
        found |= self._rest
        destination = OrderedDict() if destination is None else destination
        destination.update((prefix + key, found[key]) for key in self.notes["order"] if key in found)
        return destination

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Fill the weights, by the names that they have in `state_dict()`."""
        given, others = extras.split(state_dict)
        tensors.fill(extras.split(self.state_dict())[0], given)
        self._rest |= {key: value for key, value in others.items() if key in self._rest}

    def train(self, mode: bool = True) -> ExportedModule:
        """Exported graphs keep the mode they were exported in; only `False` is possible."""
        if mode:
            raise SerializationError(
                "an exported graph cannot be switched to training", hint="load(ref, into=net) fills a live module"
            )
        return self


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """In eval mode; each submodule gets back the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    if not isinstance(module, ExportedModule):
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:  # parents first; through `train`, which some modules override
            if part.training != mode:
                part.train(mode)
        for part, mode in modes:  # a part with two parents
            part.training = mode


def _bare(module: Any) -> Any:
    """The module itself, out of what `torch.compile`, `DataParallel` and `DistributedDataParallel` put around it: they
    change the names of its weights, and hide those of its inputs."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes a second
    while True:
        if compiler is not None and isinstance(module, compiler.OptimizedModule):
            module = module._orig_mod
        elif isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            module = module.module
        else:
            return module


def _plain(result: Any, name: str = "") -> Any:
    """What a method returned, of tuples, lists and dictionaries only: torch exports no others. What is left out by its
    `name` is None."""
    if name and left_out(name):
        return None
    found = fields_of(result)
    if found is not None or isinstance(result, Mapping):
        items = (result if found is None else found).items()
        return {str(key): _plain(value, f"{name}_{key}" if name else str(key)) for key, value in items}
    if isinstance(result, (list, tuple)):
        parts = [_plain(value, f"{name or 'output'}_{number}") for number, value in enumerate(result)]
        return parts if isinstance(result, list) else tuple(parts)
    return result


def _bound(function: Any, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Named values as a function takes them: by name, but for what it takes by position only, and for what the catalog
    named itself (`input`, `input_0`) where the function takes `*args` and `**kwargs`, as wrappers do."""
    parameters = inspect.signature(function).parameters.values()
    kinds = {p.name: p.kind for p in parameters}
    several = inspect.Parameter.VAR_POSITIONAL in kinds.values()
    anything = inspect.Parameter.VAR_KEYWORD in kinds.values()
    first = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_ONLY and name in values]
    if several and anything:
        first += [name for name in values if name not in kinds and re.fullmatch(r"input(_\d+)?", name)]
    return [values[name] for name in first], {name: value for name, value in values.items() if name not in first}


@contextmanager
def _overridden(module: torch.nn.Module, method: str, names: Iterable[str], *, plain: bool) -> Iterator[None]:
    """Its method takes these names, and (`plain`) gives tuples, lists and dictionaries only."""
    function = getattr(module, method)
    if isinstance(module, torch.jit.ScriptModule):
        raise SerializationError("torch.export says: Exporting a ScriptModule is not supported")
    parameters = inspect.signature(function).parameters

    def override(*args: Any, **kwargs: Any) -> Any:
        unnamed, named = _bound(function, dict(zip(names, args, strict=False)) | kwargs)
        result = function(*unnamed, **named)
        return _plain(result) if plain else result

    if all(name in parameters for name in names):
        if not plain:
            yield
            return
        signature = inspect.signature(function)
    else:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    override.__signature__ = signature  # type: ignore[attr-defined]
    before = vars(module).get(method)
    setattr(module, method, override)
    try:
        yield
    finally:
        delattr(module, method)
        if before is not None:
            setattr(module, method, before)


def _run(module: torch.nn.Module, method: str, values: Mapping[str, Any]) -> Any:
    if isinstance(module, (torch.jit.ScriptModule, ExportedModule)):
        return module(**values) if method == "forward" else getattr(module, method)(**values)
    unnamed, named = _bound(getattr(module, method), values)
    return module(*unnamed, **named) if method == "forward" else getattr(module, method)(*unnamed, **named)


def methods_of(request: SaveRequest) -> list[str]:
    """The methods to export: those that entry points name, else `forward`."""
    return list(dict.fromkeys(request.methods)) or ["forward"]


class TorchSerializer:
    """See `interfaces.serializer`."""

    name = "torch"
    save_options = ()
    load_options: tuple[str, ...] = OPTIONS

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Weights always; a graph for each method that an entry point names, with an example, where torch can trace."""
        obj = self._module(obj)
        state = state_of(obj)
        packed = next((key for key in state if "_packed_params" in key), None)
        if packed is not None and not isinstance(state[packed], torch.Tensor):
            raise SerializationError(
                f"{packed!r} is packed by torch.ao.quantization, which no safe format holds",
                hint="publish the module as it was before, or an ONNX graph of it",
            )
        arrays, others = extras.split(state)
        shared = tensors.write(arrays | (extras.write(others, arrays, directory) if others else {}), directory)
        meta: dict[str, Any] = {key: {} for key in ("inputs", "export", "fixed", "shapes")}
        meta |= {"class": _path(obj), "order": list(state)}
        if shared:
            meta["shared"] = shared
        if isinstance(obj, ExportedModule):
            for method, data in obj.archives.items():
                directory.write(f"{method}.pt2", [data])
            kept = {key: obj.notes.get(key, {}) for key in ("inputs", "export", "fixed")}
            axes = obj.notes.get("axes", {})
            return {**meta, **kept, "axes": axes, "shapes": _still(axes, request)}
        if request.example is not None:
            with _evaluating(obj):
                for method in methods_of(request):
                    self._export(obj, method, request, directory, meta)
        return {
            **meta,
            "axes": meta["shapes"],
        }  # the catalog takes the shapes out: a graph that is saved again has them

    @staticmethod
    def _module(obj: Any) -> Any:
        if isinstance(obj, torch.nn.Module):
            return _bare(obj)
        hint = "publish a module, or its state dict (a dictionary of tensors)"
        if isinstance(obj, torch.export.ExportedProgram):
            hint = "publish the module that it was made from, or import the .pt2 file: `catalog import`"
        raise SerializationError(f"{an(type(obj).__name__)} is no nn.Module", hint=hint)

    def _export(
        self, obj: torch.nn.Module, method: str, request: SaveRequest, directory: Directory, meta: dict[str, Any]
    ) -> None:
        from catalog_torch import exported, tracing

        trial = request.trials.get(method)
        given = trial.example if trial else request.example or {}
        place = _place(obj)
        example = {name: _tensor(given[name]).to(place) for name in self.inputs(obj, method) or given if name in given}

        def trace(plain: bool = False) -> Any:
            with _overridden(obj, method, list(example), plain=plain):
                module = obj if method == "forward" else _Method(obj, method)
                made = tracing.trace(module, example, trial.axes if trial else None, keep=exported.archive)
                for name, at in tracing.unrolled(module, example, made.shapes):
                    callers.warn(
                        f"{method} of {type(obj).__name__} is stored for {example[name].shape[at]} along axis {at} of "
                        f"{name!r} only: its code takes other lengths, and its graph does not (torch.export writes "
                        "loops and recurrent layers out, step by step)"
                    )
                return made

        try:
            try:
                traced = trace(plain=skips())
            except SerializationError:
                cold = snapshot(obj)
                try:  # once more, to see what it gives, and with what it makes at the first run
                    with torch.no_grad():
                        result = _run(obj, method, example)
                    fields = tree_structure(result) != tree_structure(_plain(result))
                    if not fields and not cold.changed():
                        raise
                    traced = trace(plain=fields)
                finally:
                    cold.restore()
        except SerializationError as exc:
            meta["export"][method] = exc.message
            callers.warn(
                f"{method} of {type(obj).__name__} is stored as weights only, and will not run without its class "
                f"(load(ref, into=net) fills one): {exc.message}"
            )
            return
        directory.write(f"{method}.pt2", [traced.kept])
        meta["inputs"][method] = list(example)
        meta["shapes"][method] = traced.shapes
        if traced.fixed:
            meta["fixed"][method] = traced.fixed

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """The exported module; where there is none, the state dict. See `interfaces.serializer.Serializer.load`."""
        kind, copy = options.get("as_"), bool(options.get("copy"))
        if kind not in (None, "numpy", "torch", "state_dict"):
            raise SerializationError(f"as_={kind!r} is not known here", hint="numpy, torch or state_dict")
        notes = _notes(reader.meta)
        numpy = kind == "numpy" and into is None
        make = tensors.numpy_maker(copy) if numpy else tensors.torch_maker(torch, device, copy)
        values = tensors.read(reader, make, writable=not numpy)
        everything = {**extras.read(reader, values), **values}
        if not set(notes["order"]) <= everything.keys():
            raise SerializationError("the manifest names tensors that are not stored")
        state = {key: everything[key] for key in notes["order"]}
        if into is not None:
            return fill(into, _bare(into), state, options)
        if options.get("trust") and kind is None:
            try:
                made = _construct(notes.get("class"))
                return fill(made, made, state, {})
            except (NotTrusted, SerializationError):
                if not notes["inputs"]:
                    raise  # else the graph, which needs no class
        if kind is not None or not notes["inputs"]:
            return state
        from catalog_torch import exported

        graphs, archives = {}, {}
        for method in notes["inputs"]:
            prefix = "" if method == "forward" else _OWNER
            if f"{method}.pt2" not in reader.files:
                raise SerializationError(f"the component holds no {method}.pt2")
            archives[method] = bytes(reader.view(f"{method}.pt2"))
            weights = {prefix + key: value for key, value in extras.split(state)[0].items()}
            graphs[method] = exported.load(archives[method], weights, device)
        return ExportedModule(graphs, archives, notes, state)

    @staticmethod
    def snapshot(obj: Any) -> Any:
        """See `snapshot.snapshot`. What cannot be stored is refused before anything runs."""
        if not isinstance(obj, torch.nn.Module):
            return Snapshot(None)
        for name, value in state_of(_bare(obj)).items():
            if isinstance(value, torch.Tensor) and not torch.nn.parameter.is_lazy(value):
                tensors.check_dtype(name, tensors.dtype_of(tensors.check_array(name, value)))
        return snapshot(_bare(obj))

    def describe(self, obj: Any) -> Description:
        """Class, plain attributes, parameters and tensors."""
        if not isinstance(obj, torch.nn.Module):
            return Description("torch", torch.__version__)
        obj = _bare(obj)
        plain = {
            key: value
            for key, value in vars(obj).items()
            if not key.startswith("_") and key != "training" and isinstance(value, (bool, int, float, str))
        }
        shapes, count = {}, 0
        try:
            for key, value in extras.split(state_of(obj))[0].items():
                tensors.check_array(key, value)
                shapes[key] = (tensors.dtype_of(value), tuple(value.shape))
            unique = {tensors.identity(value): value for _, value in obj.named_parameters()}
            count = sum(value.numel() for value in unique.values())
        except SerializationError:  # it cannot be saved either, and save says why
            pass
        path = _path(obj)
        name = path.partition(":")[2].rpartition(".")[2]
        return Description("torch", torch.__version__, name, plain, count, shapes, path)

    def inputs(self, obj: Any, method: str) -> Iterable[str] | None:
        """The parameters of the method, without self."""
        if isinstance(obj, ExportedModule):
            return obj.input_names.get(method)
        obj = self._module(obj)
        function = getattr(obj, method, None)
        if function is None:
            raise SerializationError(f"{type(obj).__name__} has no method {method!r}")
        if isinstance(obj, torch.jit.ScriptModule):
            return [argument.name for argument in function.schema.arguments[1:]]
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run a method in eval mode, without gradients; NumPy arrays out (torch tensors for dtypes NumPy lacks)."""
        if not isinstance(obj, torch.nn.Module):
            raise SerializationError(
                f"this component holds only {an(type(obj).__name__)} of weights: its class is needed to run it",
                hint="load(ref, into=net), or load(ref, trust=True)",
            )
        obj = _bare(obj)
        if isinstance(obj, ExportedModule) and method not in obj.input_names:
            raise obj.lacking(method)
        if not hasattr(obj, method):
            raise SerializationError(f"{type(obj).__name__} has no method {method!r}")
        place = _place(obj)
        values = {name: _tensor(value).to(place) for name, value in inputs.items()}
        with _evaluating(obj), torch.no_grad():
            result = _run(obj, method, values)
        return {name: _out(value) for name, value in by_name(result)}

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        """Found by running; the rows are free where twice as many give twice as many."""
        return measured(trial, {name: (None, *a.shape[1:]) for name, a in trial.example.items() if a.ndim})


def _place(module: torch.nn.Module) -> torch.device:
    """The device that a module is on."""
    return next((value.device for value in (*module.parameters(), *module.buffers())), torch.device("cpu"))


def _path(module: torch.nn.Module) -> str:
    """Where the class is, or was, for a module that was loaded without it."""
    if isinstance(module, ExportedModule) and isinstance(module.notes.get("class"), str):
        return str(module.notes["class"])
    return f"{type(module).__module__}:{type(module).__qualname__}"


def _still(axes: Mapping[str, Any], request: SaveRequest) -> dict[str, Any]:
    """The axes of a graph that is saved again, by method, where they are those of the arrays that it is tried with."""

    def fit(found: Mapping[str, Sequence[Any]], arrays: Mapping[str, Any]) -> bool:
        shapes = {name: np.shape(array) for name, array in arrays.items()}
        return all(
            len(found.get(name, ())) == len(shape)
            and all(type(axis) is not int or axis == size for axis, size in zip(found[name], shape, strict=True))
            for name, shape in shapes.items()
            if shape
        )

    return {
        method: axes[method]
        for method, trial in request.trials.items()
        if method in axes and fit(axes[method]["inputs"], trial.example) and fit(axes[method]["outputs"], trial.outputs)
    }


def _are_axes(value: Any) -> bool:
    """Whether this is what `tracing` says of the axes of methods: inputs and outputs, each by name a list of sizes,
    names of free axes, and None."""
    return isinstance(value, dict) and all(
        isinstance(found, dict)
        and {"inputs", "outputs"} <= found.keys() <= {"inputs", "outputs", "why"}
        and isinstance(found.get("why", ""), str)
        and all(
            isinstance(found[kind], dict)
            and all(
                isinstance(sizes, list)
                and all(axis is None or (type(axis) is int and axis >= 0) or isinstance(axis, str) for axis in sizes)
                for sizes in found[kind].values()
            )
            for kind in ("inputs", "outputs")
        )
        for found in value.values()
    )


def _notes(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What `save` returned, as the manifest has it: a stranger may have written it."""
    order, inputs = meta.get("order"), meta.get("inputs")
    lists = [order, *inputs.values()] if isinstance(inputs, dict) and all(map(str.isidentifier, inputs)) else [None]
    readable = all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
    texts = [meta.get(key, {}) for key in ("export", "fixed")]
    plain = all(isinstance(found, dict) and all(isinstance(t, str) for t in found.values()) for found in texts)
    if not readable or not plain or not _are_axes(meta.get("axes", {})):
        raise SerializationError("what the manifest says of this component cannot be read")
    return dict(meta)


def _tensor(value: Any) -> torch.Tensor:
    """A tensor of an array or number, also for dtypes that come from ml_dtypes."""
    if isinstance(value, torch.Tensor):
        return value
    array = np.array(value)
    try:
        return torch.from_numpy(array)
    except TypeError as exc:
        dtype = getattr(torch, array.dtype.name, None)
        if not isinstance(dtype, torch.dtype):
            raise SerializationError(f"torch has no dtype {array.dtype}") from exc
    return torch.from_numpy(array.reshape(-1).view(np.uint8)).view(dtype).view(array.shape)


def _out(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu().resolve_conj().resolve_neg()
    return value if value.dtype is torch.bfloat16 or "float8" in str(value.dtype) else value.numpy()


def _construct(path: Any) -> Any:
    import importlib

    module, _, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if "<locals>" in name or module in ("", "__main__"):
        raise NotTrusted(f"{path} cannot be imported: it was defined in a script", hint="load(ref, into=net)")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
            raise SerializationError(f"{path} is not a module class")
        return found()
    except CatalogError:
        raise
    except Exception as exc:  # the author's code
        raise SerializationError(
            f"{path} cannot be made without arguments: {type(exc).__name__}: {exc}", hint="load(ref, into=net)"
        ) from exc
