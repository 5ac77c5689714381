"""Metadata go to the names of ADS and of the OCI SDK and come back, within the limits of OCI."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_ads import words
from catalog_core.errors import InvalidInput
from catalog_core.testing.memory import memory_catalog
from catalog_oracle import taxonomy
from catalog_oracle.taxonomy import Facts, Item, check, from_items, to_items

FACTS = Facts(
    {
        "use_case": "fast_simulation",
        "framework": "torch",
        "framework_version": "2.6",
        "algorithm": "GAN",
        "license": "Apache-2.0",
        "domain": "calorimetry",
    },
    {"latent": 200, "rate": 1e-4},
    {"fid": 0.125},
    {"score_py": {"success": True}},
    (Item("TrainingDataset", "root://eos/showers.h5", "1 M of them", "Training and Validation Datasets"),),
)


@pytest.mark.parametrize("style", ["ads", "oci"])
def test_facts_come_back_by_either_names(style: Any) -> None:
    defined, custom = to_items(FACTS, style)
    assert from_items(defined, custom) == FACTS
    keys = {item.key: item.value for item in defined}
    names = {
        "ads": ("UseCaseType", "Framework", "FrameworkVersion", "Algorithm", "Hyperparameters", "ArtifactTestResults"),
        "oci": (
            "useCaseType",
            "libraryName",
            "libraryVersion",
            "estimatorClass",
            "hyperParameters",
            "testArtifactresults",
        ),
    }[style]
    assert set(names) <= set(keys)
    assert (keys[names[0]], keys[names[1]]) == ("other", "pytorch")
    assert all(item.category in taxonomy.CATEGORIES for item in custom)
    assert from_items(reversed(defined), reversed(custom)).taxonomy == FACTS.taxonomy  # ADS keeps them in sets


@given(
    st.dictionaries(st.sampled_from(["use_case", "framework", "algorithm", "readme", "task"]), st.text(min_size=1)),
    st.dictionaries(st.text(max_size=20), st.integers() | st.text(max_size=20) | st.booleans()),
    st.sampled_from(["ads", "oci"]),
)
def test_any_facts_come_back(told: dict[str, str], params: dict[str, Any], style: Any) -> None:
    told = {key: value for key, value in told.items() if value not in ("None", "NA", "null", "pytorch", "scikit-learn")}
    facts = Facts(told, params)
    assert from_items(*to_items(facts, style)) == facts


def test_every_word_of_ads_has_its_place() -> None:
    known = {value for key, value in vars(words.UseCaseType).items() if not key.startswith("_")}
    assert known == {*taxonomy.USE_CASES, *taxonomy.MORE_USE_CASES}
    for name in taxonomy.USE_CASES:
        assert to_items(Facts({"use_case": name}))[1] == []
    for name in taxonomy.MORE_USE_CASES:
        assert to_items(Facts({"use_case": name}))[0] == [Item("UseCaseType", "other")]
    for framework in taxonomy.FRAMEWORKS:
        assert taxonomy.framework_of(taxonomy.framework_of(framework, back=True)) == framework
    assert [taxonomy.framework_of(n) for n in ("torch", "sklearn", "jax", "onnx")] == [
        "pytorch", "scikit-learn", "other", "other"
    ]  # fmt: skip
    keys = {value for key, value in vars(words.MetadataTaxonomyKeys).items() if not key.startswith("_")}
    assert keys <= {ads for ads, _ in taxonomy.KEYS.values()}


def test_what_ads_writes_for_nothing_is_nothing() -> None:
    written = [Item("Algorithm", "None"), Item("Framework", ""), Item("Hyperparameters", "{broken"), Item("New", "x")]
    facts = from_items(written, [Item("empty", "NA", "", "Other"), Item("auc", "0.9", "", "Performance")])
    assert facts.taxonomy == {} and facts.metrics == {"auc": 0.9}
    assert [item.key for item in facts.custom] == ["Hyperparameters", "New"]
    assert to_items(Facts(custom=(Item("k", ""),)))[1] == [Item("k", "NA", "", "Other")]


def test_the_limits_of_oci_hold_before_any_network() -> None:
    check([Item("k", "x" * 15_900)])
    for items, match in [
        ([Item("k", "x" * 16_001)], "16,001 characters; OCI takes 16,000"),
        ([Item("k", "x", "y" * 256)], "description of 'k' is longer than 255"),
        ([Item("k" * 256, "x")], "256 characters"),
        ([Item("", "x")], "0 characters"),
        ([Item("k", "x"), Item("k", "y")], "comes twice"),
        ([Item("k", "x", "", "Speed")], "category 'Speed'"),
        ([Item("a", "x" * 9000), Item("b", "y" * 9000)], "OCI takes 32,000"),
    ]:
        with pytest.raises(InvalidInput, match=match):
            check(items)
    with pytest.raises(InvalidInput, match="Hyperparameters"):
        to_items(Facts(hyperparameters={"table": list(range(5000))}))
    size = len(json.dumps([{"key": "k", "value": "ü" * 15_000}], ensure_ascii=False).encode("utf-16"))
    assert size < 32_000
    check([Item("k", "ü" * 15_900)])  # as UTF-16, like ADS counts


def test_provenance_both_ways() -> None:
    ours = {
        "git": {"url": "https://g/r", "branch": "main", "commit": "abc", "dirty": True},
        "script": "train.py",
        "run": "7",
    }
    fields = taxonomy.provenance_to_oci(ours)
    assert fields == {
        "repository_url": "https://g/r", "git_branch": "main", "git_commit": "abc", "training_script": "train.py",
        "training_id": "7",
    }  # fmt: skip
    assert taxonomy.provenance_from_oci(fields) == {
        "git": {"url": "https://g/r", "branch": "main", "commit": "abc"}, "script": "train.py", "run": "7"
    }  # fmt: skip
    detached = {"git": {"commit": "abc", "branch": None}}
    assert taxonomy.provenance_to_oci(detached) == {"git_commit": "abc"}
    assert taxonomy.provenance_to_oci({"git": None}) == {}


def test_a_version_tells_its_facts() -> None:
    with memory_catalog() as catalog:
        version = catalog.save(
            "m", {"w": np.ones(2)}, tags={"team": "cms"}, metrics={"auc": 0.5}, params={"depth": 3},
            taxonomy={"use_case": "trigger"},
        )  # fmt: skip
        rows = [{"key": "team", "value": "cms", "description": "who", "category": "Training Profile"}]
        version = version.attach(taxonomy.ATTACHMENT, json.dumps({"data": rows}).encode())
        facts = taxonomy.facts_of(version)
    assert facts.taxonomy["use_case"] == "trigger" and facts.taxonomy["framework"] == "numpy"
    assert (facts.hyperparameters, facts.metrics) == ({"depth": 3}, {"auc": 0.5})
    assert facts.custom == (Item("team", "cms", "who", "Training Profile"),)
    defined, custom = to_items(facts, "oci")
    assert Item("libraryName", "other") in defined and Item("auc", "0.5", "", "Performance") in custom


def test_it_imports_nothing_heavy() -> None:
    heavy = ["numpy", "torch", "yaml", "oci", "catalog_ads.models", "catalog_core.draft"]
    code = f"import sys, catalog_oracle.taxonomy; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
