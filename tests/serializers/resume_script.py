"""Trains a model, saves it and goes on (`first`), or goes on with what was saved (`resume`); prints what comes next."""

import json
import sys
import warnings
from typing import Any

import numpy as np

from catalog_core import Catalog

RANDOM = np.random.default_rng(3)
X, Y = RANDOM.random((60, 4)).astype("float32"), RANDOM.random(60).astype("float32")


class Sklearn:
    """Stochastic gradient descent, whose step size falls with each step."""

    def start(self) -> Any:
        from sklearn.linear_model import SGDRegressor

        return self.go_on(SGDRegressor(random_state=1, learning_rate="invscaling"))[0]

    def go_on(self, model: Any) -> Any:
        model.partial_fit(X, Y)
        return model, float(np.square(model.predict(X) - Y).mean())


class Network:
    """A network of scikit-learn, with the moments of Adam."""

    def start(self) -> Any:
        from sklearn.neural_network import MLPRegressor

        return self.go_on(MLPRegressor(hidden_layer_sizes=(8,), random_state=1, shuffle=False))[0]

    def go_on(self, model: Any) -> Any:
        model.partial_fit(X, Y)
        return model, float(np.square(model.predict(X) - Y).mean())


class Xgboost:
    def start(self) -> Any:
        return self.go_on(None)[0]

    def go_on(self, model: Any) -> Any:
        import xgboost

        data = xgboost.DMatrix(X, Y)
        model = xgboost.train({"max_depth": 2, "nthread": 1}, data, 3, xgb_model=model)
        return model, float(np.square(model.predict(data) - Y).mean())


class Lightgbm:
    def start(self) -> Any:
        return self.go_on(None)[0]

    def go_on(self, model: Any) -> Any:
        import lightgbm

        settings = {"num_threads": 1, "verbose": -1, "deterministic": True, "min_data_in_leaf": 5}
        model = lightgbm.train(settings, lightgbm.Dataset(X, Y), 3, init_model=model)
        return model, float(np.square(model.predict(X) - Y).mean())


class Pytree:
    """Parameters of JAX, the state of Adam, and the key of its random numbers."""

    def start(self) -> Any:
        import jax
        import optax

        params = {"layer": [{"w": jax.numpy.ones(4)}, jax.numpy.zeros(())]}
        state = optax.adam(0.1).init(params)
        return self.go_on({"params": params, "state": state, "key": jax.random.PRNGKey(0)})[0]

    def go_on(self, model: Any) -> Any:
        import jax
        import optax

        key, draw = jax.random.split(model["key"])

        def loss(params: Any) -> Any:
            x = X + 0.1 * jax.random.normal(draw, X.shape)
            return ((x @ params["layer"][0]["w"] + params["layer"][1] - Y) ** 2).mean()

        value, gradient = jax.value_and_grad(loss)(model["params"])
        updates, state = optax.adam(0.1).update(gradient, model["state"])
        return {"params": optax.apply_updates(model["params"], updates), "state": state, "key": key}, float(value)


class Safetensors:
    """Momentum by hand, in NumPy."""

    def start(self) -> Any:
        return self.go_on({"w": np.ones(4, "float32"), "momentum": {"w": np.zeros(4, "float32")}, "step": 0})[0]

    def go_on(self, model: Any) -> Any:
        error = X @ model["w"] - Y
        momentum = np.float32(0.9) * model["momentum"]["w"] + X.T @ error / len(X)
        step = model["step"] + 1
        made = {"w": model["w"] - np.float32(0.1 / step) * momentum, "momentum": {"w": momentum}, "step": step}
        return made, float(np.square(error).mean())


KINDS: dict[str, Any] = {
    "sklearn": Sklearn, "network": Network, "xgboost": Xgboost, "lightgbm": Lightgbm,
    "pytree": Pytree, "safetensors": Safetensors,
}  # fmt: skip


def main(what: str, kind: str, url: str) -> None:
    run = KINDS[kind]()
    with Catalog.open(url) as catalog:
        if what == "first":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = run.start()
            serializer = kind if kind in ("pytree", "safetensors") else None
            catalog.save("m", model, serializer=serializer)
        else:
            assert not {"sklearn", "xgboost", "lightgbm", "jax", "optax"} & set(sys.modules), "nothing is there yet"
            model = catalog.load("m")
    losses = []
    for _ in range(3):
        model, loss = run.go_on(model)
        losses.append(loss)
    print(json.dumps(losses))


if __name__ == "__main__":
    main(*sys.argv[1:])
