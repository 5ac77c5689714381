"""ONNX graphs: the contract, existing files with external data, and what hostile ones cannot do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import catalog_onnx  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_core.errors import InvalidInput, NotTrusted, SerializationError  # noqa: E402
from catalog_core.specs import SerializerSpec  # noqa: E402
from catalog_core.testing.contract import SerializerContract  # noqa: E402
from catalog_onnx.model import OnnxModel  # noqa: E402

pytestmark = pytest.mark.framework
WEIGHTS = np.random.default_rng(0).random((4, 2), np.float32)
X = np.random.default_rng(1).random((3, 4), np.float32)


def graph(*more: Any, domain: str = "", **about: Any) -> Any:
    """y = x · W and its row sums, over two inputs' worth of checks."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["y"]),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
        *more,
    ]
    made = helper.make_graph(
        nodes, "linear", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["rows"]),
        ],
        [numpy_helper.from_array(WEIGHTS, "W"), numpy_helper.from_array(np.array([1]), "axes")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(made, opset_imports=opsets, ir_version=10, producer_name="tests", **about)


def stored_outside(folder: Path, location: str = "data/weights.bin") -> Path:
    """The graph as a file whose weights lie in another one."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    onnx.save_model(graph(), folder / "net.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "net.onnx"


def moved(path: Path, **told: str) -> Path:
    """The graph's weights are told to be elsewhere."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = told.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.open(f"sqlite://{tmp_path}/catalog") as catalog:
        yield catalog


class TestOnnx(SerializerContract):
    @pytest.fixture
    def spec(self) -> SerializerSpec:
        return next(iter(catalog_onnx.catalog_register_serializers()))

    @pytest.fixture
    def obj(self) -> Any:
        return OnnxModel(graph().SerializeToString(deterministic=True), {})

    @pytest.fixture
    def equal(self) -> Callable[[Any, Any], bool]:
        return lambda one, two: one.data == two.data

    @pytest.fixture
    def example(self) -> Any:
        return {"x": X}

    @pytest.fixture
    def methods(self) -> list[str]:
        return ["run"]


def test_a_file_with_external_data_is_saved_described_verified_and_run(catalog: Catalog, tmp_path: Path) -> None:
    path = stored_outside(tmp_path / "net")
    with catalog.prepare("net", path, example={"x": X}) as draft:
        report = draft.verify()
        assert report.passed, report.reason
        assert "match:predict" in {check.id for check in report.checks}
        version = draft.save()
    assert [file.name for file in catalog.artifact("net").manifest.components[0].files] == [
        "data/weights.bin",
        "model.onnx",
    ]
    assert version.params["operators"] == "MatMul 1, ReduceSum 1"
    assert version.params["domains"] == "ai.onnx 2"
    assert version.params["opset"] == 20
    with catalog.session("net") as session:
        outputs = session.predict(x=np.vstack([X, X]))
        np.testing.assert_allclose(outputs["y"], np.vstack([X, X]) @ WEIGHTS, rtol=1e-6)
        np.testing.assert_allclose(outputs["total"], (np.vstack([X, X]) @ WEIGHTS).sum(1), rtol=1e-6)
        with pytest.raises(InvalidInput, match=r"expected float32\[rows, 4\], got float64\[3, 4\]"):
            session.predict(x=X.astype(float))


def test_a_folder_is_saved_by_name_of_the_serializer(catalog: Catalog, tmp_path: Path) -> None:
    stored_outside(tmp_path / "net")
    catalog.save("net", tmp_path / "net", serializer="onnx", example={"x": X})
    target = catalog.download("net", tmp_path / "out")
    assert {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()} == {
        "data/weights.bin",
        "model.onnx",
    }
    np.testing.assert_allclose(OnnxModel.open(target).run(x=X)["y"], X @ WEIGHTS, rtol=1e-6)
    again = catalog.save("again", catalog.load("net"), example={"x": X})
    assert again.manifest.components[0].files == catalog.version("net").manifest.components[0].files


def test_data_outside_of_the_folder_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64))
    for place in ("../secret.bin", str(secret), "data/../../secret.bin", "C:\\secret", "", "..", "a\0b"):
        path = moved(stored_outside(tmp_path / "net"), location=place)
        with pytest.raises(SerializationError, match="not allowed"):
            catalog.save("net", path)


def test_links_are_refused(catalog: Catalog, tmp_path: Path) -> None:
    path = stored_outside(tmp_path / "net")
    (tmp_path / "net/data/weights.bin").rename(tmp_path / "elsewhere.bin")
    (tmp_path / "net/data/weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(SerializationError, match="which is a link"):
        catalog.save("net", path)
    (tmp_path / "net/data/weights.bin").unlink()
    with pytest.raises(SerializationError, match="which is not there"):
        catalog.save("net", path)
    os.mkfifo(tmp_path / "net/data/weights.bin")
    with pytest.raises(SerializationError, match="which is no file"):
        catalog.save("net", path)


def test_data_that_are_too_short_or_in_inner_graphs_are_refused(tmp_path: Path) -> None:
    path = stored_outside(tmp_path / "net")
    with pytest.raises(SerializationError, match="which is shorter"):
        OnnxModel.open(moved(path, offset="4000"))
    with pytest.raises(SerializationError, match="begins before"):
        OnnxModel.open(moved(path, offset="-8"))
    model = graph(helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(WEIGHTS, "c")))
    tensor = model.graph.node[-1].attribute[0].t
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(SerializationError, match="inner graphs"):
        OnnxModel(model.SerializeToString(), {})


def test_a_stored_graph_cannot_reach_what_is_not_stored_with_it(catalog: Catalog, tmp_path: Path) -> None:
    """Who writes to the store by another way cannot make a reader open a file of the machine."""
    path = moved(stored_outside(tmp_path / "net"), location="../../../../etc/hostname")
    catalog.save("raw", components={"files": tmp_path / "net"})
    artifact = catalog.artifact("raw")
    reader = artifact.reader(artifact.find("files"))
    serializer = catalog.repository.registry.serializer("onnx")
    with pytest.raises(SerializationError, match="not allowed"):
        serializer.load(reader, None, None, {})
    assert path.exists()


@pytest.mark.parametrize(
    "domain, operator",
    [("evil.corp", "Anything"), ("com.microsoft", "EPContext"), ("", "PyOp"), ("com.microsoft", "PythonOp")],
)
def test_operators_that_are_not_on_the_list_are_refused(catalog: Catalog, domain: str, operator: str) -> None:
    node = helper.make_node(operator, ["y"], ["z"], domain=domain)
    with pytest.raises(NotTrusted):
        catalog.save("net", graph(node, domain=domain))
    inner = helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    branch = helper.make_node("If", ["c"], ["out"], then_branch=inner, else_branch=inner)
    with pytest.raises(NotTrusted):
        catalog.save("net", graph(branch, domain=domain))


def test_functions_of_the_graph_itself_are_walked(catalog: Catalog) -> None:
    opsets = [helper.make_opsetid("", 20)]

    def with_function(operator: str) -> Any:
        body = [helper.make_node(operator, ["a"], ["b"])]
        function = helper.make_function("own", "Twice", ["a"], ["b"], body, opsets)
        return graph(helper.make_node("Twice", ["y"], ["z"], domain="own"), domain="own", functions=[function])

    catalog.save("net", with_function("Neg"), example={"x": X})
    with pytest.raises(NotTrusted, match="PyOp"):
        catalog.save("net", with_function("PyOp"))


def test_what_is_no_graph_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for data in (b"", b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04", b"{}", b"\0\0\0\0ORTM\0\0\0\0"):
        path.write_bytes(data)
        with pytest.raises(SerializationError, match="no ONNX graph"):
            catalog.save("net", path)


def test_scikit_learn_is_exported_by_skl2onnx(catalog: Catalog) -> None:
    pytest.importorskip("skl2onnx")
    linear_model = pytest.importorskip("sklearn.linear_model")
    from catalog_onnx.export import to_onnx

    rows = np.random.default_rng(0).random((40, 4), np.float32)
    model = linear_model.LogisticRegression().fit(rows, rows[:, 0] > 0.5)
    catalog.save("net", to_onnx(model, {"X": rows[:3]}), example={"X": rows[:3]})
    with catalog.session("net") as session:
        outputs = session.predict(X=rows)
    np.testing.assert_allclose(outputs["probabilities"], model.predict_proba(rows), rtol=1e-5)


def test_torch_is_exported_by_torch(catalog: Catalog) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from catalog_onnx.export import to_onnx

    net = torch.nn.Linear(4, 2)
    catalog.save("net", to_onnx(net, {"input": X}), example={"input": X})
    with catalog.session("net") as session:
        (output,) = session.run("predict", {"input": np.vstack([X, X])}).values()
    np.testing.assert_allclose(output[:3], net(torch.from_numpy(X)).detach().numpy(), rtol=1e-5)


def test_a_torch_module_is_kept_beside_its_graph(catalog: Catalog) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

        def shifted(self, x: Any, by: Any) -> Any:
            return self.layer(x) + by

    net = Net()
    version = catalog.save(
        "net", components={"net": net}, serializer={"net": ["torch", "onnx"]},
        entry_points={"predict": "net", "shifted": "net.shifted"}, example={"x": X, "by": np.ones((3, 1), "float32")},
        verify=True,
    )  # fmt: skip
    assert version.summary["components"] == {"net": "torch", "net-onnx": "onnx"}
    assert net.training, "exporting left it as it was"
    output = catalog.load("net", "net-onnx").run(x=X)["output"]
    np.testing.assert_allclose(output, net(torch.from_numpy(X)).detach().numpy(), rtol=1e-5)
    with pytest.raises(SerializationError, match=r"is no ONNX graph \(a ModelProto, a Path, to_onnx"):
        catalog.save("net", net, serializer={"model": ["torch", "onnx"]})


def test_the_outputs_of_a_torch_module_keep_their_names_and_any_number_of_rows() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from catalog_onnx.export import to_onnx
    from catalog_onnx.model import OnnxModel

    class Net(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, optional: Any = None) -> Any:
            return {"zero": x * 0, "both": [x + 1, x.sum(1)], "none": optional}

    graph = OnnxModel(to_onnx(Net(), {"x": X}).SerializeToString(), {})
    out = graph.run(x=np.vstack([X, X]))
    assert list(out) == ["zero", "both_0", "both_1"]
    assert (out["zero"] == 0).all() and (out["both_0"][:3] == X + 1).all() and out["both_1"].shape == (6,)


def test_what_has_no_converter_is_an_error() -> None:
    from catalog_onnx.export import to_onnx

    with pytest.raises(SerializationError, match="no converter"):
        to_onnx({"w": WEIGHTS}, {"x": X})
