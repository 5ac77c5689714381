"""Beside another registry, in the same run: only where it is installed (`tox -e bench-peers`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from weights import interleaved, ratio, record

from catalog_core import Catalog

COUNT = 50


def test_peers_publish_and_find(benchmark, catalog: Catalog, tmp_path: Path) -> None:
    """MLflow's own client on its SQLite store: a version row and a 4 KB file that is copied to the artifact folder."""
    tracking = pytest.importorskip("mlflow.tracking")
    place = f"sqlite:///{tmp_path}/mlflow.db"
    client = tracking.MlflowClient(tracking_uri=place, registry_uri=place)
    experiment = client.create_experiment("bench", artifact_location=str(tmp_path / "artifacts"))
    run = client.create_run(experiment).info.run_id
    client.create_registered_model("small")
    weights = np.arange(1000, dtype=np.float32)
    file = tmp_path / "weights.bin"

    def mlflow() -> None:
        for _ in range(COUNT):
            weights[0] += 1
            file.write_bytes(weights.tobytes())
            client.log_artifact(run, str(file))
            version = client.create_model_version("small", str(tmp_path / "artifacts"), run)
        client.set_registered_model_alias("small", "champion", version.version)

    def ours() -> None:
        for _ in range(COUNT):
            weights[0] += 1
            version = catalog.save("small", {"weights": weights})
        version.alias("champion")

    mlflow()
    ours()
    published = interleaved(3, mlflow=mlflow, catalog=ours)
    found = interleaved(
        3,
        mlflow_alias=lambda: [client.get_model_version_by_alias("small", "champion") for _ in range(COUNT)],
        catalog_alias=lambda: [catalog.version("small@champion") for _ in range(COUNT)],
        mlflow_search=lambda: [client.search_model_versions("name = 'small'", max_results=100) for _ in range(5)],
        catalog_search=lambda: [catalog.search("name = small") for _ in range(5)],
    )
    record(
        benchmark,
        {**published, **found},
        publish=ratio(published, "catalog", "mlflow"),
        alias=ratio(found, "catalog_alias", "mlflow_alias"),
        search=ratio(found, "catalog_search", "mlflow_search"),
    )
    benchmark.pedantic(lambda: None, rounds=1)
