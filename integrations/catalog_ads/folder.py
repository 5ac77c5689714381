"""The artifact of a model on disk, written beside it; or the reason why there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_ads import archive, fresh, introspection, runtime, writer
from catalog_ads.payload import put
from catalog_ads.plain import frame
from catalog_core.errors import InvalidInput, NotTrusted
from catalog_core.records import Check

if TYPE_CHECKING:
    from catalog_ads.columns import Schema
    from catalog_core.draft import Draft
    from catalog_core.handles import Version


class ArtifactFolder:
    """`path`, and `why_not`: why nothing was written there, or empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.why_not = ""

    def write(self, draft: Draft, params: Mapping[str, Any], overwrite: bool) -> bool:
        """Write the artifact of a draft; False where nothing of it could be called. Raises `InvalidInput` where other
        files are in the way, unless `overwrite`."""
        with tempfile.TemporaryDirectory(prefix="catalog-ads-") as place:
            try:
                writer.write_artifact(draft.artifact, Path(place), draft.name, draft.digest, params)
            except (InvalidInput, NotTrusted) as exc:
                self.why_not = str(exc)
                return False
            put(Path(place), self.path, overwrite)
        self.why_not = ""
        return True

    def fetch(self, version: Version, path: Path, overwrite: bool) -> None:
        """Write the artifact of a version to `path`, which is the folder from then on. Raises as `write` does."""
        with tempfile.TemporaryDirectory(prefix="catalog-ads-") as place:
            writer.write(version, Path(place))
            put(Path(place), path, overwrite)
        self.path, self.why_not = path, ""

    def pack(self, target: Path, overwrite: bool) -> None:
        """Write the zip file. Raises `InvalidInput` for one that exists, unless `overwrite`."""
        self._check()
        if target.exists() and not overwrite:
            raise InvalidInput(f"{target} exists already", hint="force_overwrite=True")
        target.unlink(missing_ok=True)
        archive.pack(self.path, target)

    def checks(self) -> list[Check]:
        """The checks of ADS."""
        return introspection.introspect(self.path)

    def failed(self, prefix: str = "") -> list[str]:
        """The ids of the checks that fail."""
        return [check.id for check in self.checks() if check.result == "failed" and check.id.startswith(prefix)]

    def table(self) -> Any:
        """The checks as a pandas DataFrame, in ADS's columns. Raises `InvalidInput` where there is no artifact."""
        self._check()
        rows = ([c.id, introspection.CHECKS[c.id][1], c.result.capitalize(), c.cause] for c in self.checks())
        return frame(rows, ("Test key", "Test name", "Result", "Message"))

    def write_schemas(self, schemas: Mapping[str, Schema]) -> None:
        """Write schemas by their file names, and list them."""
        for name, schema in schemas.items():
            (self.path / name).write_text(schema.to_json(), encoding="utf-8")
        if (self.path / archive.MANIFEST).is_file():
            archive.write_manifest(self.path)

    def results(self) -> dict[str, Any]:
        """The checks as ADS keeps them."""
        env = runtime.read_runtime(self.path)["MODEL_DEPLOYMENT"]["INFERENCE_CONDA_ENV"]
        return introspection.as_ads(self.checks(), env)

    def answer(self, request: Any) -> dict[str, Any]:
        """What `score.py` answers in a process of its own. Raises `InvalidInput` where there is none."""
        self._check()
        (answer,), _ = fresh.answers(self.path, [request])
        return dict(answer) if isinstance(answer, dict) else {"prediction": answer}

    def _check(self) -> None:
        if self.why_not:
            raise InvalidInput(f"there is no score.py: {self.why_not}")
