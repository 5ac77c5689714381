"""ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class OnnxRunner:
    """A graph, on the processor."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        import onnxruntime

        names = sorted(path.name for path in folder.glob("*.onnx"))
        path = folder / ("model.onnx" if "model.onnx" in names else names[0])
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run the graph."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(values)), strict=True))
