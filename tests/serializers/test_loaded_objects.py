"""What `load` gives: calls drop no argument, and it pickles, or says why not."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from catalog_core import Catalog
from catalog_core.errors import InvalidInput

pytestmark = pytest.mark.framework
torch = pytest.importorskip("torch")
X = np.arange(8.0).reshape(4, 2)


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(left) - right


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalog]:
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    with Catalog.open(tmp_path / "catalog") as opened:
        yield opened


def test_an_exported_module_drops_no_argument(catalog: Catalog) -> None:
    left, right = torch.rand(4, 2), torch.rand(4, 3)
    catalog.save("two", Two(), example={"left": left, "right": right})
    loaded = catalog.load("two")
    wanted = loaded(left, right)
    assert torch.equal(loaded(left, right=right), wanted) and torch.equal(loaded(right=right, left=left), wanted)
    for args, inputs, says in (
        ((left, right, right), {}, "takes 2 inputs"), ((left, right), {"right": right}, "twice"),
        ((left,), {"left": left, "right": right}, "twice"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=says):
            loaded(*args, **inputs)


def test_an_exported_module_is_copied_and_says_why_it_is_not_pickled(catalog: Catalog) -> None:
    left, right = torch.rand(4, 2), torch.rand(4, 3)
    catalog.save("two", Two(), example={"left": left, "right": right})
    loaded = catalog.load("two")
    with pytest.raises(InvalidInput, match=r"cannot be pickled.*programs of torch") as caught:
        pickle.dumps(loaded)
    assert "state_dict" in str(caught.value.hint)
    state = pickle.loads(pickle.dumps(loaded.state_dict()))
    assert all(torch.equal(state[key], value) for key, value in loaded.state_dict().items())
    twin = copy.deepcopy(loaded)
    with torch.no_grad():
        next(iter(twin.parameters())).add_(1)
    assert not torch.equal(twin(left, right), loaded(left, right))
    assert torch.equal(copy.copy(loaded)(left, right), loaded(left, right))


def test_an_onnx_graph_is_pickled(catalog: Catalog) -> None:
    convert = pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    from sklearn.linear_model import LinearRegression

    x = X.astype(np.float32)
    catalog.save("graph", convert.to_onnx(LinearRegression().fit(x, x.sum(1)), x), example={"X": x})
    loaded = catalog.load("graph")
    wanted = loaded.run(X=x)
    got = pickle.loads(pickle.dumps(loaded)).run(X=x)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value)


def test_arrays_and_estimators_are_pickled(catalog: Catalog) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    catalog.save("arrays", {"w": X})
    catalog.save("estimator", linear.LinearRegression().fit(X, X.sum(1)), example=X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(catalog.load("arrays")))["w"], X)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(catalog.load("estimator"))).predict(X), X.sum(1))
