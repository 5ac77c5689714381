"""To OCI Data Science and back with the artifact that it gets in truth, an ADS one."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oci_datascience_catalog import PLACE, calm, here, login, run
from oci_datascience_server import DataScienceServer

torch = pytest.importorskip("torch")

import catalog_oci_datascience as ods  # noqa: E402
from catalog_ads import introspection  # noqa: E402
from catalog_ads.fresh import answers  # noqa: E402
from catalog_core import Catalog  # noqa: E402
from catalog_oci_datascience.options import Options  # noqa: E402

pytestmark = [pytest.mark.framework, pytest.mark.server, pytest.mark.timeout(300)]
running = pytest.fixture(scope="module")(run)
server = pytest.fixture(calm)
options = pytest.fixture(login)
environment = pytest.fixture(here)


class Generator(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(3, 8)

    def forward(self, latent: Any, energy: Any) -> Any:
        return self.net(torch.cat([latent, energy], 1)).reshape(-1, 2, 2, 2)


def test_a_network_goes_to_oci_and_comes_back(
    server: DataScienceServer, environment: Catalog, options: Options, tmp_path: Path
) -> None:
    example = {"latent": np.ones((2, 2), "f4"), "energy": np.full((2, 1), 50, "f4")}
    with Catalog.open(tmp_path / "from") as one, Catalog.open(tmp_path / "to") as two:
        version = one.save(
            "calo/gan", Generator(), example=example, entry_points={"generate": "model"},
            tensors={"energy": {"unit": "GeV", "minimum": 10, "maximum": 500}},
            taxonomy={"use_case": "fast_simulation"}, metrics={"fid": 0.5}, params={"lr": 0.1}, tags={"team": "x"},
            custom={"depth": {"value": 4, "category": "Training Profile"}},
        )  # fmt: skip
        done = ods.publish(version, options=options, **PLACE)
        model = server.catalog.models[done.ocid]
        defined = {item["key"]: item["value"] for item in model["definedMetadataList"]}
        assert (defined["Framework"], defined["Algorithm"], defined["UseCaseType"]) == ("pytorch", "Generator", "other")
        assert "in GeV" in json.loads(model["inputSchema"])["schema"][1]["description"]
        with zipfile.ZipFile(io.BytesIO(server.catalog.artifacts[done.ocid][1])) as archive:
            archive.extractall(tmp_path / "deployed")
        failed = [c.id for c in introspection.introspect(tmp_path / "deployed") if c.result == "failed"]
        assert failed == []
        ((answer,), _) = answers(tmp_path / "deployed", [{"inputs": {k: v.tolist() for k, v in example.items()}}])
        pulled = ods.pull(two, done.ocid, options=options)
        assert pulled.ref == "calo/gan@1" and pulled.manifest.components == version.manifest.components
        assert pulled.manifest.entry_points == version.manifest.entry_points
        assert (pulled.manifest.custom, pulled.taxonomy) == (version.manifest.custom, version.taxonomy)
        assert (pulled.metrics, pulled.params, pulled.tags["team"]) == ({"fid": 0.5}, version.params, "x")
        with two.session(pulled) as session:
            np.testing.assert_allclose(
                session.run("generate", example)["output"], answer["prediction"]["output"], rtol=1e-5
            )
