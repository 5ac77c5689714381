"""The operators that a graph may call: forward arithmetic on tensors, and what control flow needs.

What is not listed is not called: gradients, which trust the indices that they are given, what wraps, resizes or
re-interprets memory, sparse, nested and quantized layouts, optimizers, printing, files, and all that this list has
never heard of. The scan of a file asks this list too. An operator stands for its overloads that take and return tensors
and do not write into an `out`; `_`, the form in place, goes with it. Arguments are held against `calls.py`.
"""

import re

OPERATION = re.compile(r"torch\.ops\.(aten|prims|higher_order)\.(\w+)(?:\.(\w+))?\Z", re.ASCII)
SCALAR = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)\Z"
    r"|math\.(ceil|floor|trunc)\Z|torch\.sym_(not|ite|max|min|int|float|sqrt)\Z"
)

# by element, or by rows
_ELEMENTS = """
    abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh
    atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bucketize
    ceil celu clamp clamp_max clamp_min clip complex conj conj_physical _conj _conj_physical copysign cos cosh deg2rad
    digamma div divide elu eq erf erfc erfinv exp exp2 expm1 fix float_power floor floor_divide fmax fmin fmod frac
    frexp gcd ge gelu greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 igamma
    igammac imag isclose isfinite isin isinf isnan isneginf isposinf isreal lcm ldexp le leaky_relu lerp less
    less_equal lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or
    logical_xor logit lt masked_fill maximum minimum mish mul multiply mvlgamma nan_to_num ne neg negative _neg_view
    nextafter not_equal polar polygamma positive pow prelu _prelu_kernel rad2deg real reciprocal relu relu6 remainder
    resolve_conj resolve_neg round rsqrt rsub searchsorted selu sgn sigmoid sign signbit silu sin sinc sinh softplus
    softshrink sqrt square sub subtract tan tanh threshold true_divide trunc where xlogy __and__ __or__ __xor__
    __lshift__ __rshift__ special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
    special_digamma special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit
    special_expm1 special_gammainc special_gammaincc special_gammaln special_i0 special_i0e special_i1 special_i1e
    special_log1p special_log_ndtr special_log_softmax special_logit special_logsumexp special_modified_bessel_i0
    special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 special_multigammaln special_ndtr
    special_ndtri special_polygamma special_psi special_round special_sinc special_softmax special_spherical_bessel_j0
    special_xlog1py special_xlogy special_zeta
"""
_REDUCTIONS = """
    all amax amin aminmax _aminmax any argmax argmin argsort argwhere count_nonzero cummax cummin cumprod cumsum
    cumulative_trapezoid diff frobenius_norm histc kthvalue logcumsumexp logsumexp max mean median min mode msort
    nanmean nanmedian nanquantile nansum nonzero norm nuclear_norm prod quantile sort std std_mean sum sum_to_size
    topk trapezoid trapz unique_consecutive unique_dim _unique2 var var_mean
"""
_SHAPES = """
    adjoint alias as_strided atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cartesian_prod
    cat chunk clone column_stack combinations concat concatenate contiguous detach diag diag_embed diagflat diagonal
    diagonal_scatter dsplit dstack expand expand_as flatten flip fliplr flipud hsplit hstack lift_fresh
    lift_fresh_copy mH mT matrix_H meshgrid moveaxis movedim narrow numpy_T pad_sequence permute pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle ravel repeat repeat_interleave reshape reshape_as
    _reshape_copy roll rot90 row_stack select select_scatter slice slice_scatter split split_with_sizes squeeze stack
    swapaxes swapdims t tensor_split tile transpose tril triu type_as _to_copy to unbind unflatten unfold _unsafe_view
    unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze vander view view_as view_as_complex view_as_real
    vsplit vstack alias_copy detach_copy diagonal_copy expand_copy permute_copy select_copy slice_copy split_copy
    squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy view_copy view_as_complex_copy
    view_as_real_copy split_with_sizes_copy narrow_copy
"""
_INDICES = """
    embedding embedding_bag _embedding_bag _embedding_bag_forward_only gather index index_add index_copy index_fill
    index_put index_reduce index_select masked_scatter masked_select one_hot put scatter scatter_add scatter_reduce
    take take_along_dim _unsafe_index _unsafe_index_put _unsafe_masked_index bincount fill_diagonal copy fill zero
"""
_MAKERS = """
    arange bartlett_window blackman_window empty empty_like empty_permuted eye fft_fftfreq fft_rfftfreq full full_like
    hamming_window hann_window kaiser_window linspace logspace new_empty new_full new_ones new_zeros ones ones_like
    scalar_tensor tril_indices triu_indices zeros zeros_like alpha_dropout bernoulli cauchy dropout exponential
    feature_alpha_dropout feature_dropout geometric log_normal multinomial native_dropout normal normal_functional
    poisson rand rand_like randint randint_like randn randn_like randperm rrelu rrelu_with_noise
    rrelu_with_noise_functional uniform _standard_gamma _sample_dirichlet
"""
_ALGEBRA = """
    addbmm addmm _addmm_activation addmv addr baddbmm bilinear bmm cdist _cdist_forward _euclidean_dist chain_matmul
    cholesky cholesky_inverse cholesky_solve corrcoef cosine_similarity cov cross det dist dot einsum ger inner
    inverse kron linalg_cholesky linalg_cholesky_ex linalg_cond linalg_cross linalg_det linalg_diagonal linalg_eig
    linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex linalg_lstsq
    linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve linalg_matmul linalg_matrix_exp linalg_matrix_norm
    linalg_matrix_power linalg_matrix_rank linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet
    linalg_solve linalg_solve_ex linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve
    linalg_vander linalg_vecdot linalg_vector_norm _linalg_det _linalg_eigh _linalg_slogdet _linalg_solve_ex
    _linalg_svd logdet lu_unpack matmul matrix_exp matrix_power mm mv outer pairwise_distance pdist _pdist_forward
    pinverse qr renorm slogdet svd tensordot trace triangular_solve _trilinear vdot fft_fft fft_fft2 fft_fftn
    fft_fftshift fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2
    fft_ihfftn fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftn _fft_c2c _fft_c2r _fft_r2c istft stft
"""
_LAYERS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator avg_pool1d avg_pool2d avg_pool3d
    batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training native_batch_norm col2im constant_pad_nd
    conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
    _convolution_mode fractional_max_pool2d fractional_max_pool3d _fused_rms_norm glu grid_sampler grid_sampler_2d
    grid_sampler_3d group_norm native_group_norm gru gru_cell im2col instance_norm layer_norm native_layer_norm linear
    log_softmax _log_softmax lstm lstm_cell max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices
    max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d norm_except_dim _weight_norm _weight_norm_interface
    pad _pad_circular _pad_enum reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell _safe_softmax
    scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention _scaled_dot_product_cudnn_attention
    _native_multi_head_attention _transformer_encoder_layer_fwd softmax _softmax upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d binary_cross_entropy binary_cross_entropy_with_logits
    cosine_embedding_loss cross_entropy_loss hinge_embedding_loss huber_loss kl_div l1_loss log_sigmoid_forward
    margin_ranking_loss mse_loss multi_margin_loss multilabel_margin_loss nll_loss nll_loss2d nll_loss2d_forward
    nll_loss_forward nll_loss_nd poisson_nll_loss smooth_l1_loss soft_margin_loss triplet_margin_loss
    fake_quantize_per_tensor_affine fake_quantize_per_channel_affine fake_quantize_per_tensor_affine_cachemask
    fake_quantize_per_channel_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams
    fused_moving_avg_obs_fake_quant _fused_moving_avg_obs_fq_helper
"""
ATEN = frozenset(" ".join([_ELEMENTS, _REDUCTIONS, _SHAPES, _INDICES, _MAKERS, _ALGEBRA, _LAYERS]).split())
NOT_IN_PLACE = frozenset(["as_strided_"])
# what gives a number, or nothing: sizes, values, and what an export checks while it runs
ATEN_SCALARS = frozenset(
    """
    item.default _local_scalar_dense.default is_nonzero.default equal.default allclose.default sym_size.int
    sym_numel.default sym_stride.int sym_storage_offset.default sym_is_contiguous.default sym_constrain_range.default
    sym_constrain_range_for_size.default _functional_sym_constrain_range.default
    _functional_sym_constrain_range_for_size.default _assert_scalar.default _functional_assert_scalar.default
    _assert_async.default _assert_async.msg _functional_assert_async.msg _assert_tensor_metadata.default
    """.split()
)
PRIMS = frozenset(
    """
    abs acos acosh add amax amin asin asinh atan atan2 atanh bessel_i0 bessel_i0e bessel_i1 bessel_i1e bessel_j0
    bessel_j1 bitwise_and bitwise_not bitwise_or bitwise_xor broadcast_in_dim cat cbrt ceil clone collapse
    collapse_view conj conj_physical convert_element_type cos cosh device_put digamma div eq erf erf_inv erfc erfcx
    exp exp2 expm1 floor fmax fmin fmod frexp full full_like gcd ge gt hypot igamma igammac
    imag iota isfinite le lgamma log log10 log1p log2 lt maximum minimum mul ndtri ne neg nextafter pow prod real
    reciprocal remainder reshape rev round rsqrt scalar_tensor sign signbit sin sinh spherical_bessel_j0 split_dim sqrt
    squeeze sub sum tan tanh transpose trunc var view_of where xor_sum zeta
    """.split()
)
CONTROL = frozenset(["cond", "while_loop", "scan", "map_impl", "wrap_with_set_grad_enabled", "wrap_with_autocast"])


def listed(target: str) -> bool:
    """Whether a graph may call what has this name, such as `torch.ops.aten.relu.default`."""
    if SCALAR.match(target):
        return True
    found = OPERATION.match(target)
    if found is None:
        return False
    space, name, overload = found.groups()
    if space == "higher_order":
        return overload is None and name in CONTROL
    known = ATEN if space == "aten" else PRIMS
    named = name in known or (name.removesuffix("_") in known and name not in NOT_IN_PLACE)
    return overload is not None and (named or gives_number(space, name, overload))


def gives_number(space: str, name: str, overload: str | None) -> bool:
    """Whether an operator gives a number, or nothing, in place of tensors."""
    return space == "aten" and f"{name}.{overload}" in ATEN_SCALARS
