"""HDF5 files, looked at in a process of their own: the library has no end, or crashes, on some."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 60.0


def look(data: memoryview) -> list[list[str]]:
    """See `hdf5_child`. Raises `ModuleNotFoundError` where h5py is not installed, `ValueError` for what cannot be read
    within `SECONDS`."""
    if importlib.util.find_spec("h5py") is None:
        raise ModuleNotFoundError("h5py")
    with tempfile.TemporaryDirectory(prefix="catalog-scan-") as folder:
        path = Path(folder) / "file.h5"
        path.write_bytes(data)
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(Path(__file__).with_name("hdf5_child.py")), str(path)],
                input=json.dumps(sys.path), capture_output=True, text=True, timeout=SECONDS, cwd=folder,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise ValueError(f"reading it did not end within {SECONDS:.0f} s") from None
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"reading it crashed ({done.returncode})"])[-1])
    found: list[list[str]] = json.loads(done.stdout)
    return found
