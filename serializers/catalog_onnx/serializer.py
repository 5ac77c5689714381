"""ONNX graphs ↔ `model.onnx` and the files of its external data, as they were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import onnx

from catalog_core.axes import BATCH, measured
from catalog_core.errors import BackendError, CatalogError, InvalidInput, NotTrusted, SerializationError
from catalog_core.interfaces.serializer import Directory, Reader, SaveRequest, Signature, Trial
from catalog_core.records import Description, TensorSpec
from catalog_core.session import check_tensor
from catalog_core.shown import an
from catalog_core.snapshots import Snapshot
from catalog_onnx.export import USUAL, to_onnx
from catalog_onnx.model import OnnxModel, digest_of

FILE = "model.onnx"


class OnnxSerializer:
    """See `interfaces.serializer`. It takes an `onnx.ModelProto`, an `OnnxModel`, or the path of a file or folder."""

    name = "onnx"
    save_options = ()

    def __init__(self) -> None:
        self._last: tuple[Any, Any, OnnxModel] | None = None  # what was given last, its state, and its graph
        self._ran: tuple[Any, OnnxModel] | None = None  # what ran last, and its graph

    def _model(self, obj: Any) -> OnnxModel:
        if isinstance(obj, OnnxModel):
            return obj
        last = self._last
        if isinstance(obj, Path):
            known = last is not None and last[0] is obj
            state: Any = digest_of(obj, last[2].external) if last is not None and known else None
        elif isinstance(obj, onnx.ModelProto):
            state = obj.SerializeToString(deterministic=True)
        else:
            raise SerializationError(
                f"{an(type(obj).__name__)} is no ONNX graph",
                hint="a ModelProto, a Path, to_onnx(model, example), or beside another format: "
                "serializer={'model': ['torch', 'onnx']}",
            )
        if last is not None and last[0] is obj and last[1] == state:
            return last[2]
        made = OnnxModel.open(obj) if isinstance(obj, Path) else OnnxModel(state, {})
        self._last = (obj, made.digest() if isinstance(obj, Path) else state, made)
        return made

    def save(self, obj: Any, directory: Directory, request: SaveRequest) -> Mapping[str, Any]:
        """Write the graph and its external data, checked. A model that is kept in another format too is exported."""
        if not isinstance(obj, (OnnxModel, Path, onnx.ModelProto)) and request.example:
            method = _method_of(request)
            trial = request.trials.get(method)
            made = to_onnx(obj, trial.example if trial else request.example, method, _free(trial) if trial else None)
            try:
                obj = OnnxModel(made.SerializeToString(deterministic=True), {})
            except NotTrusted as exc:  # the converter left an operator of the other framework in it
                raise SerializationError(f"the model cannot be kept as ONNX: {exc}") from exc
        model = self._model(obj)
        ran = self._ran
        if isinstance(obj, Path) and request.trials and ran is not None and ran[0] is obj and ran[1] is not model:
            raise SerializationError(
                f"{obj} was changed after its example ran", hint="prepare it again, when it is written whole"
            )
        if FILE in model.external:
            raise SerializationError(f"the external data may not be called {FILE}")
        model.session  # noqa: B018  # onnxruntime sees it before anybody else does
        directory.write(FILE, [model.data])
        for name, data in model.external.items():
            directory.write(name, [memoryview(data)])
        return {"operators": model.operators}

    def load(self, reader: Reader, device: str | None, into: Any | None, options: Mapping[str, Any]) -> Any:
        """An `OnnxModel`. Operators outside of the list are refused, also with `trust`: nothing here could run them."""
        if options.get("as_") is not None or into is not None:
            raise SerializationError("a graph is loaded as it is", hint="load without as_ and into")
        if device not in (None, "cpu"):
            raise BackendError(f"the graph cannot be on {device!r}", hint="device='cpu'", backend="onnx")
        graphs = [name for name in reader.files if name.endswith(".onnx")]
        main = FILE if FILE in graphs else graphs[0] if len(graphs) == 1 else None
        if main is None:
            raise SerializationError(f"the component holds {len(graphs)} files .onnx, and none is {FILE}")
        external = {name: reader.view(name) for name in reader.files if name != main}
        model = OnnxModel(bytes(reader.view(main)), external)
        model.session  # noqa: B018  # a graph that onnxruntime refuses is refused here
        return model

    def describe(self, obj: Any) -> Description:
        """Opset, producer, operators with their counts, and the initializers."""
        try:
            model = self._model(obj)
        except (CatalogError, OSError):
            return Description("onnx", onnx.__version__)
        proto = model.proto
        domains: dict[str, int] = {}
        for name, number in model.operators.items():
            domains[name.partition(":")[0]] = domains.get(name.partition(":")[0], 0) + number
        told = {
            "opset": next((part.version for part in proto.opset_import if part.domain in ("", "ai.onnx")), 0),
            "ir_version": proto.ir_version,
            "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
            "domains": ", ".join(f"{name} {number}" for name, number in domains.items()),
            "operators": ", ".join(f"{name.rpartition(':')[2]} {number}" for name, number in model.operators.items()),
        }
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        count = 0
        for tensor in proto.graph.initializer:
            try:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
            except KeyError:
                continue
            shapes[tensor.name] = (dtype, tuple(tensor.dims))
            size = 1
            for axis in tensor.dims:
                size *= axis
            count += size
        return Description("onnx", onnx.__version__, proto.graph.name, told, count, shapes)

    def inputs(self, obj: Any, method: str) -> list[str] | None:
        """The inputs of the graph."""
        if method != "run":
            raise SerializationError(f"a graph has no method {method!r}", hint="it has run")
        return [spec.name for spec in self._model(obj).inputs]

    def call(self, obj: Any, method: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the graph."""
        self.inputs(obj, method)
        model = self._model(obj)
        self._ran = (obj, model)
        return model.run(**inputs)

    @staticmethod
    def snapshot(obj: Any) -> Snapshot:
        """Random numbers only: running a graph changes nothing in it."""
        return Snapshot(None)

    def measure(self, obj: Any, method: str, trial: Trial) -> Signature:
        """As the graph says it, held against the example and what came out for it; nothing is run."""
        model, example, outputs = self._model(obj), trial.example, trial.outputs
        axes: dict[str, int] = {}
        for spec in model.inputs:
            if spec.name not in example:
                raise InvalidInput(f"the graph needs the input {spec.name!r}")
            check_tensor(f"input {spec.name!r}", spec, example[spec.name], axes)
        inputs = [_called(spec, trial.axes.get(spec.name, {})) for spec in model.inputs]
        outs = []
        for spec in model.outputs:
            try:
                check_tensor(f"output {spec.name!r}", spec, outputs[spec.name], dict(axes))
            except InvalidInput:  # graphs say little, or the wrong thing, of what they give
                spec = TensorSpec(spec.name, outputs[spec.name].dtype.name, (None,) * outputs[spec.name].ndim)
            outs.append(spec)
        return Signature(tuple(inputs), tuple(outs))


def _called(spec: TensorSpec, axes: Mapping[int, str | None]) -> TensorSpec:
    """The input with the declared names, where the graph leaves an axis free and does not name it."""
    return attrs.evolve(spec, shape=tuple(axes.get(at) if n is None else n for at, n in enumerate(spec.shape)))


def _free(trial: Trial) -> dict[str, dict[int, str | None]]:
    """The axes that were declared, and those that were found by trying."""
    found = {
        spec.name: {at: n if n != BATCH else None for at, n in enumerate(spec.shape) if not isinstance(n, int)}
        for spec in measured(trial).inputs
    }
    return {name: {**found.get(name, {}), **trial.axes.get(name, {})} for name in {*found, *trial.axes}}


def _method_of(request: SaveRequest) -> str:
    """The method of another framework's object that becomes the graph, which holds one."""
    methods = list(dict.fromkeys(request.methods))
    usual = [method for method in methods if method in USUAL]
    if len(methods) > 1 and not usual:
        raise SerializationError(
            f"a graph holds one method, and the entry points name {', '.join(methods)}",
            hint="export each by to_onnx(model, example, method), as a component of its own",
        )
    return (usual or methods or [USUAL[0]])[0]
