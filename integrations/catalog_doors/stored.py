"""A plain folder as what serializers write to and read from; and which serializers there are."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from catalog_core.names import check_file


class FolderDirectory:
    """`interfaces.serializer.Directory` over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, parts: Sequence[Any], cuts: Sequence[int] = ()) -> None:
        """See `interfaces.serializer.Directory`."""
        with self.path(name).open("wb") as file:
            for part in parts:
                file.write(part)

    def path(self, name: str, stride: int | None = None) -> Path:
        """See `interfaces.serializer.Directory`."""
        path = self.folder / check_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class FolderReader:
    """`interfaces.serializer.Reader` over files that nobody has checked yet; it must outlive what is mapped."""

    scattered = False

    def __init__(self, files: Mapping[str, Path], meta: Mapping[str, Any]) -> None:
        self.meta = meta
        self._paths = dict(files)
        self.files: Mapping[str, int] = {name: path.stat().st_size for name, path in files.items()}

    def fetch(self, name: str) -> None:
        """It is here."""

    def hold(self, name: str) -> None:
        """The files of a folder have no digests."""

    def view(self, name: str, start: int = 0, length: int | None = None, *, writable: bool = False) -> memoryview:
        """See `interfaces.serializer.Reader`."""
        if not self.files[name]:
            return memoryview(b"")
        with self._paths[name].open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY if writable else mmap.ACCESS_READ)
        end = len(mapped) if length is None else start + length
        return memoryview(mapped)[start:end]

    def open(self, name: str) -> BinaryIO:
        """See `interfaces.serializer.Reader`."""
        return self._paths[name].open("rb")

    def path(self, name: str) -> Path:
        """See `interfaces.serializer.Reader`."""
        return self._paths[name]


def serializer(name: str) -> Any:
    """The serializer called `name`, of those that conversions write. Its framework is imported here."""
    if name == "sklearn":
        from catalog_sklearn.serializer import SklearnSerializer

        return SklearnSerializer()
    if name == "keras":
        from catalog_keras.serializer import KerasSerializer

        return KerasSerializer()
    from catalog_safetensors.serializer import SafetensorsSerializer

    return SafetensorsSerializer()
