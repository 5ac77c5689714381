"""The graphs of a SavedModel: written in one canonical form, and checked before TensorFlow sees them.

TensorFlow runs whatever a graph says, so what it gets is a copy that this module put together: functions whose every
operation is on a list, and objects of known kinds. Reading the protocol buffer executes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from catalog_core.errors import SerializationError
from catalog_savedmodel.operations import ALLOWED, SAVER

MAX_GRAPH = 256 << 20
MAX_FILLED = 64 << 20  # bytes of all constants that are written as one value and a shape
MAX_ELEMENTS = 1 << 31  # of what one operation makes, where the graph itself says how many
# operation → its inputs that say how large the result is
_SHAPES = {
    "BroadcastTo": (1,), "Empty": (0,), "EmptyTensorList": (1,), "Fill": (0,), "LinSpace": (2,), "OneHot": (1,),
    "MatrixDiagV2": (2, 3), "MatrixDiagV3": (2, 3), "RandomGamma": (0,), "RandomPoissonV2": (0,),
    "RandomStandardNormal": (0,), "RandomUniform": (0,), "RandomUniformInt": (0,), "Range": (1,), "ScatterNd": (2,),
    "ResizeArea": (1,), "ResizeBicubic": (1,), "ResizeBilinear": (1,), "ResizeNearestNeighbor": (1,),
    "StatefulStandardNormalV2": (2,), "StatefulTruncatedNormal": (2,), "StatefulUniform": (2,),
    "StatelessRandomNormal": (0,), "StatelessRandomNormalV2": (0,), "StatelessRandomUniform": (0,),
    "StatelessRandomUniformV2": (0,), "StatelessTruncatedNormalV2": (0,), "TensorListReserve": (1,), "Tile": (1,),
    "TruncatedNormal": (0,),
}  # fmt: skip
_KINDS = frozenset(
    ["user_object", "variable", "bare_concrete_function", "function", "constant", "resource", "captured_tensor"]
)
_OBJECTS = frozenset(
    ["_generic_user_object", "signature_map"]
    + [f"trackable_{kind}_wrapper" for kind in ("dict", "list", "tuple")]
)  # fmt: skip

_SESSION = frozenset(["config", "config_proto", "executor_type"])  # how a session would run what is called
_CLASSES = frozenset(["", "tf.StaticHashTable", "tf.TrackableConstant"])  # tables in memory, and what they start with


def parse(data: bytes | memoryview) -> Any:
    """The one graph of a `saved_model.pb` with an object graph. Raises `SerializationError`."""
    if len(data) > MAX_GRAPH:
        raise SerializationError("the graph of the SavedModel is larger than 256 MiB")
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(bytes(data))
    except DecodeError as exc:
        raise SerializationError(f"saved_model.pb cannot be read: {exc}") from exc
    if len(model.meta_graphs) != 1 or not model.meta_graphs[0].object_graph_def.nodes:
        raise SerializationError("saved_model.pb does not hold one graph with its objects")
    return model


def _calls(node: Any) -> Iterator[Any]:
    """The references to functions among the attributes of a node."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func
        elif kind == "list":
            yield from value.list.func


def _entries(objects: Any) -> Iterator[str]:
    """The functions that the objects offer, in the order of the objects."""
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind == "bare_concrete_function":
            yield node.bare_concrete_function.concrete_function_name
        elif kind == "function":
            yield from node.function.concrete_functions


class _Library:
    """The functions of a graph by name, and who calls whom, custom gradients included."""

    def __init__(self, graph: Any) -> None:
        self.functions = {function.signature.name: function for function in graph.library.function}
        if len(self.functions) != len(graph.library.function):
            raise SerializationError("the graph holds two functions of one name")
        self.gradients = {
            item.registered_op_type: item.gradient_func for item in graph.library.registered_gradients
        } | {item.function_name: item.gradient_func for item in graph.library.gradient}
        self.calls = {name: list(self._called(function)) for name, function in self.functions.items()}

    def _called(self, function: Any) -> Iterator[str]:
        if function.signature.name in self.gradients:
            yield self.gradients[function.signature.name]
        for node in function.node_def:
            yield from (call.name for call in _calls(node))
            kind = node.attr["_gradient_op_type"].s.decode(errors="replace") if "_gradient_op_type" in node.attr else ""
            if kind in self.gradients:
                yield self.gradients[kind]

    def reached(self, roots: Iterable[str]) -> list[str]:
        """The functions that `roots` reach, themselves included, callers first. Raises `SerializationError` for one
        that is not there, and for one that reaches itself."""
        order: list[str] = []
        done: set[str] = set()
        for root in roots:
            path: list[tuple[str, Iterator[str]]] = []
            following: Iterator[str] = iter([root])
            while True:
                name = next(following, None)
                if name is None:
                    if not path:
                        break
                    finished, following = path.pop()
                    done.add(finished)
                    continue
                if name in done:
                    continue
                if any(name == above for above, _ in path):
                    raise SerializationError(f"the graph's function {name[:100]!r} calls itself")
                if name not in self.calls:
                    raise SerializationError(f"the graph calls {name[:100]!r}, a function that it does not hold")
                order.append(name)
                path.append((name, following))
                following = iter(self.calls[name])
        return order


def _check_nodes(nodes: Any, allowed: frozenset[str], where: str) -> None:
    for node in nodes:
        if node.op not in allowed:
            raise SerializationError(
                f"the graph holds the operation {node.op[:100]!r} (in {where[:100]}), which is not on the list",
                hint="files, processes, Python functions, printing and data sets have no place in a stored graph",
            )


def _bytes_of(tensor: Any) -> tuple[int, int]:
    """How many bytes a constant takes in memory, and how many of it are written in the graph."""
    shape = tf.TensorShape(tensor.tensor_shape)
    if shape.num_elements() is None:
        raise SerializationError("a constant of the graph has no shape")
    dtype = tf.as_dtype(tensor.dtype)
    fixed = dtype.size if dtype not in (tf.string, tf.variant, tf.resource) else 1
    return shape.num_elements() * max(1, fixed), tensor.ByteSize()


def _check_sizes(graphs: Iterable[Any]) -> None:
    """Hold constants, and the sizes of results that are constants, against bounds: a graph of 300 bytes can ask for
    terabytes when it is loaded or first run."""
    filled = 0
    for nodes in graphs:
        constants = {node.name: node.attr["value"].tensor for node in nodes if node.op == "Const"}
        for name, tensor in constants.items():
            try:
                size, written = _bytes_of(tensor)
            except (ValueError, TypeError) as exc:
                raise SerializationError(f"the constant {name[:100]!r} of the graph cannot be read: {exc}") from exc
            filled += size if size > 2 * written + 64 else 0
            if filled > MAX_FILLED:
                raise SerializationError(f"the constant {name[:100]!r} takes {size} bytes, and {written} are written")
        for node in nodes:
            places = [node.input[number] for number in _SHAPES.get(node.op, ()) if number < len(node.input)]
            named = [constants[key] for key in (place.partition(":")[0] for place in places) if key in constants]
            count = math.prod(_count(tensor) for tensor in named)
            if count > MAX_ELEMENTS:
                raise SerializationError(f"the operation {node.op} of the graph makes {count} numbers at once")


def _count(tensor: Any) -> int:
    try:
        sizes = [abs(float(size)) for size in tf.make_ndarray(tensor).ravel()]
    except (ValueError, TypeError):
        return 1
    return int(math.prod(size for size in sizes if 1 <= size < float("inf")))


def check(model: Any) -> set[str]:
    """Hold a parsed graph against the lists; return the functions that its objects reach. Raises
    `SerializationError` with the operation, the object or the asset that is not allowed."""
    meta = model.meta_graphs[0]
    if meta.asset_file_def:
        raise SerializationError(
            f"the SavedModel needs the asset file {meta.asset_file_def[0].filename[:100]!r}, which is not read",
            hint="keep vocabularies in memory (adapt(), or vocabulary=[...])",
        )
    objects, library = meta.object_graph_def, _Library(meta.graph_def)
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind not in _KINDS or (kind == "user_object" and node.user_object.identifier not in _OBJECTS):
            what = node.user_object.identifier[:100] if kind == "user_object" else kind
            raise SerializationError(f"the SavedModel holds an object of kind {what!r}, which is not on the list")
        if node.registered_name not in _CLASSES or node.registered_saver or node.HasField("serialized_user_proto"):
            raise SerializationError(
                f"the SavedModel names the class {node.registered_name[:100]!r}, which is not looked up"
            )
        if any(not 0 <= child.node_id < len(objects.nodes) for child in (*node.children, *node.dependencies)):
            raise SerializationError("an object of the SavedModel names one that is not there")
    reached = set(library.reached(_entries(objects)))
    for name, function in library.functions.items():
        _check_nodes(function.node_def, ALLOWED if name in reached else ALLOWED | SAVER, f"function {name}")
    _check_nodes(meta.graph_def.node, ALLOWED | SAVER, "the main graph")
    _check_sizes([meta.graph_def.node, *(function.node_def for function in library.functions.values())])
    return reached


def safe_copy(model: Any) -> Any:
    """What TensorFlow gets of a checked graph: the objects, the functions that they reach, and constants; no devices,
    no savers, nothing of the graph that older loaders run."""
    reached = check(model)
    source, copy = model.meta_graphs[0], saved_model_pb2.SavedModel()
    copy.saved_model_schema_version = model.saved_model_schema_version
    target = copy.meta_graphs.add()
    target.meta_info_def.tags.append("serve")
    target.meta_info_def.tensorflow_version = source.meta_info_def.tensorflow_version
    target.object_graph_def.CopyFrom(source.object_graph_def)
    for name in sorted(target.object_graph_def.concrete_functions):
        if name not in reached:
            del target.object_graph_def.concrete_functions[name]
    for node in target.object_graph_def.nodes:
        if node.WhichOneof("kind") == "variable":
            node.variable.device = ""
    target.graph_def.versions.CopyFrom(source.graph_def.versions)
    target.graph_def.node.extend(node for node in source.graph_def.node if node.op == "Const")
    library = target.graph_def.library
    library.function.extend(f for f in source.graph_def.library.function if f.signature.name in reached)
    library.registered_gradients.extend(
        item for item in source.graph_def.library.registered_gradients if item.gradient_func in reached
    )
    for nodes in (target.graph_def.node, *(function.node_def for function in library.function)):
        for node in nodes:
            node.device = ""
            for key in _SESSION & node.attr.keys():
                node.attr[key].s = b""
    return copy


def canonical(model: Any) -> bytes:
    """A graph as bytes that depend on what it computes only: TensorFlow numbers functions and scopes through the life
    of a process, so functions, their nodes and arguments get names by position."""
    meta = model.meta_graphs[0]
    meta.meta_info_def.ClearField("stripped_op_list")
    meta.meta_info_def.ClearField("function_aliases")
    graph, objects, library = meta.graph_def, meta.object_graph_def, _Library(meta.graph_def)
    roots = [*_entries(objects), *(call.name for node in graph.node for call in _calls(node))]
    order = library.reached(roots)
    names = {name: f"function_{number}" for number, name in enumerate(order)}
    used = [item for item in graph.library.registered_gradients if item.gradient_func in names]
    used.sort(key=lambda item: order.index(item.gradient_func))
    kinds = {item.registered_op_type: f"Gradient-{number}" for number, item in enumerate(used)}
    functions = [library.functions[name] for name in order]
    nodes: dict[str, dict[str, str]] = {}
    for function in functions:
        nodes[function.signature.name] = _rename_nodes(function)
        function.signature.name = names[function.signature.name]
    for node in (*graph.node, *(node for function in functions for node in function.node_def)):
        _rename_references(node, names, kinds)
    for item in used:
        item.gradient_func = names[item.gradient_func]
        item.registered_op_type = kinds[item.registered_op_type]
    kept_functions, kept_gradients = [f.SerializeToString() for f in functions], [g.SerializeToString() for g in used]
    graph.ClearField("library")
    for data in kept_functions:
        graph.library.function.add().ParseFromString(data)
    for data in kept_gradients:
        graph.library.registered_gradients.add().ParseFromString(data)
    _rename_objects(objects, names, nodes)
    result: bytes = model.SerializeToString(deterministic=True)
    return result


def _rename_objects(objects: Any, names: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> None:
    for node in objects.nodes:
        kind = node.WhichOneof("kind")
        if kind == "bare_concrete_function":
            function = node.bare_concrete_function
            function.concrete_function_name = names[function.concrete_function_name]
        elif kind == "function":
            node.function.concrete_functions[:] = [names[name] for name in node.function.concrete_functions]
        elif kind == "captured_tensor":  # what a custom gradient keeps of its function
            function, (head, _, tail) = node.captured_tensor.concrete_function, node.captured_tensor.name.partition(":")
            if function not in names:
                raise SerializationError(f"the graph keeps a tensor of {function[:100]!r}, which nothing calls")
            node.captured_tensor.name = f"{nodes[function].get(head, head)}:{tail}"
            node.captured_tensor.concrete_function = names[function]
    concrete = {
        names[name]: value.SerializeToString() for name, value in objects.concrete_functions.items() if name in names
    }
    objects.ClearField("concrete_functions")
    for name, data in concrete.items():
        objects.concrete_functions[name].ParseFromString(data)


def _rename_references(node: Any, names: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    node.ClearField("experimental_debug_info")
    for call in _calls(node):
        call.name = names[call.name]
    for key in list(node.attr):
        text = node.attr[key].s.decode(errors="replace") if node.attr[key].WhichOneof("value") == "s" else None
        if key == "_class" or (key == "_gradient_op_type" and text not in kinds):
            del node.attr[key]
        elif key == "_gradient_op_type":
            node.attr[key].s = kinds[str(text)].encode()
        elif text in names:
            node.attr[key].s = names[str(text)].encode()


def _rename_nodes(function: Any) -> dict[str, str]:
    """Name arguments, nodes and outputs of a function by their positions; return the new names by the old ones."""
    new = {argument.name: f"arg_{number}" for number, argument in enumerate(function.signature.input_arg)}
    new |= {node.name: f"{node.op}_{number}" for number, node in enumerate(function.node_def)}

    def renamed(place: str) -> str:
        control = "^" if place.startswith("^") else ""
        head, _, tail = place.removeprefix("^").partition(":")
        return f"{control}{new.get(head, head)}{':' if tail else ''}{tail}"

    for argument in function.signature.input_arg:
        argument.name = new[argument.name]
    outputs = {out.name: f"out_{number}" for number, out in enumerate(function.signature.output_arg)}
    for out in function.signature.output_arg:
        out.name = outputs[out.name]
    for node in function.node_def:
        node.name = new[node.name]
        node.input[:] = [renamed(place) for place in node.input]
    results = {outputs[key]: renamed(place) for key, place in function.ret.items()}
    function.ClearField("ret")
    function.ret.update(results)
    controls = {renamed(key): renamed(place) for key, place in function.control_ret.items()}
    function.ClearField("control_ret")
    function.control_ret.update(controls)
    function.signature.control_output[:] = [renamed(name) for name in function.signature.control_output]
    for attributes in function.arg_attr.values():
        attributes.attr.pop("_user_specified_name", None)
    return new
