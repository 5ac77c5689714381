"""Which test proves what of which serializer, as a table; and the cells that are the same for several of them.

`fresh`: loaded, and run where it can be run, in another process that has none of the code that made it. `resume`: in
another process, the next losses are equal to those of a training that was not interrupted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_core import plugins

HERE = Path(__file__).parent
SCRIPT = HERE / "resume_script.py"
CONTRACT = "test_contract"  # save and load, bit by bit: `catalog_core.testing.contract.SerializerContract`
RESUME = "test_matrix::test_training_goes_on_in_another_process_as_if_it_had_not_stopped"
TABLE = {
    # serializer: (save and load, fresh, resume)
    "safetensors": (CONTRACT, RESUME, RESUME),
    "pytree": ("test_pytree", RESUME, RESUME),
    "torch": (
        "test_contract_torch",
        "test_torch_gan::test_its_networks_run_where_nobody_has_their_classes",
        "test_torch_gan::test_a_gan_trains_on_in_another_process_as_if_it_had_not_stopped",
    ),
    "aoti": (
        "test_torch_compiled::test_it_runs_as_a_session_and_is_machine_code_for_verify_and_for_trust",
        "test_torch_compiled::test_in_a_fresh_process_without_the_class_it_gives_what_the_graph_gives",
        None,
    ),
    "savedmodel": (
        "test_contract_savedmodel",
        "test_savedmodel_models::test_a_model_is_prepared_verified_saved_and_loaded_without_code",
        "test_savedmodel_models::test_a_loaded_model_can_be_trained_on",  # without its optimizer: `keras` keeps that
    ),
    "keras": (
        "test_contract_keras",
        "test_keras_edges::test_it_gives_the_same_in_a_fresh_process_and_after_loading",
        "test_keras::test_a_gan_trains_on_in_another_process_as_if_it_had_not_stopped",
    ),
    "onnx": ("test_onnx", "test_onnx::test_a_file_with_external_data_is_saved_described_verified_and_run", None),
    "sklearn": ("test_contract_sklearn", "test_sklearn::test_a_pipeline_is_captured_verified_and_run", RESUME),
    "xgboost": (
        "test_contract_sklearn",
        "test_sklearn::test_boosters_in_a_pipeline_and_alone_run_in_a_fresh_process",
        RESUME,
    ),
    "lightgbm": (
        "test_contract_sklearn",
        "test_sklearn::test_boosters_in_a_pipeline_and_alone_run_in_a_fresh_process",
        RESUME,
    ),
    "generic": (
        "test_generic::test_with_trust_it_runs",
        "test_generic::test_verify_skips_it_or_runs_it_in_a_fresh_process",
        None,
    ),
}
NOT_TRAINED = {"aoti", "onnx", "generic"}  # machine code, a graph, and code of which nothing is known


def test_every_serializer_is_in_the_table_and_every_test_of_it_exists() -> None:
    ours = {path.name for path in HERE.parents[1].joinpath("serializers").iterdir()}
    specs = plugins.registry().serializers
    known = {name for name, spec in specs.items() if spec.factory.partition(".")[0] in ours}
    assert known <= TABLE.keys(), f"no line for {', '.join(known - TABLE.keys())}"
    for serializer, cells in TABLE.items():
        assert (cells[2] is None) == (serializer in NOT_TRAINED)
        for cell in filter(None, cells):
            file, _, test = cell.partition("::")
            text = (HERE / f"{file}.py").read_text()
            assert re.search(rf"^def {test}\(", text, re.M) if test else "(SerializerContract)" in text, cell


@pytest.mark.framework
@pytest.mark.parametrize("kind", ["safetensors", "pytree", "sklearn", "network", "xgboost", "lightgbm"])
def test_training_goes_on_in_another_process_as_if_it_had_not_stopped(kind: str, tmp_path: Path) -> None:
    for module in {"pytree": ("jax", "optax"), "safetensors": (), "network": ("sklearn",)}.get(kind, (kind,)):
        pytest.importorskip(module)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    told = []
    for what in ("first", "resume"):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), what, kind, f"sqlite://{tmp_path}/catalog"],
            capture_output=True, text=True, timeout=300, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        told.append(json.loads(done.stdout.strip().splitlines()[-1]))
    assert told[0] == told[1] and len(set(told[0])) == 3
