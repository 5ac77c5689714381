"""SavedModel folders that TensorFlow or Keras wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from catalog_core.errors import SerializationError
from catalog_savedmodel import graph
from catalog_savedmodel.serializer import _ONE_AT_A_TIME, GRAPH, _check_sizes, _quiet, _reason

VARIABLES = "variables"


def read(folder: Path, scratch: Path) -> tuple[Any, list[str]]:
    """The object of a SavedModel, and the names of its signatures. TensorFlow sees a copy in `scratch` whose every
    operation is on the list. Raises `SerializationError`."""
    assets = folder / "assets"
    if assets.is_dir() and any(assets.iterdir()):
        raise SerializationError("the SavedModel reads files of its own (assets), which is not done here")
    path = folder / GRAPH
    if path.stat().st_size > graph.MAX_GRAPH:
        raise SerializationError("the graph of the SavedModel is larger than 256 MiB")
    safe = graph.safe_copy(graph.parse(path.read_bytes()))
    (scratch / VARIABLES).mkdir(parents=True)
    (scratch / GRAPH).write_bytes(safe.SerializeToString(deterministic=True))
    for file in sorted((folder / VARIABLES).iterdir()) if (folder / VARIABLES).is_dir() else []:
        os.symlink(file.resolve(), scratch / VARIABLES / file.name)
    if any((scratch / VARIABLES).iterdir()):
        _check_sizes(scratch)
    try:
        with _ONE_AT_A_TIME, _quiet():
            root = tf.saved_model.load(str(scratch))
    except Exception as exc:  # TensorFlow raises anything for a graph that is broken
        raise SerializationError(f"TensorFlow cannot load the SavedModel: {_reason(exc)}") from exc
    names = [str(name) for name in getattr(root, "signatures", {})]
    if not names:
        raise SerializationError("the SavedModel has no signature, so nothing that could be run")
    return root, names


def takes(root: Any) -> list[tuple[str, str, tuple[int | None, ...]]]:
    """Name, dtype and shape of the inputs of its main signature; none where one has any number of axes."""
    names = list(root.signatures)
    main = "serving_default" if "serving_default" in names else names[0]
    wanted = root.signatures[main].structured_input_signature[1]
    if any(spec.shape.rank is None for spec in wanted.values()):
        return []
    return [(name, spec.dtype.name, tuple(spec.shape)) for name, spec in wanted.items()]
