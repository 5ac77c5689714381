"""Protobuf's wire format, as far as two questions need it: where ONNX graphs have their data, and which operators they
and TensorFlow's graphs have."""

from __future__ import annotations

from collections.abc import Iterator

MAX_DEPTH = 64
ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
ONNX_REFUSED = ("EPContext", "PyOp", "PythonOp", "PythonOpGrad")
# Operators of inference and training that compute and keep variables; none reads or writes a file, or calls out.
_COMPUTE = """
Abs Acos Acosh Add AddN AddV2 All Any ArgMax ArgMin Asin Asinh Assert AssignAddVariableOp AssignSubVariableOp
AssignVariableOp Atan Atan2 Atanh AvgPool AvgPool3D AvgPool3DGrad AvgPoolGrad BatchMatMul BatchMatMulV2 BatchMatMulV3
BatchToSpaceND BiasAdd BiasAddGrad BroadcastArgs BroadcastGradientArgs BroadcastTo Bucketize Cast Ceil CheckNumerics
ClipByValue Complex ComplexAbs Concat ConcatV2 Const Conv2D Conv2DBackpropFilter Conv2DBackpropInput Conv3D
Conv3DBackpropFilterV2 Conv3DBackpropInputV2 Cos Cosh Cross Cumprod Cumsum DepthToSpace DepthwiseConv2dNative
DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Diag DiagPart Div DivNoNan DynamicPartition
DynamicStitch Einsum Elu EluGrad Empty EnsureShape Equal Erf Erfc Erfinv Exp ExpandDims Expm1 FFT FFT2D FFT3D Fill
Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormGrad FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3
Gather GatherNd GatherV2 Greater GreaterEqual IFFT IFFT2D IFFT3D IRFFT Identity IdentityN If Igamma Imag InTopKV2 Inv
InvertPermutation IsFinite IsInf IsNan L2Loss LRN LeakyRelu LeakyReluGrad Less LessEqual Lgamma LinSpace Log Log1p
LogSoftmax LogicalAnd LogicalNot LogicalOr LoopCond MatMul MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV3
MatrixDiagV3 MatrixInverse MatrixSetDiagV3 Max MaxPool MaxPool3D MaxPool3DGrad MaxPoolGrad Maximum Mean Merge Min
Minimum MirrorPad MirrorPadGrad Mod Mul MulNoNan Multinomial Neg NextIteration NoOp NonMaxSuppressionV3 NotEqual
OneHot OnesLike Pack Pad PadV2 ParallelConcat PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient
Prod Qr RFFT RandomGammaGrad RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt Range Rank
ReadVariableOp Real RealDiv Reciprocal ReciprocalGrad Relu Relu6 Relu6Grad ReluGrad Reshape ResizeBilinear
ResizeBilinearGrad ResizeNearestNeighbor ResizeNearestNeighborGrad ResourceApplyAdaMax ResourceApplyAdam
ResourceApplyGradientDescent ResourceApplyKerasMomentum ResourceApplyMomentum ResourceApplyRMSProp ResourceGather
ResourceScatterAdd Reverse ReverseSequence ReverseV2 Rint Roll Round Rsqrt RsqrtGrad ScatterNd SegmentMean SegmentSum
Select SelectV2 Selu SeluGrad Shape ShapeN Sigmoid SigmoidGrad Sign Sin Sinh Size Slice Snapshot Softmax
SoftmaxCrossEntropyWithLogits Softplus SoftplusGrad Softsign SpaceToBatchND SpaceToDepth
SparseSoftmaxCrossEntropyWithLogits Split SplitV Sqrt SqrtGrad Square SquaredDifference Squeeze
StatefulPartitionedCall StatelessIf StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter
StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomUniform
StatelessRandomUniformIntV2 StatelessRandomUniformV2 StatelessTruncatedNormalV2 StatelessWhile StopGradient
StridedSlice StridedSliceGrad Sub Sum Svd Switch Tan Tanh TanhGrad TensorListConcatV2 TensorListElementShape
TensorListFromTensor TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
TensorListReserve TensorListSetItem TensorListStack TensorScatterAdd TensorScatterUpdate Tile TopKV2 Transpose
TruncateDiv TruncatedNormal Unpack UnsortedSegmentMax UnsortedSegmentSum VarHandleOp VarIsInitializedOp VariableV2
Where While Xdivy Xlog1py Xlogy ZerosLike
"""
TENSORFLOW = frozenset(_COMPUTE.split())
# Every SavedModel has them, in the functions that write and read its own variables.
TENSORFLOW_OWN = frozenset(
    {"DisableCopyOnRead", "MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename", "StaticRegexFullMatch",
     "StringJoin"}
)  # fmt: skip


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: number, and an integer or its bytes. Raises ValueError where it is none."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has no number")
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field is of kind {kind}")
        if length > len(data) - at:
            raise ValueError("a field is longer than the message")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number is too long")


def _parts(data: memoryview, *numbers: int) -> Iterator[memoryview]:
    for number, value in fields(data):
        if number in numbers:
            if isinstance(value, int):
                raise ValueError(f"field {number} is a number")
            yield value


def _text(data: memoryview, number: int) -> str:
    found = ""
    for value in _parts(data, number):
        found = bytes(value).decode()
    return found


def looks_like(data: memoryview) -> str | None:
    """`onnx`, `savedmodel`, or None: by the fields on top."""
    seen: dict[int, int | memoryview] = {}
    try:
        for number, value in fields(data):
            seen.setdefault(number, value)
            if number > 30:
                return None
    except ValueError:
        return None
    if (
        isinstance(seen.get(7), memoryview)
        and isinstance(seen.get(1), int)
        and isinstance(seen.get(8, b""), (memoryview, bytes))
    ):
        return "onnx"
    if set(seen) == {1, 2} and isinstance(seen[1], int) and isinstance(seen[2], memoryview):
        return "savedmodel"
    return None


def onnx(data: memoryview) -> tuple[list[str], list[str]]:
    """Operators that are on no list, and locations of external data, of an ONNX file. Raises ValueError."""
    operators: set[str] = set()
    locations: list[str] = []
    own: set[tuple[str, str]] = set()
    for function in _parts(data, 25):
        own.add((_text(function, 10), _text(function, 1)))
    for graph in _parts(data, 7):
        _graph(graph, operators, locations, own, 0)
    for function in _parts(data, 25):
        for node in _parts(function, 7):
            _node(node, operators, locations, own, 0)
    for training in _parts(data, 20):
        for graph in _parts(training, 1, 2):
            _graph(graph, operators, locations, own, 0)
    return sorted(operators), locations


def _graph(graph: memoryview, operators: set[str], locations: list[str], own: set[tuple[str, str]], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    for number, value in fields(graph):
        if number == 1 and not isinstance(value, int):
            _node(value, operators, locations, own, depth)
        elif number == 5 and not isinstance(value, int):
            _tensor(value, locations)
        elif number == 15 and not isinstance(value, int):
            for tensor in _parts(value, 1, 2):
                _tensor(tensor, locations)


def _node(node: memoryview, operators: set[str], locations: list[str], own: set[tuple[str, str]], depth: int) -> None:
    name, domain = _text(node, 4), _text(node, 7)
    if (domain, name) not in own and (domain not in ONNX_DOMAINS or name in ONNX_REFUSED):
        operators.add(f"{domain}:{name}")
    for attribute in _parts(node, 5):
        for tensor in _parts(attribute, 5, 10):
            _tensor(tensor, locations)
        for sparse in _parts(attribute, 22, 23):
            for tensor in _parts(sparse, 1, 2):
                _tensor(tensor, locations)
        for graph in _parts(attribute, 6, 11):
            _graph(graph, operators, locations, own, depth + 1)


def _tensor(tensor: memoryview, locations: list[str]) -> None:
    for entry in _parts(tensor, 13):
        if _text(entry, 1) == "location":
            locations.append(_text(entry, 2))


def tensorflow(data: memoryview) -> list[str]:
    """The operators of a SavedModel that are on no list. Raises ValueError."""
    found: set[str] = set()
    for graph in _parts(data, 2):
        for definition in _parts(graph, 2):
            functions = list(_parts(definition, 2))
            nodes = [*_parts(definition, 1)]
            own: set[str] = set()
            for library in functions:
                for function in _parts(library, 1):
                    own.update(_text(signature, 1) for signature in _parts(function, 1))
                    nodes += _parts(function, 3)
            found |= {_text(node, 2) for node in nodes} - own
    return sorted(found - TENSORFLOW - TENSORFLOW_OWN)
