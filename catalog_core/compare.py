"""Compare two versions: metadata, metrics, files, and tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from catalog_core import state, tensors
from catalog_core.artifact import StoredArtifact, stored
from catalog_core.page import Shown
from catalog_core.shown import counted

if TYPE_CHECKING:
    from catalog_core.repository import Repository
    from catalog_core.staging import Progress
    from catalog_core.state import VersionRow


@attrs.frozen
class Difference:
    """One line: `kind` is metadata, tag, metric, parameter, file or tensor; `change` is added, removed, changed or
    reshaped; `norm` is ‖b − a‖ / ‖a‖ (Euclidean, in float64) of a changed tensor, None where it makes no sense."""

    kind: str
    name: str
    change: str
    before: Any = None
    after: Any = None
    norm: float | None = None


@attrs.frozen
class Comparison(Shown):
    """All differences between `first` and `second`: references, with the catalog's name where there are two catalogs.
    `same` counts tensors that are equal, bit by bit."""

    first: str
    second: str
    differences: tuple[Difference, ...]
    same: int
    shared_bytes: int
    total_bytes: int

    def rows(self) -> list[dict[str, Any]]:
        """The differences as plain rows."""
        return [attrs.asdict(difference) for difference in self.differences]

    def __repr__(self) -> str:
        return (
            f"<Comparison {self.first} {self.second}: {counted(len(self.differences), 'difference')},"
            f" {counted(self.same, 'tensor')} equal>"
        )


@attrs.frozen
class Side:
    """A version, and the repository that has it."""

    repository: Repository
    version: VersionRow


def compare(one: Side, two: Side, progress: Progress | None = None) -> Comparison:
    """The differences from `one` to `two`. Reads only the tensors whose stored bytes differ."""
    found: list[Difference] = []
    first, second = (stored(side.repository.content, side.repository.registry, side.version) for side in (one, two))
    a, b = (state.published(side.repository.index, side.version)["summary"] for side in (one, two))
    for key in ("framework", "algorithm", "parameters", "components", "entry_points"):
        if a.get(key) != b.get(key):
            found.append(Difference("metadata", key, "changed", a.get(key), b.get(key)))
    for kind, called in (("tags", "tag"), ("metrics", "metric")):
        found += _mapping(called, one.version.group(kind), two.version.group(kind))
    found += _mapping("parameter", state.params(one.version, a), state.params(two.version, b))
    found += _mapping("taxonomy", one.version.group("taxonomy"), two.version.group("taxonomy"))
    same = 0
    files = [_files(first), _files(second)]
    found += _mapping("file", {n: f[1] for n, f in files[0].items()}, {n: f[1] for n, f in files[1].items()})
    for name in sorted(files[0].keys() & files[1].keys()):
        if name.endswith(".safetensors"):
            part, equal = _tensors(name, files[0][name], files[1][name], progress or (lambda done, total: None))
            found += part
            same += equal
    chunks = [
        {chunk.digest: chunk.length for parts in artifact.layout.values() for chunk in parts}
        for artifact in (first, second)
    ]
    shared = sum(length for digest, length in chunks[1].items() if digest in chunks[0])
    apart = one.repository.id != two.repository.id
    names = [f"{side.repository.name}:{side.version.ref}" if apart else side.version.ref for side in (one, two)]
    return Comparison(names[0], names[1], tuple(found), same, shared, sum(chunks[1].values()))


def _mapping(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    result = []
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            result.append(Difference(kind, key, "removed", before[key]))
        elif key not in before:
            result.append(Difference(kind, key, "added", None, after[key]))
        elif before[key] != after[key]:
            result.append(Difference(kind, key, "changed", before[key], after[key]))
    return result


def _files(artifact: StoredArtifact) -> dict[str, tuple[Any, str, str]]:
    return {
        f"{component.name}/{file.name}": (artifact.reader(component), file.digest, file.name)
        for component in artifact.manifest.components
        for file in component.files
    }


def _read(reader: Any, name: str, start: int, length: int) -> bytes:
    return bytes(reader.view(name, start, length))


def _tensors(
    prefix: str, before: tuple[Any, str, str], after: tuple[Any, str, str], progress: Progress
) -> tuple[list[Difference], int]:
    sides = []
    for reader, _, name in (before, after):
        header = tensors.parse_header(partial(_read, reader, name), reader.files[name])
        sides.append({entry.name: entry for entry in header.entries})
    one, two = sides
    if before[1] == after[1]:
        return [], len(one)
    base, result, same = prefix.split("/")[0], [], 0
    keys = sorted(one.keys() | two.keys())
    for number, key in enumerate(keys):
        progress(number, len(keys))
        name = f"{base}.{key}"
        if key not in two:
            result.append(Difference("tensor", name, "removed", _shape(one[key])))
        elif key not in one:
            result.append(Difference("tensor", name, "added", None, _shape(two[key])))
        elif _shape(one[key]) != _shape(two[key]):
            result.append(Difference("tensor", name, "reshaped", _shape(one[key]), _shape(two[key])))
        else:
            views = [r.view(n, e.start, e.end - e.start) for (r, _, n), e in ((before, one[key]), (after, two[key]))]
            if views[0] == views[1]:
                same += 1
            else:
                norm = _norm(views[0], views[1], one[key])
                result.append(Difference("tensor", name, "changed", _shape(one[key]), _shape(two[key]), norm))
    return result, same


def _shape(entry: tensors.Entry) -> str:
    return f"{entry.dtype}[{', '.join(map(str, entry.shape))}]"


def _norm(before: memoryview, after: memoryview, entry: tensors.Entry) -> float | None:
    import numpy as np

    arrays = []
    for view in (before, after):
        array = tensors.numpy_view(view, entry).reshape(-1)
        if array.dtype.kind == "c":
            array = array.view(array.real.dtype)
        arrays.append(array.astype(np.float64))
    size = float(np.linalg.norm(arrays[0]))
    change = float(np.linalg.norm(arrays[1] - arrays[0]))
    return change / size if size and change - change == 0 else None
