"""The operators that a graph may hold, by domain, and bounds for the numbers that are written in it.

An operator that reads or writes files, decodes images, calls Python, or was made for onnxruntime's own use is not here,
and neither is an operator that this list does not know yet.
"""

from __future__ import annotations

ONNX = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr
    BitwiseXor Cast CastLike Ceil Clip Cos Cosh CumProd CumSum Det Div Einsum Equal Erf Exp Floor Gemm Greater
    GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Log MatMul MatMulInteger Max Mean Min Mod Mul Neg Not Or Pow
    QLinearMatMul Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Round Sign Sin Sinh Sqrt Sub Sum Tan Tanh Xor

    AveragePool BatchNormalization Celu Conv ConvInteger ConvTranspose DeformConv Dropout Elu Gelu
    GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization
    LRN LayerNormalization LeakyRelu LogSoftmax LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool
    MeanVarianceNormalization Mish NegativeLogLikelihoodLoss PRelu QLinearConv RMSNormalization Relu RoiAlign Selu
    Shrink Sigmoid SimplifiedLayerNormalization Softmax SoftmaxCrossEntropyLoss Softplus Softsign SwiGLU Swish
    ThresholdedRelu

    Attention GRU LSTM LinearAttention RNN RotaryEmbedding

    AffineGrid CenterCropPad Col2Im Compress Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather
    GatherElements GatherND GridSample NonMaxSuppression NonZero OneHot Pad Range Reshape Resize ReverseSequence Scatter
    ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile TopK Transpose Trilu Unique
    Unsqueeze Upsample Where

    DequantizeLinear DynamicQuantizeLinear QuantizeLinear

    Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike

    BlackmanWindow DFT HammingWindow HannWindow MelWeightMatrix

    If Loop Optional OptionalGetElement OptionalHasElement Scan

    ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength
    SequenceMap SplitToSequence

    RegexFullMatch StringConcat StringNormalizer StringSplit TfIdfVectorizer
    """.split()  # noqa: SIM905  # a table to read
)
TRADITIONAL = frozenset(
    """
    ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder
    LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
    TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
    """.split()  # noqa: SIM905  # a table to read
)
# What the quantizer and the optimizer for transformers of onnxruntime write, and skl2onnx for neighbours.
MICROSOFT = frozenset(
    """
    BiasGelu CDist DequantizeLinear DynamicQuantizeMatMul FastGelu FusedGemm FusedMatMul Gelu
    MatMulIntegerToFloat QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu
    QLinearMul QLinearSigmoid QLinearSoftmax QuantizeLinear QuickGelu SkipLayerNormalization
    SkipSimplifiedLayerNormalization Tokenizer Trilu
    """.split()  # noqa: SIM905  # a table to read
)
ALLOWED = {"": ONNX, "ai.onnx": ONNX, "ai.onnx.ml": TRADITIONAL, "com.microsoft": MICROSOFT}

# The newest versions of each domain that were tried with wild graphs; onnxruntime 1.32 runs some of 27 and ends there.
OPSETS = {"": 26, "ai.onnx": 26, "ai.onnx.ml": 5, "com.microsoft": 1}
NUMBERS = 1 << 30  # how many numbers a written size may make in one call
KERNEL = 1 << 20  # how many places a window may have
_SIZE, _COUNT = (0, 1 << 16), (1, 1 << 16)
# The bounds of integers by the name of their attribute, of all operators.
BOUNDS: dict[str, tuple[int, int]] = {
    "kernel_shape": _COUNT, "strides": _COUNT, "dilations": _COUNT, "output_padding": _SIZE, "group": _COUNT,
    "pads": _SIZE, "output_shape": (0, 1 << 24), "blocksize": _COUNT, "block_size": _COUNT,
    "size": _COUNT, "p": (0, 1 << 16), "hidden_size": (1, 1 << 20), "num_heads": _SIZE, "q_num_heads": _SIZE,
    "kv_num_heads": _SIZE, "num_groups": _COUNT, "rotary_embedding_dim": _SIZE, "axis": (-64, 63), "axes": (-64, 63),
    "perm": (-64, 63), "batch_axis": (-64, 63), "time_axis": (-64, 63), "batch_dims": (0, 63),
    "sample_size": (1, 1 << 24), "inputdimensions": (0, 1 << 24), "n_targets": (1, 1 << 20), "targets": (1, 1 << 20),
    "n_supports": (0, 1 << 30), "vectors_per_class": (0, 1 << 30), "pooled_shape": (1, 1 << 12),
    "output_height": (1, 1 << 12), "output_width": (1, 1 << 12), "sampling_ratio": (0, 1 << 10),
    "deformable_group": _COUNT, "offset_group": _COUNT, "min_gram_length": _COUNT, "max_gram_length": _COUNT,
    "max_skip_count": _SIZE, "mincharnum": _COUNT,
    "num_scan_inputs": _COUNT, "num_outputs": _COUNT, "scan_input_axes": (-64, 63),
    "scan_output_axes": (-64, 63),
}  # fmt: skip
# Which input (by position) of an operator says how large its output is.
SIZED: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Resize": (2, 3), "Upsample": (1,), "Pad": (1,),
    "OneHot": (1,), "MaxUnpool": (2,), "CenterCropPad": (1,), "BlackmanWindow": (0,), "HammingWindow": (0,),
    "HannWindow": (0,), "MelWeightMatrix": (0, 1), "AffineGrid": (1,), "Col2Im": (0,), "DFT": (1,),
}  # fmt: skip
# Which inputs must be written in the graph, one number each: onnxruntime does not check how many numbers they hold.
WRITTEN = {"DFT": (1, 2)}
# Which inputs must not be empty when the graph runs: onnxruntime divides by their sizes, or reads behind them.
FILLED = {
    "Conv": (1,), "ConvTranspose": (0, 1), "InstanceNormalization": (0,), "SkipLayerNormalization": (0, 1),
    "SkipSimplifiedLayerNormalization": (0, 1), "GRU": (0,), "LSTM": (0,), "FeatureVectorizer": (0,),
}  # fmt: skip
# Attributes that say the same; in early opsets of some operators.
SHAPES = {
    "RandomNormal": "shape", "RandomUniform": "shape", "Tile": "tiles", "Upsample": "scales", "Expand": "shape",
    "ConstantOfShape": "shape", "ConstantFill": "shape",
}  # fmt: skip
