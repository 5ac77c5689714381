"""A bound for the memory of graphs whose sizes are known only when they run: a few bytes of input may ask for all there
is. onnxruntime gives such sessions one arena that they share, which refuses what is beyond its bound."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import onnx

from catalog_onnx.operators import SIZED
from catalog_onnx.review import constants, messages

PART = 0.5  # of the machine's memory; what a graph returns is copied besides
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_RANGE = {"Range": (0, 1, 2)}
_lock = threading.Lock()
_made = False


def grows(proto: Any) -> bool:
    """Whether a graph computes how large one of its tensors is, or collects one in a loop."""
    bodies = [part for part in messages(proto) if isinstance(part, (onnx.GraphProto, onnx.FunctionProto))]
    known = {name for body in bodies for name in constants(body)} | set(constants(proto.graph, top=True))
    return any(node.op_type == "Loop" for body in bodies for node in body.node) or any(
        at < len(node.input) and node.input[at] and node.input[at] not in known
        for body in bodies
        for node in body.node
        for at in {**SIZED, **_RANGE}.get(node.op_type, ())
    )


def bound() -> int:
    """Bytes that such sessions may take together: half of the machine's memory, or of what its container may have."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for place in _CGROUP:
        try:
            total = min(total, int(place.read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return int(PART * total)


def share(options: Any) -> None:
    """Let a session take its memory from the arena, which is made on first use in a process."""
    import onnxruntime

    global _made
    with _lock:
        if not _made:
            kinds = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
            info = onnxruntime.OrtMemoryInfo("Cpu", kinds[0].ORT_ARENA_ALLOCATOR, 0, kinds[1].DEFAULT)
            told = {"max_mem": bound(), "arena_extend_strategy": 1}  # as much as is asked for, not the next power of 2
            unset = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
            onnxruntime.create_and_register_allocator(info, onnxruntime.OrtArenaCfg({**told, **unset}))
            _made = True
    options.add_session_config_entry("session.use_env_allocators", "1")


def give_back(options: Any) -> None:
    """Let a run give back what it took from the arena, which nobody else would do before the process ends."""
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
