"""`catalog demo`: train a small network on real images, put it in a catalog, find it, check it, use it again."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from catalog_core.catalog import Catalog
from catalog_core.errors import CatalogError, MissingPlugin
from catalog_core.show import size, text

NAME = "demo/digits"
SECONDS = 30.0
REPLAY = """
import json, sys
import torch
from catalog_core import Catalog
from catalog_demo.demo import held_out
with Catalog.open(sys.argv[1], create=False) as catalog:
    network = catalog.load(sys.argv[2])
images, labels = held_out()
torch.set_num_threads(1)
with torch.no_grad():
    logits = network(images)
accuracy = (logits.argmax(1) == labels).float().mean().item()
print(json.dumps({"logits": logits.numpy().tobytes().hex(), "accuracy": accuracy}))
"""
Say = Callable[[str], None]
Bar = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]


@contextmanager
def _no_bar(what: str, total: float) -> Iterator[Callable[[float], None]]:
    yield lambda done: None


def _images() -> tuple[Any, Any]:
    """1,797 grey images of handwritten digits, float32 (n, 1, 8, 8) in 0…1, and their labels, int64 (n,)."""
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(digits.target, dtype=torch.int64)


def held_out() -> tuple[Any, Any]:
    """The 360 images (and labels) that training never sees: every fifth."""
    images, labels = _images()
    return images[::5].contiguous(), labels[::5].contiguous()


def network() -> Any:
    """The network: three convolutions and a linear layer, 10 logits; 1,333,642 parameters."""
    from torch import nn

    class Digits(nn.Module):
        """Images (n, 1, 8, 8), float32 → logits (n, 10)."""

        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(256, 512, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            )  # fmt: skip
            self.head = nn.Linear(512, 10)

        def forward(self, images: Any) -> Any:
            return self.head(self.features(images))

    return Digits()


def train(model: Any, seconds: float, seed: int, bar: Bar = _no_bar) -> tuple[int, float]:
    """Train for `seconds`; return the number of steps and the accuracy on the held-out images."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    images, labels = _images()
    keep = torch.arange(len(images)) % 5 != 0
    images, labels = images[keep], labels[keep]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    begin, steps = time.monotonic(), 0
    with bar("training", seconds) as tick:
        while steps < 20 or time.monotonic() < begin + seconds:
            batch = torch.randint(len(images), (64,), generator=generator)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            steps += 1
            tick(time.monotonic() - begin)
    return steps, evaluate(model)[1]


def evaluate(model: Any) -> tuple[Any, float]:
    """Logits of the held-out images, and the accuracy."""
    import torch

    images, labels = held_out()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        torch.set_num_threads(threads)
    return logits, (logits.argmax(1) == labels).float().mean().item()


def run(
    folder: Path, seconds: float = SECONDS, say: Say = print, bar: Bar = _no_bar, catalog: str | None = None
) -> dict[str, Any]:
    """Run the whole demo in `folder`, or in the catalog of that name or URL; return its figures. Raises `CatalogError`
    when a step gives the wrong answer."""
    for module, extra in (("torch", "demo"), ("sklearn", "demo")):
        if importlib.util.find_spec(module) is None:
            raise MissingPlugin(f"the demo needs {module}", hint=f"pip install 'catalog-core[{extra}]'")
    import torch

    torch.manual_seed(7)
    place = folder.resolve() / "catalog"
    target = catalog or str(place)
    shown = catalog or os.path.join(".", os.path.relpath(place))  # a path with a dot in front is a folder, not a name
    return _steps(target, shown, seconds, say, bar)


def _steps(target: str, shown: str, seconds: float, say: Say, bar: Bar) -> dict[str, Any]:
    with Catalog.open(target) as catalog:
        say(f"1. A catalog in {shown}" if os.path.isabs(target) else f"1. The catalog {target}: {catalog.url}")
        model = network()
        say(f"2. Training on 1,437 real images for {seconds:.0f} s …")
        steps, accuracy = train(model, seconds, seed=1, bar=bar)
        say(f"   {steps:,} steps, accuracy on 360 held-out images {accuracy:.1%}")
        example = {"images": held_out()[0][:4]}
        with catalog.prepare(
            NAME,
            model,
            example=example,
            tags={"team": "demo", "data": "sklearn digits"},
            metrics={"accuracy": accuracy, "steps": steps},
            taxonomy={"task": "image classification"},
            description="Handwritten digits, 8 by 8 pixels, recognised by a small convolutional network",
        ) as draft:
            report = draft.verify()
            say("3. Verified in a fresh process, without this code on its path:")
            for check in report.checks:
                say(f"   {check.result:8} {check.id}{'  ' + check.cause if check.cause else ''}")
            first = draft.save(alias="champion")
        logits, _ = evaluate(model)
        say(f"4. Saved as {first.ref}, alias champion: {size(first.size)}, {size(first.summary['new_bytes'])} new")
        before, after = _fine_tune(catalog, model, seconds / 6, bar)
        say(
            f"5. Fine-tuned with the convolutions frozen, saved as {after.ref}: {size(after.size)}, of which only "
            f"{size(after.summary['new_bytes'])} were new ({after.summary['new_bytes'] / after.size:.0%})"
        )
        query = 'metrics.accuracy > 0.5 and tags.team = demo and text ~ "handwritten"'
        found = catalog.search(query)
        say(f"6. Search: {query} → {', '.join(v.ref for v in found)}")
        comparison = catalog.compare(before, after)
        say(f"7. Compared tensor by tensor: {comparison.same} equal")
        for difference in comparison.differences:
            if difference.kind in ("tensor", "metric"):
                norm = f"  relative change {text(difference.norm)}" if difference.norm is not None else ""
                change = f"{text(difference.before)} → {text(difference.after)}"
                say(f"   {difference.change:8} {difference.name}  {change}{norm}")
        replayed = replay(target, f"{NAME}@champion")
        apart = farthest(logits, replayed["logits"])
        say(
            f"8. A fresh process loaded {NAME}@champion and computed the same logits (farthest apart: {apart:.1g}): "
            f"accuracy {replayed['accuracy']:.1%}"
        )
        new_bytes = after.summary["new_bytes"]
    say("\nLook into it:")
    program = "catalog" if shutil.which("catalog") else os.path.relpath(Path(sys.executable).with_name("catalog"))
    for command in (
        "list",
        f"show {NAME}@champion",
        f"compare {NAME}@1 {NAME}@2",
        f"history {NAME}",
        "search 'metrics.accuracy > 0.9'",
        "fsck",
    ):
        say(f"  {program} --catalog {shown} {command}")
    return {
        "versions": [first.ref, after.ref],
        "accuracy": replayed["accuracy"],
        "new_bytes": new_bytes,
    }


def _fine_tune(catalog: Catalog, model: Any, seconds: float, bar: Bar) -> tuple[Any, Any]:
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    steps, accuracy = train(model, seconds, seed=2, bar=bar)
    before = catalog.version(f"{NAME}@champion")
    after = catalog.save(
        NAME,
        model,
        example={"images": held_out()[0][:4]},
        tags={"team": "demo", "data": "sklearn digits"},
        metrics={"accuracy": accuracy, "steps": steps},
        parents=[before.ref],
        description="Handwritten digits: fine-tuned with the first layers frozen",
    )
    return before, after


def farthest(logits: Any, stored: str) -> float:
    """The largest difference between `logits` (n, 10), float32, and those that a fresh process computed, as `replay`
    gives them. A stored graph may run by other kernels than the live network, so the last bits may differ; more than
    torch's tolerance for float32 is a `CatalogError`."""
    import torch

    again = torch.frombuffer(bytearray.fromhex(stored), dtype=logits.dtype).reshape(logits.shape)
    apart = float((again - logits).abs().max())
    if not torch.allclose(again, logits, rtol=1.3e-6, atol=1e-5):
        raise CatalogError(
            f"a fresh process computed other logits from the stored weights than this one: up to {apart:.3g} apart"
        )
    return apart


def replay(target: str | Path, ref: str) -> dict[str, Any]:
    """Load `ref` in a fresh process and run it on the held-out images: logits (hexadecimal) and accuracy."""
    done = subprocess.run(
        [sys.executable, "-c", REPLAY, str(target), ref], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise CatalogError(
            f"the fresh process failed: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}"
        )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
