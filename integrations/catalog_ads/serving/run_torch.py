"""Graphs of torch.export, and the weights beside them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class TorchRunner:
    """Exported methods over one set of weights."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        weights = self.weights(folder / "model.safetensors", meta)
        self.graphs = {
            method: self.graph(
                (folder / f"{method}.pt2").read_bytes(), weights, "" if method == "forward" else "owner."
            )
            for method in meta["inputs"]
        }

    def weights(self, path: Path, meta: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors of a safetensors file by name."""
        import torch

        dtypes = {
            "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
            "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "U32": "uint32",
            "F32": "float32", "I64": "int64", "U64": "uint64", "F64": "float64", "C64": "complex64",
        }  # fmt: skip
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        found = {}
        for name, told in json.loads(data[8:start]).items():
            if name == "__metadata__":
                continue
            begin, end = told["data_offsets"]
            dtype = getattr(torch, dtypes[told["dtype"]])
            part = bytearray(data[start + begin : start + end])  # of its own, so that it is aligned
            found[name] = torch.frombuffer(part, dtype=dtype) if part else torch.empty(0, dtype=dtype)
            found[name] = found[name].reshape(told["shape"])
        return found | {name: found[stored] for name, stored in meta.get("shared", {}).items()}

    def graph(self, archive: bytes, weights: Mapping[str, Any], prefix: str) -> Any:
        """A graph over the weights: one element stands for each until it is loaded."""
        import torch

        with zipfile.ZipFile(io.BytesIO(archive)) as file:
            members = {name: file.read(name) for name in file.namelist() if "/sample_inputs/" not in name}
        members["archive/data/sample_inputs/model.pt"] = b""
        members["archive/models/model.json"] = self.plain(members["archive/models/model.json"])
        place = "archive/data/weights/model_weights_config.json"
        table = json.loads(members.get(place, b'{"config": {}}'))
        state = {}
        for key, told in table["config"].items():
            tensor = state[key] = weights[key.removeprefix(prefix)]
            told["tensor_meta"].update(
                sizes=[{"as_int": size} for size in tensor.shape],
                strides=[{"as_int": 0} for _ in tensor.shape],
                storage_offset={"as_int": 0},
            )
            members[f"archive/data/weights/{told['path_name']}"] = bytes(tensor.element_size() if tensor.numel() else 0)
        members[place] = json.dumps(table).encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)
        buffer.seek(0)
        module = torch.export.load(buffer).module()
        module.load_state_dict({k: v for k, v in state.items() if k in module.state_dict()}, strict=False, assign=True)
        return module

    def plain(self, graph: bytes) -> bytes:
        """The graph without guard code and metadata of nodes: what the catalog ignores, torch shall not run."""
        told = json.loads(graph)
        told["guards_code"] = []
        waiting = [told]
        while waiting:
            item = waiting.pop()
            if isinstance(item, dict):
                if "metadata" in item:
                    item["metadata"] = {}
                waiting += item.values()
            elif isinstance(item, list):
                waiting += item
        return json.dumps(told).encode()

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run a method."""
        import torch

        given = {name: torch.from_numpy(np.array(value)) for name, value in values.items()}
        given = {n: v.to(getattr(torch, dtypes[n])) if n in dtypes else v for n, v in given.items()}
        with torch.no_grad():
            return dict(self.named(self.graphs[method](**given), ""))

    def named(self, result: Any, name: str) -> list[tuple[str, Any]]:
        """The tensors of a result by name; what NumPy has no dtype for comes as float32."""
        if isinstance(result, Mapping):
            parts = [(f"{name}_{key}" if name else str(key), part) for key, part in result.items()]
        elif isinstance(result, (tuple, list)):
            parts = [(f"{name or 'output'}_{number}", part) for number, part in enumerate(result)]
        elif result is None:
            return []
        elif not hasattr(result, "detach"):
            return [(name or "output", np.asarray(result))]
        else:
            tensor = result.detach().resolve_conj().resolve_neg()
            lacks = str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8"))
            return [(name or "output", (tensor.float() if lacks else tensor).numpy())]
        return [item for key, part in parts for item in self.named(part, key)]
