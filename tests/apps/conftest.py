"""The command line, called in this process: a process for each call would spend half a second on its start."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from catalog_cli.main import main

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls `catalog …`; its exit code, and what it wrote. An error that it did not expect is raised."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out, err)

    return call
