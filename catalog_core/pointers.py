"""Small files that stand for large ones, which are elsewhere: of Git LFS, git-annex and DVC."""

from __future__ import annotations

from pathlib import Path

MAX_POINTER = 4096  # bytes; Git LFS reads no longer one
_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = b"/annex/objects/"


def pointer(path: Path, name: str | None = None) -> tuple[str, str] | None:
    """What the file stands for something as, and what fetches the content; None for a file that is what it seems.
    `name` is what the file is called, where `path` is content under another name."""
    with path.open("rb") as file:
        head = file.read(MAX_POINTER + 1)
    if len(head) > MAX_POINTER:
        return None
    if head.startswith(_LFS):
        return "a pointer of Git LFS: the content was not fetched", "`git lfs pull` fetches it"
    if head.startswith(_ANNEX) and b"\0" not in head:
        return "a pointer of git-annex: the content was not fetched", "`git annex get` fetches it"
    if (name or path.name).endswith(".dvc") and any(line.startswith(b"outs:") for line in head.splitlines()):
        return "a pointer of DVC: it names the content, and does not hold it", "`dvc pull` fetches it; give that"
    return None
