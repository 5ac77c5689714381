"""A graph that was checked: its operators are on a list, and its external data lie among the files it came with."""

from __future__ import annotations

import hashlib
import stat
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from catalog_core.columns import STRING
from catalog_core.errors import InvalidInput, SerializationError
from catalog_core.records import TensorSpec
from catalog_core.shown import an
from catalog_onnx import memory
from catalog_onnx.guards import CONVERT, guard, needs_guards
from catalog_onnx.review import SMALL, check, external_files

FOLDED = 256 << 20
LOOP_SECONDS = 60.0  # how long a graph with loops may run: nobody can tell from outside whether they end
RUNS = 7  # the opset from which on onnxruntime has all operators
_LOOPS = ("ai.onnx:Loop", "ai.onnx:Scan")
_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16", "tensor(bool)": "bool", "tensor(string)": STRING,
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


class OnnxModel:
    """An ONNX graph, ready to run on the processor. `data` is the file, `external` its external data by location.

    Raises `SerializationError` for a graph that is broken or whose data lie elsewhere, `NotTrusted` for operators that
    are not on the list."""

    def __init__(self, data: bytes, external: Mapping[str, Any]) -> None:
        self.data, self.external = bytes(data), dict(external)
        self.proto = onnx.ModelProto()
        try:
            self.proto.ParseFromString(self.data)
        except DecodeError as exc:
            raise SerializationError(f"the file is no ONNX graph: {exc}") from exc
        if not self.proto.HasField("graph") or not self.proto.opset_import or not self.proto.graph.output:
            raise SerializationError("the file is no ONNX graph: it has no opset, or no outputs")
        needed = external_files(self.proto)
        for name, size in needed.items():
            if name not in self.external:
                raise SerializationError(f"the graph wants its data from {name!r}, which is not among its files")
            if len(self.external[name]) < size:
                raise SerializationError(f"the graph wants {size:,} bytes of {name!r}, which is shorter")
        unused = sorted(set(self.external) - set(needed))
        if unused:
            raise SerializationError(f"{unused[0]!r} is no data of the graph")
        self.operators = check(self.proto)

    def __reduce__(self) -> tuple[Any, ...]:
        return OnnxModel, (self.data, {name: bytes(data) for name, data in self.external.items()})

    def __deepcopy__(self, memo: Any) -> OnnxModel:
        """Itself: nothing changes it, and a session cannot be copied."""
        return self

    @classmethod
    def open(cls, path: Path) -> OnnxModel:
        """The graph of a file, or of the one `.onnx` file in a folder, with its external data beside it. Raises what
        making one raises, and `SerializationError` for data that are links or lie outside of the folder."""
        path = file_of(path)
        data = path.read_bytes()
        proto = onnx.ModelProto()
        try:
            proto.ParseFromString(data)
        except DecodeError as exc:
            raise SerializationError(f"{path.name} is no ONNX graph: {exc}") from exc
        return cls(data, {name: _mapped(path.parent, name) for name in external_files(proto)})

    def digest(self) -> tuple[str, ...]:
        """The digests of the graph and of its external data, as `digest_of` has those of files."""
        return _digests(self.data, *self.external.values())

    @cached_property
    def session(self) -> Any:
        """The session of onnxruntime; nothing is read from disk to make it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # What is constant is computed when the session is made: it stays small. (Older ones do not know the setting.)
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(FOLDED))
        if self._grows:
            memory.share(options)
        if self.external:
            buffers = [np.frombuffer(data, np.uint8) for data in self.external.values()]
            sizes = [buffer.size for buffer in buffers]
            options.add_external_initializers_from_files_in_memory(list(self.external), buffers, sizes)
        runnable = self._runnable()
        try:
            return onnxruntime.InferenceSession(runnable, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # it has an error class for each of its codes
            old = "NOT_IMPLEMENTED" in str(exc) and self._opset < RUNS
            raise SerializationError(
                f"onnxruntime refuses the graph: {_line(exc)}",
                hint=f"the graph is of opset {self._opset}: {CONVERT}" if old else None,
            ) from exc

    @property
    def _opset(self) -> int:
        """The version of ONNX's own operators; that of a graph that has none counts as new."""
        return next((part.version for part in self.proto.opset_import if part.domain in ("", "ai.onnx")), RUNS)

    @cached_property
    def _grows(self) -> bool:
        return memory.grows(self.proto)

    def _runnable(self) -> bytes:
        """The graph with its small tensors in it (shapes and axes are read before external data are), and with guards
        before operators that onnxruntime does not guard."""
        small = [tensor for tensor in self.proto.graph.initializer if 0 < _length(tensor) <= SMALL]
        if not small and not needs_guards(self.proto):
            return self.data
        proto = onnx.ModelProto.FromString(self.data)
        for tensor in proto.graph.initializer:
            length = _length(tensor)
            if 0 < length <= SMALL:
                told = {entry.key: entry.value for entry in tensor.external_data}
                offset = int(told.get("offset") or 0)
                tensor.raw_data = bytes(self.external[told["location"]][offset : offset + length])
                del tensor.external_data[:]
                tensor.data_location = onnx.TensorProto.DEFAULT
        guard(proto)
        return proto.SerializeToString()  # type: ignore[no-any-return]

    @property
    def inputs(self) -> list[TensorSpec]:
        """Names, dtypes and shapes of what `run` takes; an axis that may have any length is None or has a name."""
        return [_spec(value) for value in self.session.get_inputs()]

    @property
    def outputs(self) -> list[TensorSpec]:
        """The same of what it gives."""
        return [_spec(value) for value in self.session.get_outputs()]

    def run(self, **inputs: Any) -> dict[str, Any]:
        """Run the graph on arrays by name. Raises `InvalidInput` with the name of what does not fit, and for a graph
        with loops that is not done in `LOOP_SECONDS`."""
        names = [value.name for value in self.session.get_inputs()]
        for name in inputs:
            if name not in names:
                raise InvalidInput(f"the graph has no input {name!r}", hint=f"inputs: {', '.join(names)}")
        try:
            given = {name: np.asarray(value) for name, value in inputs.items()}
            results = self._run(given)
        except InvalidInput:
            raise
        except Exception as exc:
            if "BFCArena" in str(exc):
                raise InvalidInput(
                    f"the graph asks for more memory than it may have, {memory.bound():,} bytes: {_line(exc)[-120:]}",
                    hint="it computes the size of a tensor from these inputs: give it smaller ones",
                ) from exc
            raise InvalidInput(f"the graph cannot run on these inputs: {_line(exc)}") from exc
        found = dict(zip((value.name for value in self.session.get_outputs()), results, strict=True))
        for name, value in found.items():
            if not isinstance(value, np.ndarray) or value.dtype.hasobject:
                raise _no_numbers(name, value)
        return found

    def _run(self, given: Mapping[str, Any]) -> Any:
        """What onnxruntime makes of the inputs; a graph with loops is stopped when its time is over."""
        loops = any(name in self.operators for name in _LOOPS)
        if not loops and not self._grows:
            return self.session.run(None, given)
        import onnxruntime

        options = onnxruntime.RunOptions()
        if self._grows:
            memory.give_back(options)
        if not loops:
            return self.session.run(None, given, options)
        over = threading.Event()

        def stop() -> None:
            over.set()
            options.terminate = True

        timer = threading.Timer(LOOP_SECONDS, stop)
        timer.daemon = True
        timer.start()
        try:
            return self.session.run(None, given, options)
        except Exception as exc:
            if over.is_set():
                raise InvalidInput(
                    f"the graph was stopped: its loops were not done after {LOOP_SECONDS:g} s",
                    hint="a loop in it may never end; run it on fewer numbers, or its file in onnxruntime itself",
                ) from exc
            raise
        finally:
            timer.cancel()


def _no_numbers(name: str, value: Any) -> SerializationError:
    """What an output is that is no array of numbers, and what makes it one."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        what, hint = "a list of dictionaries, by a ZipMap", "export it with zipmap=False"
    elif isinstance(value, list):
        what, hint = "a sequence", "ConcatFromSequence makes one array of it"
    elif value is None:
        what, hint = "an optional value that is not there", "leave it out of the outputs"
    else:
        what, hint = "texts", "a LabelEncoder (ai.onnx.ml) behind it gives a number for each text"
    return SerializationError(f"output {name!r} is {what}; a graph gives arrays of numbers here", hint=hint)


def _length(tensor: Any) -> int:
    """Bytes of a tensor's external data, as far as the graph tells; 0 for one that has none."""
    return next((int(entry.value or 0) for entry in tensor.external_data if entry.key == "length"), 0)


def file_of(path: Path) -> Path:
    """The graph's file: `path`, or the one `.onnx` file in a folder. Raises `SerializationError`."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        raise SerializationError(f"{path} holds {len(found)} files .onnx, not one")
    return found[0]


def digest_of(path: Path, external: Iterable[str]) -> tuple[str, ...]:
    """The digests of the graph's file and of its external data, by which a change is noticed: times of files tell
    nothing where a copy keeps them, or within one tick of the clock. Raises `SerializationError`, `OSError`."""
    main = file_of(path)
    return _digests(main.read_bytes(), *(_mapped(main.parent, name) for name in external))


def _digests(*parts: Any) -> tuple[str, ...]:
    return tuple(hashlib.sha256(part).hexdigest() for part in parts)


def _mapped(folder: Path, name: str) -> Any:
    """The bytes of a file in a folder; a link on the way is refused."""
    path = folder
    for part in name.split("/"):
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as exc:
            raise SerializationError(f"the graph wants its data from {name!r}, which is not there") from exc
        if stat.S_ISLNK(mode):
            raise SerializationError(f"the graph wants its data from {name!r}, which is a link")
    if not stat.S_ISREG(mode):
        raise SerializationError(f"the graph wants its data from {name!r}, which is no file")
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else b""


def _spec(value: Any) -> TensorSpec:
    if value.type not in _TYPES:
        raise SerializationError(f"{value.name!r} is {an(value.type)}, not an array of numbers or texts")
    shape = tuple(size if isinstance(size, int) and size >= 0 else size if isinstance(size, str) else None
                  for size in value.shape)  # fmt: skip
    return TensorSpec(value.name, _TYPES[value.type], shape)


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300]
