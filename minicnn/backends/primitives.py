"""The primitive operations that every backend must have, one abstract method each.

Letters used in every shape: N batch, C channels, H height, W width, F filters, KH KW kernel,
OH OW output, K classes.  Arrays are logically NCHW and float32 or float64; a backend may keep
another memory order behind that.  ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are
pairs ``(h, w)``.

Every operation is a pure pair ``{op}_forward`` / ``{op}_backward``: it changes none of its
arguments (except the running statistics of batch norm and the optimizer steps' own arrays) and
keeps no state.  A wrong shape, dtype or value raises ``ValueError`` with the same words on every
backend (`minicnn.shapes` has them).  Empty batches are allowed.

Rules on ties and non-finite values: ReLU'(0) = 0; a max-pool tie goes to the first index in
row-major order and padding never wins; of several NaN in a window the last wins; NaN and infinities
come out of a forward pass where torch has them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""The backend's own array: ``np.ndarray`` for numpy, ``torch.Tensor`` for cpp and cuda."""

Pair: TypeAlias = tuple[int, int]


class Primitives(ABC):
    """The primitives.  A subclass that lacks one cannot be instantiated; the error names it."""

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """What results are printed under: the name, and what one must know beside it."""
        return self.name

    # ---- arrays ------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, a: np.ndarray) -> Array:
        """The backend's array for a host array; shares memory on the CPU where it can.

        Non-contiguous, read-only and foreign-byte-order arrays are copied where needed.
        """

    @abstractmethod
    def to_numpy(self, a: Array) -> np.ndarray:
        """The host array for a backend array; shares memory on the CPU where it can."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for queued device work; does nothing on the CPU."""

    # ---- convolution -------------------------------------------------------------------------

    @abstractmethod
    def conv2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
    ) -> Array:  # fmt: skip
        """2-D cross-correlation plus bias.

        y[n,f,i,j] = b[f] + sum over c,u,v of x[n,c, i*sh + u*dh - ph, j*sw + v*dw - pw] * w[f,c,u,v]

        Args:    x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F,) or None
        Returns: y (N,F,OH,OW), OH = (H + 2*ph - dh*(KH-1) - 1)//sh + 1
        Torch:   F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        """

    @abstractmethod
    def conv2d_backward(
        self, dy: Array, x: Array, weight: Array, *,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """Gradients (dx, dw, db) of conv2d for an upstream gradient dy (N,F,OH,OW)."""

    # ---- pooling -----------------------------------------------------------------------------

    @abstractmethod
    def max_pool2d_forward(
        self, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair,
        ceil_mode: bool, need_argmax: bool = True,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Window maximum, and which cell of the window won.

        Args:    x (N,C,H,W); padding at most half the kernel
        Returns: y (N,C,OH,OW); argmax, an integer array that only this backend's backward reads
                 (a byte where the window has at most 255 cells), or None if not needed
        Torch:   F.max_pool2d
        """

    @abstractmethod
    def max_pool2d_backward(
        self, dy: Array, argmax: Array, *, input_shape: tuple[int, ...], kernel_size: Pair,
        stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool,
    ) -> Array:  # fmt: skip
        """dx (N,C,H,W): each dy goes to the cell that won its window."""

    @abstractmethod
    def avg_pool2d_forward(
        self, x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool,
        count_include_pad: bool,
    ) -> Array:  # fmt: skip
        """Window mean (N,C,OH,OW).  Torch: F.avg_pool2d."""

    @abstractmethod
    def avg_pool2d_backward(
        self, dy: Array, *, input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair,
        padding: Pair, ceil_mode: bool, count_include_pad: bool,
    ) -> Array:  # fmt: skip
        """dx (N,C,H,W): each dy spread evenly over its window."""

    @abstractmethod
    def adaptive_avg_pool2d_forward(self, x: Array, *, output_size: Pair) -> Array:
        """Mean over OH*OW regions that cover x evenly.  Torch: F.adaptive_avg_pool2d."""

    @abstractmethod
    def adaptive_avg_pool2d_backward(self, dy: Array, *, input_shape: tuple[int, ...]) -> Array:
        """dx (N,C,H,W); the output size is dy's."""

    # ---- activations, dense, normalisation -----------------------------------------------------

    @abstractmethod
    def relu_forward(self, x: Array) -> Array:
        """max(x, 0), any shape; NaN stays NaN.  Torch: F.relu."""

    @abstractmethod
    def relu_backward(self, dy: Array, y: Array) -> Array:
        """dx = 0 where y <= 0, else dy; y is the forward's output (or its input)."""

    @abstractmethod
    def dense_forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        """x @ weight.T + bias: x (N,in), weight (out,in), bias (out,) or None -> (N,out).

        Torch: F.linear
        """

    @abstractmethod
    def dense_backward(
        self, dy: Array, x: Array, weight: Array, *,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """Gradients (dx, dw, db) of dense."""

    @abstractmethod
    def batch_norm2d_forward(
        self, x: Array, weight: Array | None, bias: Array | None,
        running_mean: Array | None, running_var: Array | None, *,
        training: bool, momentum: float, eps: float,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Normalise each channel over N, H, W, then scale and shift.

        Training uses the batch's mean and biased variance and moves the running statistics, in
        place, by ``momentum`` towards the mean and the unbiased variance; evaluation uses the
        running statistics.

        Args:    x (N,C,H,W); weight, bias, running_mean, running_var (C,) or None
        Returns: y (N,C,H,W), mean (C,), invstd (C,) = 1/sqrt(var + eps), as used
        Torch:   F.batch_norm.  Source: Ioffe and Szegedy 2015, arXiv:1502.03167
        """

    @abstractmethod
    def batch_norm2d_backward(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array, *,
        training: bool, need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """Gradients (dx, dw, db); dw and db are None where weight is None."""

    @abstractmethod
    def fold_batch_norm2d(
        self, weight: Array, bias: Array | None, gamma: Array | None, beta: Array | None,
        running_mean: Array, running_var: Array, *, eps: float,
    ) -> tuple[Array, Array]:  # fmt: skip
        """The convolution that equals a convolution and the batch norm behind it in evaluation.

        weight'[f] = weight[f] * s[f],  bias'[f] = (bias[f] - running_mean[f]) * s[f] + beta[f]
        with s = gamma / sqrt(running_var + eps); None stands for gamma 1, beta 0, bias 0.

        Args:    weight (F,C/groups,KH,KW), bias (F,) or None: the convolution's;
                 gamma, beta (F,) or None, running_mean, running_var (F,): the batch norm's
        Returns: weight (F,C/groups,KH,KW), bias (F,), both new
        Torch:   torch.nn.utils.fusion.fuse_conv_bn_weights
        """

    @abstractmethod
    def dropout_forward(self, x: Array, keep_mask: Array, *, p: float) -> Array:
        """x / (1-p) where keep_mask is true, else 0; the bool mask (x's shape) is drawn on the host."""

    @abstractmethod
    def dropout_backward(self, dy: Array, keep_mask: Array, *, p: float) -> Array:
        """dy / (1-p) where keep_mask is true, else 0."""

    # ---- softmax and the loss ------------------------------------------------------------------

    @abstractmethod
    def softmax_forward(self, x: Array) -> Array:
        """Probabilities over axis 1 of x (N,K).  Torch: F.softmax(x, 1)."""

    @abstractmethod
    def softmax_backward(self, dy: Array, p: Array) -> Array:
        """dx = p * (dy - sum over k of dy*p)."""

    @abstractmethod
    def softmax_cross_entropy_forward(
        self, logits: Array, labels: Array, *,
        label_smoothing: float = 0.0, class_weight: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Mean cross-entropy of softmax(logits).

        Args:    logits (N,K); labels int64 (N,) or probabilities (N,K); class_weight (K,) or None
        Returns: loss, a 0-d array; probs (N,K) for backward
        Torch:   F.cross_entropy, whose weighted mean divides by the labels' summed weights
                 (class indices) or by N (probabilities)
        """

    @abstractmethod
    def softmax_cross_entropy_backward(
        self, probs: Array, labels: Array, *,
        label_smoothing: float = 0.0, class_weight: Array | None = None,
    ) -> Array:  # fmt: skip
        """dlogits (N,K) of the mean loss."""

    # ---- joining and reshaping -----------------------------------------------------------------

    @abstractmethod
    def add_forward(self, a: Array, b: Array) -> Array:
        """a + b, of equal shapes."""

    @abstractmethod
    def add_backward(self, dy: Array) -> tuple[Array, Array]:
        """(dy, dy)."""

    @abstractmethod
    def concat_forward(self, xs: Sequence[Array]) -> Array:
        """Join (N,C_i,H,W) along axis 1.  Torch: torch.cat(xs, 1)."""

    @abstractmethod
    def concat_backward(self, dy: Array, *, sizes: Sequence[int]) -> list[Array]:
        """dy cut back into pieces of ``sizes`` channels."""

    @abstractmethod
    def flatten_forward(self, x: Array) -> Array:
        """(N,C,H,W) -> (N,C*H*W) in logical order.  Torch: x.flatten(1)."""

    @abstractmethod
    def flatten_backward(self, dy: Array, *, input_shape: tuple[int, ...]) -> Array:
        """dy in the input's shape."""

    # ---- optimizer steps: lists of parameters, changed in place ----------------------------------

    @abstractmethod
    def sgd_step(
        self, params: Sequence[Array], grads: Sequence[Array], buffers: Sequence[Array], *,
        lr: float, momentum: float, weight_decay: float, nesterov: bool,
    ) -> None:  # fmt: skip
        """torch.optim.SGD's step; ``buffers`` start as zeros and are unused if momentum is 0."""

    @abstractmethod
    def adam_step(
        self, params: Sequence[Array], grads: Sequence[Array], exp_avgs: Sequence[Array],
        exp_avg_sqs: Sequence[Array], *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, decoupled: bool, step: int,
    ) -> None:  # fmt: skip
        """torch.optim.Adam's step, or AdamW's if ``decoupled``; ``step`` counts from 1."""

    @abstractmethod
    def rmsprop_step(
        self, params: Sequence[Array], grads: Sequence[Array], square_avgs: Sequence[Array],
        buffers: Sequence[Array], *, lr: float, alpha: float, eps: float, weight_decay: float,
        momentum: float,
    ) -> None:  # fmt: skip
        """torch.optim.RMSprop's step (not centred); ``buffers`` are unused if momentum is 0."""

    @abstractmethod
    def ema_update(self, averages: Sequence[Array], params: Sequence[Array], *, decay: float) -> None:
        """averages = decay * averages + (1 - decay) * params."""

    @abstractmethod
    def global_norm(self, arrays: Sequence[Array]) -> float:
        """The Euclidean norm of all arrays taken as one vector."""

    @abstractmethod
    def scale(self, arrays: Sequence[Array], factor: float) -> None:
        """Multiply every array by ``factor``."""
