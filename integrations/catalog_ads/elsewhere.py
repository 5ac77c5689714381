"""What ADS has and a catalog has not: each says so, and what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from catalog_core.errors import InvalidInput, MissingPlugin

# names that scripts import from ADS → what to do instead
NAMES = {
    "AutoMLModel": "GenericModel(serialize=False) takes the folder with a score.py",
    "DataScienceModel": "Catalog.version(reference); catalog_oci_datascience publishes to OCI, and pulls",
    "EmbeddingONNXModel": "GenericModel takes the ONNX graph, or the path of one",
    "HuggingFacePipelineModel": "`catalog import` reads the folder that save_pretrained wrote",
    "ModelDeployment": "it follows with the deployers; `catalog export --format ads` writes what OCI deploys",
    "ModelInputSerializer": "requests are JSON, as payloads of ADS",
    "ModelState": "Catalog.version(reference) says whether a model is there",
    "ModelVersionSet": "save(model_version_set=NAME) adds a version to the model of that name",
    "SERDE": "the serializer is found by the model's class (docs/how-to/write-a-serializer.md)",
    "SparkPipelineModel": "GenericModel(serialize=False) takes the folder with a score.py",
    "SummaryStatus": "summary_status() is a DataFrame",
    "experiment": "save(model_version_set=NAME) adds a version to the model of that name",
}  # fmt: skip


def later(what: str, hint: str) -> Callable[..., Any]:
    """A method that raises `MissingPlugin`."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise MissingPlugin(what, hint=hint)

    refuse.__doc__ = f"Not yet: raises `MissingPlugin`, since {what}."
    return refuse


def never(what: str, hint: str) -> Callable[..., Any]:
    """A method that raises `InvalidInput`."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise InvalidInput(what, hint=hint)

    refuse.__doc__ = f"Not here: raises `InvalidInput`, since {what}."
    return refuse
