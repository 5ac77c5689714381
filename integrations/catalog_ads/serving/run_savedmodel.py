"""SavedModels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class SavedModelRunner:
    """The signatures of a SavedModel; its random numbers go on from call to call."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        import tensorflow as tf

        with tempfile.TemporaryDirectory() as place:  # the artifact may be read-only
            (Path(place) / "variables").symlink_to((folder / "variables").resolve())
            (Path(place) / "saved_model.pb").write_bytes(self.plain((folder / "saved_model.pb").read_bytes()))
            self.root = tf.saved_model.load(place)
        self.outputs = {method: told["outputs"] for method, told in meta["methods"].items()}

    def plain(self, data: bytes) -> bytes:
        """The objects of a SavedModel, their functions and constants: what the catalog ignores, TensorFlow shall not
        run."""
        from tensorflow.core.protobuf import saved_model_pb2

        model, copy = saved_model_pb2.SavedModel.FromString(data), saved_model_pb2.SavedModel()
        copy.saved_model_schema_version = model.saved_model_schema_version
        source, target = model.meta_graphs[0], copy.meta_graphs.add()
        target.meta_info_def.tags.append("serve")
        target.meta_info_def.tensorflow_version = source.meta_info_def.tensorflow_version
        target.object_graph_def.CopyFrom(source.object_graph_def)
        target.graph_def.versions.CopyFrom(source.graph_def.versions)
        target.graph_def.node.extend(node for node in source.graph_def.node if node.op == "Const")
        target.graph_def.library.CopyFrom(source.graph_def.library)
        return copy.SerializeToString()  # type: ignore[no-any-return]

    def call(self, method: str, values: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Any]:
        """Run a method."""
        import tensorflow as tf

        signature = self.root.signatures[method]
        wanted = signature.structured_input_signature[1]
        found = signature(**{name: tf.cast(tf.constant(value), wanted[name].dtype) for name, value in values.items()})
        outputs = {name: found[name] for name in self.outputs[method]}
        return {n: (tf.cast(v, "float32") if v.dtype == tf.bfloat16 else v).numpy() for n, v in outputs.items()}
