"""The serializer of the how-to keeps the contract, and whoever breaks one promise of it is found out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/how-to/write-a-serializer.md"
SAVE = "        tensors.write(arrays_of(obj), directory, FILE)\n"
READ = "        arrays = tensors.read(reader, tensors.numpy_maker(copy), writable=False, name=FILE)\n"
MISFIT = "        if problems:\n"

# what is broken → (text of the page, what stands there instead, the test that must fail)
BROKEN = {
    "forgets": ("array.tolist() for name", "[0.0] * array.size for name", "what_was_saved_comes_back"),
    "changes": (SAVE, SAVE + "        obj.parameters['bias'].append(1.0)\n", "what_was_saved_comes_back"),
    "clock": (SAVE, SAVE + "        import time; directory.write('t', [str(time.time_ns()).encode()])\n", "twice"),
    "not_json": ("        return {}\n", "        return {'a': {1}}\n", "meta_is_json"),
    "lenient": (MISFIT, "        if False:\n", "into_refuses"),
    "half_filled": (
        MISFIT, "        live.parameters['weights'][0] = 7.0\n" + MISFIT, "into_refuses",
    ),
    "any_kind": ("if kind not in (None,", "if False and kind not in (None,", "as_numpy"),
    "describes_wrongly": ('("float64", array.shape)', '("float32", array.shape)', "describe_tells"),
    "describe_raises": (
        "        except SerializationError:\n            arrays = {}",
        "        finally:\n            pass",
        "describe_tells",
    ),
    "calls_wrongly": ('return {"y": np.array(', 'return {"z": np.array(', "inputs_signature_and_call"),
    "spoils_inputs": ('        return {"y":', '        inputs["x"][0] += 1\n        return {"y":', "inputs_signature"),
    "pickles": (
        SAVE, SAVE + "        import pickle; directory.write('p', [pickle.dumps(obj.parameters)])\n", "is_a_pickle",
    ),
    "imports": (READ, READ + "        import test_MODULE\n", "imports_no_class"),
    "heavy_hook": ("from catalog_core.specs", "import tinyframe\nfrom catalog_core.specs", "choosing_imports"),
    "trusts_lengths": (
        READ,
        "        arrays = {'weights': np.frombuffer(bytes(reader.view(FILE))[-32:-8]), 'bias': np.ones(1) / 2}\n",
        "cut_short",
    ),
    "raw_errors": (
        READ, READ + "        len(reader.meta['n'])\n", "a_meta_that_lies",
    ),
    "unchecked": (
        READ,
        "        from pathlib import Path\n"
        "        import sqlite3; place = reader._content.backend.url.partition('://')[2]\n"
        "        rows = sqlite3.connect(place + '/catalog.db').execute('SELECT data FROM small').fetchall()\n"
        "        data = next(bytes(row[0]) for row in rows if b'weights' in bytes(row[0])[:99])\n"
        "        arrays = {'bias': np.frombuffer(data[-32:-24]), 'weights': np.frombuffer(data[-24:])}\n",
        "damage_in_the_store",
    ),
}  # fmt: skip


def write(folder: Path, name: str, old: str = "", new: str = "") -> None:
    """The files of the page as a package of another name, with one text replaced."""
    blocks = re.findall(r'^```python title="(.+?)"\n(.*?)^```', PAGE.read_text(encoding="utf-8"), re.S | re.M)
    found = 0
    for file, text in blocks:
        found += text.count(old) if old else 1
        text = text.replace(old, new.replace("MODULE", name)) if old else text
        path = folder / file.replace("tiny.py", f"{name}.py").replace("catalog_tiny", f"catalog_{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("catalog_tiny", f"catalog_{name}").replace('"tiny"', f'"{name}"'))
    assert found, f"the page no longer says {old!r}"


def run(folder: Path, *options: str) -> str:
    """What pytest prints for the folder, run as a stranger would."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider", "-c", os.devnull,
         "--rootdir", str(folder), *options, str(folder)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.server
def test_the_serializer_of_the_page_keeps_the_contract(tmp_path: Path) -> None:
    write(tmp_path, "tiny")
    output = run(tmp_path)
    assert re.search(r"^\d+ passed(, 1 skipped)? in", output, re.M), output
    assert int(re.search(r"(\d+) passed", output)[1]) >= 17, output  # type: ignore[index]


@pytest.mark.server
def test_each_broken_promise_is_found_out(tmp_path: Path) -> None:
    for name, (old, new, _) in BROKEN.items():
        write(tmp_path, name, old, new)
    output = run(tmp_path, "-k", " or ".join(f"(test_{name} and {test})" for name, (_, _, test) in BROKEN.items()))
    kept = [
        name
        for name, (_, _, test) in BROKEN.items()
        if not re.search(rf"^(FAILED|ERROR) \S*test_{name}\.py.*{test}", output, re.M)
    ]
    assert kept == [], output[-3000:]
