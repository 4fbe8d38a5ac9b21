"""The primitive operations, which every backend must have: one abstract method for each.

The letters in shapes are N batch, C channels, H height, W width, F filters, KH KW kernel, OH OW
output and K classes.  Arrays are float32 or float64, activations also bfloat16 (below), and have the
shape NCHW; a backend may store them in another memory order.  ``kernel_size``, ``stride`` and
``dilation`` are pairs ``(h, w)``; ``padding`` is such a pair, for both sides each, or
``(top, left, bottom, right)``.  Flags are True or False.

Every operation is a pair of functions, ``{op}_forward`` and ``{op}_backward``.  They keep no state and
change none of their arguments; the exceptions are the running statistics of batch norm, and the arrays
that an optimizer step updates.  A wrong shape, dtype or value raises ``ValueError`` with the same words
on every backend (`minicnn.shapes` has them).  Empty batches are allowed.

Ties and values that are not finite: the gradient of ReLU at 0 is 0.  If several cells of a max-pool's
window are equal, the first one wins, row by row.  Padding never wins.  If several are NaN, the last one
wins.  The output of a forward pass has NaN and infinities where that of torch has them.

Denormal numbers, below 1.2e-38 in float32: operations that only select or move values keep them and compare
them exactly, as torch does.  These are relu, max_pool2d, their gradients, concat and flatten.  All others
compute, and there cpp counts denormal numbers as zero, because processors are slow with them.

bfloat16: x, y, dy, dx, a, b and residual may be bfloat16 arrays, all of a call together.  Weights, biases,
their gradients and batch norm's statistics are float32 then.  Everything is computed in float32, and
rounded to bfloat16, to nearest even, at these points:

- conv2d and dense round ``weight`` before they multiply.  Products of bfloat16 factors are exact.  They are
  summed in float32, the bias is added in float32, and y is rounded once.  Backward, dx is rounded once; dw
  and db are float32 sums and not rounded.
- batch_norm2d computes in float32 from x to y and rounds y once.  Backward it rounds dx once.
- add, dropout, the average pools, and max_pool2d's backward, which adds gradients up, round once.
- relu and its gradient, max_pool2d, concat and flatten only select or move values, which is exact.
- cast rounds, or widens, which is exact.
- A fused operation rounds where its composition does, or less often: its kernel may keep in float32 what
  lies between, and round once at the end.  So where values are equal only after rounding, its max-pool may
  choose another of them than the composition's.

Softmax, the loss, fold_batch_norm2d and the optimizers' steps take no bfloat16.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, TypeAlias

import numpy as np

from minicnn.shapes import Padding

Array: TypeAlias = Any
"""The backend's own array: ``np.ndarray`` for numpy, ``torch.Tensor`` for cpp and cuda."""

Pair: TypeAlias = tuple[int, int]


class Primitives(ABC):
    """The primitives.  A subclass that lacks one cannot be instantiated; the error names it."""

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """The name under which results are printed, with what a reader must know besides."""
        return self.name

    # ---- arrays ------------------------------------------------------------------------------

    @abstractmethod
    def asarray(self, a: np.ndarray) -> Array:
        """The backend's array for a host array.  On the CPU they share memory if possible.

        An array that is not contiguous, is read-only or has a foreign byte order is copied if necessary.
        """

    @abstractmethod
    def to_numpy(self, a: Array) -> np.ndarray:
        """The host array for a backend array.  On the CPU they share memory if possible."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for queued device work; does nothing on the CPU."""

    def multiplying(self, precision: str) -> AbstractContextManager[None]:  # noqa: ARG002 - for overriders
        """Within this context float32 factors are multiplied as float32, or on cuda as "tf32"."""
        return nullcontext()

    # ---- convolution -------------------------------------------------------------------------

    @abstractmethod
    def conv2d_forward(
        self, x: Array, weight: Array, bias: Array | None, *,
        stride: Pair, padding: Padding, dilation: Pair, groups: int,
    ) -> Array:  # fmt: skip
        """2-D cross-correlation, plus a bias.

        y[n,f,i,j] = b[f] + sum over c,u,v of x[n,c, i*sh + u*dh - ph, j*sw + v*dw - pw] * w[f,c,u,v]

        Args:    x (N,C,H,W), weight (F,C/groups,KH,KW), bias (F,) or None;
        Returns: y (N,F,OH,OW), OH = (H + 2*ph - dh*(KH-1) - 1)//sh + 1, or top + bottom for 2*ph
        Torch:   F.conv2d(x, weight, bias, stride, padding, dilation, groups), after F.pad where the
                 sides differ
        """

    @abstractmethod
    def conv2d_backward(
        self, dy: Array, x: Array, weight: Array, *,
        stride: Pair, padding: Padding, dilation: Pair, groups: int,
        need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """The gradients (dx, dw, db) of conv2d, given the gradient dy (N,F,OH,OW) of its output."""

    # ---- pooling -----------------------------------------------------------------------------

    @abstractmethod
    def max_pool2d_forward(
        self, x: Array, *, kernel_size: Pair, stride: Pair, padding: Padding, dilation: Pair,
        ceil_mode: bool, need_argmax: bool = True,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """The maximum of each window, and which cell of the window has it.

        Args:    x (N,C,H,W); padding of each side at most half the kernel
        Returns: y (N,C,OH,OW); argmax, an integer array that only this backend's backward reads
                 (a byte where the window has at most 255 cells), or None if not needed
        Torch:   F.max_pool2d, after F.pad with -inf where the sides differ
        """

    @abstractmethod
    def max_pool2d_backward(
        self, dy: Array, argmax: Array, *, input_shape: tuple[int, ...], kernel_size: Pair,
        stride: Pair, padding: Padding, dilation: Pair, ceil_mode: bool,
    ) -> Array:  # fmt: skip
        """dx (N,C,H,W): each dy is added to the cell that won its window."""

    @abstractmethod
    def avg_pool2d_forward(
        self, x: Array, *, kernel_size: Pair, stride: Pair, padding: Padding, ceil_mode: bool,
        count_include_pad: bool,
    ) -> Array:  # fmt: skip
        """The mean of each window, (N,C,OH,OW); padding of each side at most half the kernel.

        Torch: F.avg_pool2d, after F.pad where the sides differ
        """

    @abstractmethod
    def avg_pool2d_backward(
        self, dy: Array, *, input_shape: tuple[int, ...], kernel_size: Pair, stride: Pair,
        padding: Padding, ceil_mode: bool, count_include_pad: bool,
    ) -> Array:  # fmt: skip
        """dx (N,C,H,W): each dy is spread evenly over its window."""

    @abstractmethod
    def adaptive_avg_pool2d_forward(self, x: Array, *, output_size: Pair) -> Array:
        """The means of OH*OW regions that cover x evenly.  Torch: F.adaptive_avg_pool2d."""

    @abstractmethod
    def adaptive_avg_pool2d_backward(self, dy: Array, *, input_shape: tuple[int, ...]) -> Array:
        """dx (N,C,H,W); the output size is dy's."""

    # ---- activations, dense, normalisation -----------------------------------------------------

    @abstractmethod
    def relu_forward(self, x: Array) -> Array:
        """max(x, 0) for an array of any shape; NaN stays NaN.  Torch: F.relu."""

    @abstractmethod
    def relu_backward(self, dy: Array, y: Array) -> Array:
        """dx = 0 where y <= 0, and dy elsewhere; y is the output of relu_forward, or its input."""

    @abstractmethod
    def relu6_forward(self, x: Array) -> Array:
        """min(max(x, 0), 6) for an array of any shape; NaN stays NaN.  Torch: F.relu6."""

    @abstractmethod
    def relu6_backward(self, dy: Array, y: Array) -> Array:
        """dx = 0 where y <= 0 or y >= 6, and dy elsewhere; y is relu6_forward's output, or its input."""

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
        """Normalise each channel over N, H and W, then scale and shift it.

        In training this uses the mean and the biased variance of the batch.  It also moves the running
        statistics, in place, by ``momentum`` towards the batch's mean and unbiased variance.  In
        evaluation it uses the running statistics.

        Args:    x (N,C,H,W); weight, bias, running_mean, running_var (C,) or None
        Returns: y (N,C,H,W), mean (C,), invstd (C,) = 1/sqrt(var + eps), as used
        Torch:   F.batch_norm.  Source: Ioffe and Szegedy 2015, arXiv:1502.03167
        """

    @abstractmethod
    def batch_norm2d_backward(
        self, dy: Array, x: Array, weight: Array | None, mean: Array, invstd: Array, *,
        training: bool, need_dx: bool = True, need_dw: bool = True, need_db: bool = True,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """The gradients (dx, dw, db); dw and db are None if weight is None."""

    @abstractmethod
    def fold_batch_norm2d(
        self, weight: Array, bias: Array | None, gamma: Array | None, beta: Array | None,
        running_mean: Array, running_var: Array, *, eps: float,
    ) -> tuple[Array, Array]:  # fmt: skip
        """The convolution that equals a convolution followed by a batch norm in evaluation.

        weight'[f] = weight[f] * s[f],  bias'[f] = (bias[f] - running_mean[f]) * s[f] + beta[f]
        with s = gamma / sqrt(running_var + eps).  None stands for a gamma of 1, a beta or bias of 0.

        Args:    weight (F,C/groups,KH,KW), bias (F,) or None: the convolution's;
                 gamma, beta (F,) or None, running_mean, running_var (F,): the batch norm's
        Returns: weight (F,C/groups,KH,KW), bias (F,), both new
        Torch:   torch.nn.utils.fusion.fuse_conv_bn_weights
        """

    @abstractmethod
    def dropout_forward(self, x: Array, keep_mask: Array, *, p: float) -> Array:
        """x / (1-p) where keep_mask is true, and 0 elsewhere.

        keep_mask is a bool array of x's shape.  It is drawn on the host.
        """

    @abstractmethod
    def dropout_backward(self, dy: Array, keep_mask: Array, *, p: float) -> Array:
        """dy / (1-p) where keep_mask is true, and 0 elsewhere."""

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
        ignore_index: int = -100, reduction: str = "mean",
    ) -> tuple[Array, Array]:  # fmt: skip
        """The cross-entropy of softmax(logits): the mean over the batch, the sum, or each row's.

        A row whose label is ``ignore_index`` has the loss 0, and does not count in the mean.  With
        probabilities ``ignore_index`` has no effect and must be negative.

        Args:    logits (N,K); labels int64 (N,) or probabilities (N,K); class_weight (K,) or None;
                 reduction "mean", "sum" or "none"
        Returns: loss, a 0-d array, or (N,) with "none"; probs (N,K) for backward
        Torch:   F.cross_entropy.  Its weighted mean divides by the sum of the labels' weights if
                 labels are classes, and by N if they are probabilities
        """

    @abstractmethod
    def softmax_cross_entropy_backward(
        self, probs: Array, labels: Array, *,
        label_smoothing: float = 0.0, class_weight: Array | None = None,
        ignore_index: int = -100, reduction: str = "mean",
    ) -> Array:  # fmt: skip
        """dlogits (N,K) of the loss; with reduction="none" row n is the gradient of loss n."""

    # ---- joining and reshaping -----------------------------------------------------------------

    @abstractmethod
    def add_forward(self, a: Array, b: Array) -> Array:
        """a + b, of equal shapes."""

    @abstractmethod
    def add_backward(self, dy: Array) -> tuple[Array, Array]:
        """(dy, dy)."""

    @abstractmethod
    def concat_forward(self, xs: Sequence[Array]) -> Array:
        """Join arrays (N,C_i,H,W) along axis 1.  Torch: torch.cat(xs, 1)."""

    @abstractmethod
    def concat_backward(self, dy: Array, *, sizes: Sequence[int]) -> list[Array]:
        """dy cut along axis 1 into pieces of ``sizes`` channels."""

    @abstractmethod
    def flatten_forward(self, x: Array) -> Array:
        """(N,C,H,W) -> (N,C*H*W) in logical order.  Torch: x.flatten(1)."""

    @abstractmethod
    def flatten_backward(self, dy: Array, *, input_shape: tuple[int, ...]) -> Array:
        """dy in the input's shape."""

    # ---- precision -----------------------------------------------------------------------------

    @abstractmethod
    def cast_forward(self, x: Array, *, dtype: str) -> Array:
        """x, float32 or bfloat16 and of any shape, in the other dtype; x itself where it has it.

        Args: dtype "float32" or "bfloat16"
        Torch: x.to(dtype)
        """

    @abstractmethod
    def cast_backward(self, dy: Array, *, input_dtype: str) -> Array:
        """dx: the gradient cast the other way, to the dtype of the forward's x."""

    # ---- batches -------------------------------------------------------------------------------

    @abstractmethod
    def make_batch(
        self, images: Array, rows: np.ndarray, table: np.ndarray, mean: np.ndarray, std: np.ndarray, *,
        dtype: str = "float32",
    ) -> Array:  # fmt: skip
        """A batch of a dataset's images, changed as a table says, and normalised.

        Each row of the table is what is done to one image; `minicnn.ops.make_batch` describes its fields
        and their order.  The host draws them, so rows, table, mean and std are NumPy arrays on every
        backend.  All backends give the same bits.

        Args:    images uint8 (M,C,H,W) in any memory order, where the CPU computes also a NumPy array,
                 which is read in place; rows int64 (B,), numbers of images; table (B,) of dtype
                 `BATCH_ROW`; mean, std float64 (C,) of pixels in [0, 1]; dtype "float32", "float64"
                 or "bfloat16"
        Returns: (B,C,H,W) of ``dtype``; in bfloat16 the float32 batch, rounded once
        """

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
