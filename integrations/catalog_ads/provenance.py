"""Where a model comes from, as an object with ADS's attributes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import attrs

from catalog_ads.plain import Plain
from catalog_core import capture
from catalog_core.errors import InvalidInput
from catalog_oracle import taxonomy


@attrs.define(repr=False, str=False)
class ModelProvenanceMetadata(Plain):
    """Repository, commit, script and job of a training. `repo` is the repository's address, where ADS has an object."""

    repo: str | None = None
    git_branch: str | None = None
    git_commit: str | None = None
    repository_url: str | None = None
    training_script_path: str | None = None
    training_id: str | None = None
    artifact_dir: str | None = None
    _dirty: bool = attrs.field(default=False, eq=False, alias="dirty")

    @classmethod
    def of(cls, provenance: Mapping[str, Any], artifact_dir: str | None = None) -> Self:
        """What the provenance of a version says."""
        told = taxonomy.provenance_to_oci(provenance)
        git = provenance.get("git")
        return cls(
            repo=told.get("repository_url"),
            git_branch=told.get("git_branch"),
            git_commit=told.get("git_commit"),
            repository_url=told.get("repository_url"),
            training_script_path=told.get("training_script"),
            training_id=told.get("training_id"),
            artifact_dir=artifact_dir,
            dirty=bool(isinstance(git, Mapping) and git.get("dirty")),
        )

    @classmethod
    def fetch_training_code_details(
        cls, training_script_path: str | None = None, training_id: str | None = None, artifact_dir: str | None = None
    ) -> Self:
        """What this process can say of itself."""
        found = cls.of(capture.provenance(), artifact_dir)
        if training_script_path is not None:
            found.training_script_path = os.path.abspath(training_script_path)
        found.training_id = training_id or found.training_id
        return found

    def assert_path_not_dirty(self, path: str, ignore: bool) -> None:
        """Raises `InvalidInput` where the working tree has changes, unless `ignore`."""
        if self._dirty and not ignore:
            raise InvalidInput("the working tree has changes that are not committed", hint="commit them")

    def to_dict(self, **options: Any) -> dict[str, Any]:
        """The fields, less `repo`."""
        return {key: value for key, value in super().to_dict(**options).items() if key != "repo"}
