"""The serializer of the how-to keeps the contract, and whoever breaks one promise of it is found out.

Its runtime, and the command of the other page, run as plug-ins that are installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs/how-to/write-a-serializer.md"
COMMAND = PAGE.with_name("write-a-command.md")
SAVE = "        shared = tensors.write(arrays_of(obj), directory, FILE)\n"
READ = "        arrays = tensors.read(reader, tensors.numpy_maker(copy), writable=False, name=FILE)\n"
MISFIT = "        if problems:\n"

# What a serializer changes of the live object the catalog puts back: tests/core/test_examples.py, test_torch_axes.py.
# what is broken → (text of the page, what stands there instead, the test that must fail)
BROKEN = {
    "forgets": ("array.tolist() for name", "[0.0] * array.size for name", "what_was_saved_comes_back"),
    "clock": (SAVE, SAVE + "        import time; directory.write('t', [str(time.time_ns()).encode()])\n", "twice"),
    "not_json": ("return {\"unit\": obj.unit,", "return {'a': {1},", "meta_is_json"),
    "lenient": (MISFIT, "        if False:\n", "into_refuses"),
    "half_filled": (
        MISFIT, "        live.parameters['weights'][0] = 7.0\n" + MISFIT, "into_refuses",
    ),
    "any_kind": ("if kind not in (None,", "if False and kind not in (None,", "as_numpy"),
    "describes_wrongly": ('("float64", array.shape)', '("float32", array.shape)', "describe_tells"),
    "describe_raises": (
        "        except SerializationError:\n            arrays, settings = {}, {}",
        "        finally:\n            pass",
        "describe_tells",
    ),
    "calls_wrongly": ('return {"y": np.array(', 'return {"z": np.array(', "inputs_signature_and_call"),
    "asks_for_forward": (', default_method="predict"', "", "an_example_alone"),
    "runs_anything": (
        "            raise SerializationError(f\"a Regression has no method {method!r}\")",
        "            pass",
        "inputs_signature",
    ),
    "believes_meta": ("if not isinstance(unit, str)", "if unit[0] == 7", "a_meta_that_lies"),
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
        "        import sqlite3; place = reader.repository.content.backend.url.partition('://')[2]\n"
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


def install(folder: Path, *modules: str) -> None:
    """What an installer leaves beside the modules of a package whose plug-in is the first of them."""
    about = folder / f"{modules[0]}-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {modules[0]}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[catalog_core.plugins]\nmine = {modules[0]}\n")
    (about / "top_level.txt").write_text("\n".join(modules))


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
    assert int(re.search(r"(\d+) passed", output)[1]) >= 18, output  # type: ignore[index]


@pytest.mark.server
def test_the_classes_may_be_in_the_package_of_the_plug_in(tmp_path: Path) -> None:
    write(tmp_path, "own")
    package = tmp_path / "catalog_own"
    (tmp_path / "tinyframe.py").rename(package / "tinyframe.py")
    for path in [*package.glob("*.py"), tmp_path / "test_own.py"]:
        text = path.read_text().replace("import tinyframe", "from catalog_own import tinyframe")
        path.write_text(text.replace('("tinyframe",)', '("catalog_own",)'))
    output = run(tmp_path)
    assert re.search(r"^\d+ passed(, 1 skipped)? in", output, re.M), output


@pytest.mark.server
def test_the_runtime_of_the_page_verifies_and_runs(tmp_path: Path) -> None:
    write(tmp_path, "tiny")
    install(tmp_path / "site", "catalog_tiny", "tinyframe")
    for path in (tmp_path / "tinyframe.py", tmp_path / "catalog_tiny"):
        path.rename(tmp_path / "site" / path.name)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    environment |= {"CATALOG_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "use.py")], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    shown = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert shown == [done.stdout], done.stderr


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


def shell_for(tmp_path: Path, page: str, package: str) -> Callable[[str], str]:
    """The files of a page, its package installed; and a shell that finds them."""
    for file, text in re.findall(r'^```(?:python|sh) title="(.+?)"\n(.*?)^```', page, re.S | re.M):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    install(tmp_path, package)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CATALOG")}
    environment |= {
        "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1", "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip

    def shell(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        return (done.stdout + done.stderr).replace(str(tmp_path), "/home/ada/work")

    return shell


def shown_and_printed(page: str, shell: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """What the page says that its commands print, and what they print."""
    (shown,) = re.findall(r"^```console\n(.*?)^```", page, re.S | re.M)
    examples = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", shown, re.M)
    assert examples
    return [output.rstrip() for _, output in examples], [shell(command).rstrip() for command, _ in examples]


@pytest.mark.server
def test_the_command_of_the_page_looks_where_it_is_told_and_prints_what_the_page_shows(tmp_path: Path) -> None:
    page = COMMAND.read_text(encoding="utf-8")
    shell = shell_for(tmp_path, page, "catalog_stale")
    assert "Traceback" not in shell("bash prepare.sh")
    shown, printed = shown_and_printed(page, shell)
    assert printed == shown and len(shown) >= 4
    assert "How many days." in shell("catalog stale --help")
    assert "List versions that nobody changed for a while." in shell("catalog --help")


@pytest.mark.server
def test_the_check_of_the_page_refuses_and_passes_as_the_page_shows(tmp_path: Path) -> None:
    page = COMMAND.with_name("write-a-check.md").read_text(encoding="utf-8")
    shown, printed = shown_and_printed(page, shell_for(tmp_path, page, "catalog_house"))
    assert printed == shown
