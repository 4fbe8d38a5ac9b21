"""What each operation means, in plain loops: slow, without checks, and short enough to read at once.

Names, arguments and results are those of the contract.  Where an argument is missing, such as the class
weights of the loss, the definition is of the usual case.  The tests compare these with the operations, and
the site shows them.
"""

from minicnn.testing.definitions.batches import make_batch as make_batch
from minicnn.testing.definitions.optimizers import adam_step as adam_step
from minicnn.testing.definitions.optimizers import global_norm as global_norm
from minicnn.testing.definitions.optimizers import sgd_step as sgd_step
from minicnn.testing.definitions.pools import adaptive_avg_pool2d_backward as adaptive_avg_pool2d_backward
from minicnn.testing.definitions.pools import adaptive_avg_pool2d_forward as adaptive_avg_pool2d_forward
from minicnn.testing.definitions.pools import avg_pool2d_backward as avg_pool2d_backward
from minicnn.testing.definitions.pools import avg_pool2d_forward as avg_pool2d_forward
from minicnn.testing.definitions.pools import max_pool2d_backward as max_pool2d_backward
from minicnn.testing.definitions.pools import max_pool2d_forward as max_pool2d_forward
from minicnn.testing.definitions.values import add_backward as add_backward
from minicnn.testing.definitions.values import add_forward as add_forward
from minicnn.testing.definitions.values import cast_backward as cast_backward
from minicnn.testing.definitions.values import cast_forward as cast_forward
from minicnn.testing.definitions.values import concat_backward as concat_backward
from minicnn.testing.definitions.values import concat_forward as concat_forward
from minicnn.testing.definitions.values import dropout_backward as dropout_backward
from minicnn.testing.definitions.values import dropout_forward as dropout_forward
from minicnn.testing.definitions.values import flatten_backward as flatten_backward
from minicnn.testing.definitions.values import flatten_forward as flatten_forward
from minicnn.testing.definitions.values import relu6_backward as relu6_backward
from minicnn.testing.definitions.values import relu6_forward as relu6_forward
from minicnn.testing.definitions.values import relu_backward as relu_backward
from minicnn.testing.definitions.values import relu_forward as relu_forward
from minicnn.testing.definitions.values import softmax_backward as softmax_backward
from minicnn.testing.definitions.values import (
    softmax_cross_entropy_backward as softmax_cross_entropy_backward,
)
from minicnn.testing.definitions.values import (
    softmax_cross_entropy_forward as softmax_cross_entropy_forward,
)
from minicnn.testing.definitions.values import softmax_forward as softmax_forward
from minicnn.testing.definitions.weights import batch_norm2d_backward as batch_norm2d_backward
from minicnn.testing.definitions.weights import batch_norm2d_forward as batch_norm2d_forward
from minicnn.testing.definitions.weights import conv2d_backward as conv2d_backward
from minicnn.testing.definitions.weights import conv2d_forward as conv2d_forward
from minicnn.testing.definitions.weights import dense_backward as dense_backward
from minicnn.testing.definitions.weights import dense_forward as dense_forward
from minicnn.testing.definitions.weights import fold_batch_norm2d as fold_batch_norm2d
from minicnn.testing.definitions.weights import window as window
