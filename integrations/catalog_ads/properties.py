"""`ModelProperties`: what scripts tell a model once, and leave out of `prepare` and `save` then."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Self

import attrs

from catalog_ads.plain import Plain

FROM_ENV = {
    "project_id": ("PROJECT_OCID",),
    "training_resource_id": ("JOB_RUN_OCID", "NB_SESSION_OCID"),
    "compartment_id": ("JOB_RUN_COMPARTMENT_OCID", "NB_SESSION_COMPARTMENT_OCID"),
}
_NUMBERS = {
    "deployment_instance_count": (int,),
    "deployment_bandwidth_mbps": (int,),
    "deployment_memory_in_gbs": (int, float),
    "deployment_ocpus": (int, float),
    "remove_existing_artifact": (bool,),
    "overwrite_existing_artifact": (bool,),
}


def _checked(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> Any:
    kinds = _NUMBERS.get(attribute.name, (str,))
    if value is not None and type(value) not in kinds and not (kinds == (str,) and isinstance(value, str)):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"Field `{attribute.name}` was expected to be of type {wanted}, not {type(value).__name__}.")
    return value


@attrs.define(repr=False, str=False, on_setattr=_checked)
class ModelProperties(Plain):
    """Of these, the conda environments, Python versions, script and training id say something here; those of a
    deployment and of OCI are kept, and of no effect."""

    inference_conda_env: str | None = None
    inference_python_version: str | None = None
    training_conda_env: str | None = None
    training_python_version: str | None = None
    training_resource_id: str | None = None
    training_script_path: str | None = None
    training_id: str | None = None
    compartment_id: str | None = None
    project_id: str | None = None
    bucket_uri: str | None = None
    remove_existing_artifact: bool | None = None
    overwrite_existing_artifact: bool | None = None
    deployment_instance_shape: str | None = None
    deployment_instance_subnet_id: str | None = None
    deployment_instance_private_endpoint_id: str | None = None
    deployment_instance_count: int | None = None
    deployment_bandwidth_mbps: int | None = None
    deployment_log_group_id: str | None = None
    deployment_access_log_id: str | None = None
    deployment_predict_log_id: str | None = None
    deployment_memory_in_gbs: float | None = None
    deployment_ocpus: float | None = None
    deployment_image: str | None = None

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(type(self)):
            _checked(self, field, getattr(self, field.name))

    def with_prop(self, name: str, value: Any) -> Self:
        """Set a property; one that ADS does not know is ignored. Raises `TypeError` for a value of another type."""
        if name in attrs.fields_dict(type(self)):
            setattr(self, name, value)
        return self

    def with_dict(self, obj_dict: Mapping[str, Any] | None) -> Self:
        """Set several; texts are read as numbers where these are wanted."""
        for key, value in (obj_dict or {}).items():
            told = value
            if key in _NUMBERS and isinstance(value, str):
                try:
                    told = json.loads(value)
                except ValueError:
                    told = value
            self.with_prop(key, told)
        return self

    def with_env(self) -> Self:
        """Set those that environment variables of their names hold, and those of OCI's notebooks and jobs."""
        self.with_dict({key.lower(): value for key, value in sorted(os.environ.items())})
        for name, variables in FROM_ENV.items():
            found = next((os.environ[key] for key in variables if os.environ.get(key)), None)
            if found is not None:
                setattr(self, name, found)
        return self

    with_config = with_dict

    @classmethod
    def from_dict(cls, obj_dict: Mapping[str, Any], **options: Any) -> Self:
        """Properties from a dictionary."""
        return cls().with_dict(obj_dict)

    @classmethod
    def from_config(cls, uri: str, profile: str, auth: Any = None) -> Self:
        """Properties from a section of an INI file."""
        import configparser

        parser = configparser.ConfigParser(interpolation=None)
        parser.read(os.path.expanduser(uri), encoding="utf-8")
        return cls().with_dict(dict(parser[profile]) if parser.has_section(profile) else {})

    def to_config(self, uri: str, profile: str, force_overwrite: bool = False, auth: Any = None) -> None:
        """Write them as a section of an INI file. Raises `FileExistsError` unless `force_overwrite`."""
        import configparser

        path = os.path.expanduser(uri)
        if os.path.exists(path) and not force_overwrite:
            raise FileExistsError(f"{uri} exists already. Set `force_overwrite` to True.")
        parser = configparser.ConfigParser(interpolation=None)
        parser[profile] = {key: str(value) for key, value in self.to_dict().items() if value is not None}
        with open(path, "w", encoding="utf-8") as file:
            parser.write(file)
