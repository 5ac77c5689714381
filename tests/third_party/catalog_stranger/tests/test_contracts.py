from contextlib import closing

import catalog_stranger
import numpy as np
import pytest
from catalog_stranger.log import LogStore
from polycal import PolynomialCalibration

from catalog_core.objectstore import ObjectStoreBackend
from catalog_core.testing.contract import BackendContract, ObjectStoreContract, SerializerContract


class TestStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with closing(LogStore(str(tmp_path / "objects.log"))) as store:
            yield store


class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path):
        with closing(LogStore(str(tmp_path / "objects.log"))) as store:
            yield ObjectStoreBackend(store, "logfile", "logfile://test")


class Mine(PolynomialCalibration):
    """A class of the user's own."""


class TestSerializer(SerializerContract):
    @pytest.fixture
    def spec(self):
        return next(catalog_stranger.catalog_register_serializers())

    @pytest.fixture
    def obj(self):
        return Mine([[0.0, 1.5, -1e-300], [0.1, 0.9, 2.0]], [1.0, -0.0], ridge=1e-3, unit="MeV")

    @pytest.fixture
    def equal(self):
        def equal(one, two):
            return all(
                getattr(one, n).tobytes() == getattr(two, n).tobytes()
                and getattr(one, n).shape == getattr(two, n).shape
                for n in ("coefficients", "pedestals")
            ) and (one.ridge, one.unit) == (two.ridge, two.unit)

        return equal

    @pytest.fixture
    def change(self):
        def change(loaded):
            loaded.coefficients[0, 0] += 1

        return change

    @pytest.fixture
    def target(self):
        return PolynomialCalibration(np.zeros((2, 3)), np.zeros(2))

    @pytest.fixture
    def misfits(self):
        odd = PolynomialCalibration(np.zeros((2, 3)), np.zeros(2))
        odd.coefficients = odd.coefficients.astype(np.float32)
        return [
            PolynomialCalibration(np.zeros((2, 4)), np.zeros(2)),
            PolynomialCalibration(np.zeros((3, 3)), np.zeros(3)),
            odd,
        ]

    @pytest.fixture
    def example(self):
        return {"signals": np.arange(6.0).reshape(3, 2)}

    @pytest.fixture
    def methods(self):
        return ["predict", "by_channel"]
