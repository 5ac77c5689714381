"""The model: a polynomial for each channel, and the sum over the channels."""

import numpy as np

VERSION = "2.1"


class PolynomialCalibration:
    """energy = sum over channels of sum over powers of coefficients[channel, power] * signal ** power."""

    def __init__(self, coefficients, pedestals, *, ridge: float = 0.0, unit: str = "GeV") -> None:
        self.coefficients = np.array(coefficients, np.float64)  # (channels, degree + 1)
        self.pedestals = np.array(pedestals, np.float64)  # (channels,)
        self.ridge = float(ridge)
        self.unit = str(unit)

    @classmethod
    def fit(cls, signals, energy, *, degree: int = 2, ridge: float = 1e-6, unit: str = "GeV"):
        """Least squares with a penalty."""
        pedestals = np.median(signals, axis=0)
        x = np.asarray(signals) - pedestals
        design = (x[:, :, None] ** np.arange(degree + 1)).reshape(len(x), -1)
        normal = design.T @ design + ridge * np.eye(design.shape[1])
        return cls(
            np.linalg.solve(normal, design.T @ energy).reshape(x.shape[1], -1), pedestals, ridge=ridge, unit=unit
        )

    @property
    def degree(self) -> int:
        return self.coefficients.shape[1] - 1

    def by_channel(self, signals: np.ndarray) -> np.ndarray:
        x = np.asarray(signals, np.float64) - self.pedestals
        return np.einsum("rcp,cp->rc", x[:, :, None] ** np.arange(self.degree + 1), self.coefficients)

    def predict(self, signals: np.ndarray) -> np.ndarray:
        return self.by_channel(signals).sum(axis=1)
