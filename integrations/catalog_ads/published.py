"""What can be done with a published model of ADS's classes, and what cannot be yet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from catalog_ads.elsewhere import later
from catalog_ads.payload import place_of, slug
from catalog_core.errors import InvalidInput

if TYPE_CHECKING:
    from catalog_ads.folder import ArtifactFolder
    from catalog_core import Catalog
    from catalog_core.handles import Version


class Published:
    """`update`, `delete`, `download_artifact`, `upload_artifact`; deployments say that they follow."""

    _artifact: ArtifactFolder
    _name: str | None
    model_id: str | None

    if TYPE_CHECKING:

        @property
        def catalog(self) -> Catalog:
            """The catalog."""

        def _version(self) -> Version: ...

        def _download(self, version: Version, folder: Path, overwrite: bool) -> None: ...

    deploy = later(
        "deploying follows with the deployers; no plug-in does it yet",
        "`catalog export REF model.zip --format ads` makes an artifact that OCI Model Deployment takes",
    )
    prepare_save_deploy = update_deployment = restart_deployment = delete_deployment = deploy
    from_model_deployment = later("deployments follow with the deployers", "from_model_catalog(reference)")
    evaluate = later(
        "reports of evaluations follow; no plug-in makes them yet",
        'metadata_custom.add(NAME, number, category="Performance") keeps a metric, which can be searched',
    )
    model_deployment: Any = None  # there is none yet
    model_deployment_id: str | None = None

    def update(self, **about: Any) -> Self:
        """Change `display_name`, `description`, `freeform_tags`. Raises `InvalidInput` for what cannot change."""
        unknown = sorted(set(about) - {"display_name", "description", "freeform_tags"})
        if unknown:
            raise InvalidInput(f"{unknown[0]!r} cannot be changed", hint="display_name, description, freeform_tags")
        version = self._version()
        told = {"title": about.get("display_name"), "description": about.get("description")}
        if any(told.values()):
            self.catalog.model(version.model).update(**{key: value for key, value in told.items() if value})
        if about.get("freeform_tags"):
            version.tag(**about["freeform_tags"])
        return self

    def delete(
        self, model_id: str | None = None, delete_associated_model_deployment: bool = False,
        delete_model_artifact: bool = False, artifact_dir: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Hide the version in the catalog; `catalog restore` brings it back."""
        if model_id is not None:
            self.model_id = model_id
        self._version().delete()

    def download_artifact(
        self, artifact_dir: str | os.PathLike[str] | None = None, auth: Any = None, force_overwrite: bool = False,
        bucket_uri: str | None = None, remove_existing_artifact: bool = True, **options: Any,
    ) -> Self:  # fmt: skip
        """Write the artifact of the saved version. Raises `InvalidInput` where other files are in the way."""
        target = self._artifact.path if artifact_dir is None else place_of(artifact_dir)
        self._download(self._version(), target, force_overwrite)
        return self

    def upload_artifact(
        self, uri: str, auth: Any = None, force_overwrite: bool = False, parallel_process_count: int | None = None,
        **options: Any,
    ) -> Path:  # fmt: skip
        """Write the zip file of the artifact to a local path. Raises `InvalidInput` for a file that exists."""
        if "://" in uri:
            raise InvalidInput(f"{uri} is no local path", hint="write it here, and copy it")
        target = Path(uri).expanduser()
        if target.is_dir():
            target /= f"{slug(self._name or 'model').replace('/', '-')}.zip"
        self._artifact.pack(target, force_overwrite)
        return target
