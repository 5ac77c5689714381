"""SavedModels made to do harm are refused with one clear line, before TensorFlow sees them; a canary proves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]
tf = pytest.importorskip("tensorflow")

from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import SerializationError  # noqa: E402
from catalog_core.testing.contract import SerializerContract  # noqa: E402
from catalog_savedmodel import graph  # noqa: E402
from catalog_savedmodel.serializer import DATA, GRAPH, INDEX, SavedModelSerializer  # noqa: E402

META = {"class": "m:M", "methods": {"call": {"inputs": ["x"], "outputs": ["output"]}}, "names": ["w"]}


def stored(folder: Path, function: Callable[[Any], Any]) -> dict[str, bytes]:
    """A SavedModel as TensorFlow writes it, in the form of ours: one variable `w`, one method `call`."""
    root = tf.Module()
    root.weights = {"w": tf.Variable([1.0, 2.0])}
    root.others = []

    def call(x: Any) -> Any:
        return {"output": function(x * root.weights["w"])}

    concrete = tf.function(call).get_concrete_function(x=tf.TensorSpec((None, 2), tf.float32, "x"))
    tf.saved_model.save(root, str(folder), signatures={"call": concrete})
    return {name: (folder / name).read_bytes() for name in (GRAPH, INDEX, DATA)}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Loads files and notes as a careless catalog would hand them over, and runs what comes."""
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield lambda files, meta=META: SavedModelSerializer().load(
            SerializerContract.reader(catalog, files, meta), None, None, {}
        )


def changed(files: dict[str, bytes], change: Callable[[Any], None]) -> dict[str, bytes]:
    model = saved_model_pb2.SavedModel.FromString(files[GRAPH])
    change(model.meta_graphs[0])
    return {**files, GRAPH: model.SerializeToString()}


def test_what_is_harmless_loads_and_runs(tmp_path: Path, load: Any) -> None:
    model = load(stored(tmp_path / "m", lambda x: x + 1))
    assert np.allclose(model(tf.ones((1, 2))), [[2.0, 3.0]])


def writes(path: Path) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(str(path), "harm")]):
            return tf.identity(x)

    return run


def inside_a_branch(path: Path) -> Callable[[Any], Any]:
    return lambda x: tf.cond(tf.reduce_sum(x) > -1e9, lambda: writes(path)(x), lambda: x)


def inside_a_loop(path: Path) -> Callable[[Any], Any]:
    return lambda x: tf.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, writes(path)(y)), [0, x])[1]


def calls_python(path: Path) -> Callable[[Any], Any]:
    def harm(x: Any) -> Any:
        path.write_text("harm")
        return x

    return lambda x: tf.py_function(harm, [x], tf.float32)


def reads(path: Path) -> Callable[[Any], Any]:
    return lambda x: x + tf.cast(tf.strings.length(tf.io.read_file("/etc/passwd")), tf.float32)


def prints(path: Path) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        with tf.control_dependencies([tf.print("harm", output_stream=f"file://{path}")]):
            return tf.identity(x)

    return run


def lists_files(path: Path) -> Callable[[Any], Any]:
    return lambda x: x + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32)


def data_set(path: Path) -> Callable[[Any], Any]:
    return lambda x: (
        x + tf.cast(tf.data.TextLineDataset(["/etc/passwd"]).reduce(np.int64(0), lambda n, line: n + 1), tf.float32)
    )


def custom_gradient(path: Path) -> Callable[[Any], Any]:
    @tf.custom_gradient
    def run(x: Any) -> Any:
        return tf.nn.relu(x), lambda upstream: writes(path)(upstream)

    return run


KINDS = [
    writes, inside_a_branch, inside_a_loop, calls_python, reads, prints, lists_files, data_set, custom_gradient
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_operations_that_are_not_on_the_list_are_refused(kind: Any, tmp_path: Path, load: Any) -> None:
    canary = tmp_path / "canary"
    files = stored(tmp_path / "m", kind(canary))
    canary.unlink(missing_ok=True)
    with pytest.raises(SerializationError, match="which is not on the list") as caught:
        load(files)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize("kind", [calls_python, writes])
def test_they_are_refused_when_they_are_saved_too(kind: Any, tmp_path: Path) -> None:
    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.function = kind(tmp_path / "canary")

        def __call__(self, x: Any) -> Any:
            return self.function(x)

    with Catalog.open(f"sqlite://{tmp_path}/c") as catalog, pytest.raises(SerializationError, match="not on the list"):
        catalog.save("m", components={"model": Model()}, example=np.ones((2, 2), np.float32))


def test_operations_in_what_older_loaders_run_are_refused(tmp_path: Path, load: Any) -> None:
    def change(meta: Any) -> None:
        node = meta.graph_def.node.add()
        node.name, node.op = "harm", "ReadFile"

    with pytest.raises(SerializationError, match="'ReadFile'"):
        load(changed(stored(tmp_path / "m", tf.identity), change))


def test_the_saver_cannot_be_called_from_a_method(tmp_path: Path, load: Any) -> None:
    """SaveV2 writes files: it is allowed in the savers that nothing reaches, and nowhere else."""

    def change(meta: Any) -> None:
        saver = next(f.signature.name for f in meta.graph_def.library.function if "traced_save" in f.signature.name)
        wrapper = next(f for f in meta.graph_def.library.function if "signature_wrapper" in f.signature.name)
        next(node for node in wrapper.node_def if "f" in node.attr).attr["f"].func.name = saver

    with pytest.raises(SerializationError, match=r"'(SaveV2|MergeV2Checkpoints|ShardedFilename)'"):
        load(changed(stored(tmp_path / "m", tf.identity), change))


def _asset(meta: Any) -> None:
    asset = meta.asset_file_def.add()
    asset.filename = "../../../../etc/passwd"


def _class(meta: Any) -> None:
    meta.object_graph_def.nodes[0].registered_name = "Package>Class"


def _optimizer(meta: Any) -> None:
    meta.object_graph_def.nodes[0].user_object.identifier = "optimizer"


def _missing(meta: Any) -> None:
    meta.object_graph_def.nodes[0].children[0].node_id = 99


def _itself(meta: Any) -> None:
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            if "f" in node.attr and "signature_wrapper" in function.signature.name:
                node.attr["f"].func.name = function.signature.name


def _unknown(meta: Any) -> None:
    for function in meta.graph_def.library.function:
        for node in function.node_def:
            if "f" in node.attr:
                node.attr["f"].func.name = "somewhere_else"


def _twice(meta: Any) -> None:
    meta.graph_def.library.function.add().CopyFrom(meta.graph_def.library.function[0])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_asset, "asset file"), (_class, "Package>Class"), (_optimizer, "'optimizer'"), (_missing, "not there"),
        (_itself, "calls itself"), (_unknown, "somewhere_else"), (_twice, "of one name"),
    ],
)  # fmt: skip
def test_objects_and_references_that_are_not_known_are_refused(
    change: Any, told: str, tmp_path: Path, load: Any
) -> None:
    with pytest.raises(SerializationError, match=told):
        load(changed(stored(tmp_path / "m", tf.identity), change))


def test_files_that_do_not_belong_are_refused(tmp_path: Path, load: Any) -> None:
    files = stored(tmp_path / "m", tf.identity)
    for name in ("assets/vocabulary.txt", "assets.extra/x", "variables/variables.data-00001-of-00002", "x.so"):
        with pytest.raises(SerializationError, match="no part of a stored SavedModel"):
            load({**files, name: b"x"})
    for name in ("../evil", "/tmp/evil", "variables/../../evil"):  # the core refuses such names in any component
        from catalog_core.errors import InvalidName
        from catalog_core.names import check_file

        with pytest.raises(InvalidName):
            check_file(name)


def test_what_is_no_saved_model_is_refused(tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = stored(tmp_path / "m", tf.identity)
    for data in (b"", b"\x80\x04K\x01.", b"PK\x03\x04", saved_model_pb2.SavedModel().SerializeToString(), b"\xff" * 99):
        with pytest.raises(SerializationError):
            load({**files, GRAPH: data})
    monkeypatch.setattr(graph, "MAX_GRAPH", 100)
    with pytest.raises(SerializationError, match="larger than"):
        load(files)


def test_variables_of_another_model_are_refused(tmp_path: Path, load: Any) -> None:
    files = stored(tmp_path / "m", tf.identity)
    for names in ([], ["v"], ["w", "v"], ["w/.ATTRIBUTES/x"]):
        with pytest.raises(SerializationError, match="other variables"):
            load(files, {**META, "names": names})


def test_bytes_that_are_flipped_never_end_the_process(tmp_path: Path, load: Any) -> None:
    files = stored(tmp_path / "m", lambda x: tf.nn.relu(x) + 1)
    draw = np.random.default_rng(1)
    for _ in range(150):
        data = bytearray(files[GRAPH])
        data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
        try:
            load({**files, GRAPH: bytes(data)})
        except SerializationError as exc:
            assert "\n" not in str(exc)


# -- sizes ------------------------------------------------------------------------------------------------------------


def shaped(name: str, *sizes: int) -> Callable[[Any], None]:
    """Make the constant that a function uses as a shape, or as a value, say other sizes."""

    def change(meta: Any) -> None:
        for function in meta.graph_def.library.function:
            for node in function.node_def:
                if node.op == "Const" and node.name.endswith(name):
                    tensor = node.attr["value"].tensor
                    if name.endswith("value"):  # one number, and a shape
                        tensor.CopyFrom(tf.make_tensor_proto(1.0))
                        tensor.tensor_shape.CopyFrom(tf.TensorShape(sizes).as_proto())
                    else:
                        tensor.CopyFrom(tf.make_tensor_proto(list(sizes), tf.int32))

    return change


def test_a_constant_of_one_value_and_a_huge_shape_is_refused(tmp_path: Path, load: Any) -> None:
    files = stored(tmp_path / "m", lambda x: x + tf.constant(1.0, name="value"))
    assert load(files) is not None
    with pytest.raises(SerializationError, match="takes 4000000000000 bytes"):
        load(changed(files, shaped("value", 1_000_000, 1_000_000)))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x + tf.reduce_sum(tf.fill(tf.constant([3, 2], name="sizes"), x[0, 0])),
        lambda x: x + tf.reduce_sum(tf.broadcast_to(x[0, 0], tf.constant([3, 2], name="sizes"))),
        lambda x: x + tf.reduce_sum(tf.random.uniform(tf.constant([3, 2], name="sizes"))),
        lambda x: x + tf.reduce_sum(tf.tile(x, tf.constant([3, 2], name="sizes"))),
        lambda x: x + tf.reduce_sum(tf.scatter_nd([[0, 0]], x[0, :1], tf.constant([3, 2], name="sizes"))),
    ],
)
def test_an_operation_that_makes_terabytes_is_refused(make: Any, tmp_path: Path, load: Any) -> None:
    files = stored(tmp_path / "m", make)
    assert load(files) is not None
    with pytest.raises(SerializationError, match="makes 10000000000000 numbers at once"):
        load(changed(files, shaped("sizes", 10_000_000, 1_000_000)))


def test_variables_that_the_index_says_are_larger_than_their_file_are_refused(tmp_path: Path, load: Any) -> None:
    files = stored(tmp_path / "m", tf.identity)
    with pytest.raises(SerializationError, match="the index names variables of"):
        load({**files, DATA: files[DATA][:4]})


def test_how_a_session_would_run_a_function_is_left_out(tmp_path: Path) -> None:
    def change(meta: Any) -> None:
        for function in meta.graph_def.library.function:
            for node in function.node_def:
                if "config_proto" in node.attr:
                    node.attr["config_proto"].s = b"anything"

    files = changed(stored(tmp_path / "m", tf.identity), change)
    copy = graph.safe_copy(graph.parse(files[GRAPH]))
    functions = copy.meta_graphs[0].graph_def.library.function
    values = [node.attr["config_proto"].s for f in functions for node in f.node_def if "config_proto" in node.attr]
    assert values and not any(values)


def test_no_operation_of_the_list_touches_files_or_makes_tensors_of_bytes_that_say_their_own_shape() -> None:
    words = (
        "File",
        "Parse",
        "Decode",
        "Print",
        "Save",
        "Restore",
        "Checkpoint",
        "PyFunc",
        "Dataset",
        "Iterator",
        "Rpc",
    )
    harmless = {"DecodeBase64", "DecodeRaw", "UnicodeDecode", "UnicodeDecodeWithOffsets"}
    assert {op for op in graph.ALLOWED if any(word in op for word in words)} <= harmless | {
        "CTCBeamSearchDecoder",
        "CTCGreedyDecoder",
    }
