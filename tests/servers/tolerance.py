"""When the outputs of a stored program equal those of the live one: to a tolerance by dtype.

Eager and exported programs may run by other kernels (fused, vectorised for another processor), so their last bits
differ from machine to machine. Weights, and outputs of one program, are compared bit by bit."""

from __future__ import annotations

from typing import Any

import torch


def close(found: Any, wanted: Any) -> None:
    """Assert that tensors or arrays, or mappings of them, have equal shapes and dtypes, and values within torch's
    tolerance for the dtype (float32: 1.3e-6 relative, 1e-5 absolute)."""
    torch.testing.assert_close(_tensors(found), _tensors(wanted))


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _tensors(one) for name, one in value.items()}
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
