"""What every operation needs a test of: values, gradients, torch's own checks, compiling, refusals."""

import pytest
import torch
import torch.nn.functional as F
from my_extension import hard_swish

LAYOUTS = {
    "dense": lambda x: x,
    "channels-last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "empty": lambda x: x[:0],
}


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Values on all three pieces of the function, none near a kink."""
    x = 8 * torch.rand(2, 3, 5, 7, dtype=dtype, generator=torch.Generator().manual_seed(0)) - 4
    return torch.where((x.abs() - 3).abs() < 0.01, x + 0.1, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_values_and_gradients_are_torchs(layout: str, dtype: torch.dtype) -> None:
    x = LAYOUTS[layout](images(dtype)).detach()
    results = []
    for function in (hard_swish, F.hardswish):
        given = x.clone().requires_grad_()
        y = function(given)
        dy = torch.linspace(-1, 1, y.numel(), dtype=dtype).reshape(y.shape)
        results.append((y.detach(), *torch.autograd.grad(y, given, dy)))
    torch.testing.assert_close(*results)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(hard_swish, images().requires_grad_())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: str) -> None:
    x = LAYOUTS[layout](images()).detach().requires_grad_()
    assert {*torch.library.opcheck(torch.ops.my_extension.hard_swish.default, (x,)).values()} == {"SUCCESS"}


def test_compiled_results_are_the_same() -> None:
    """opcheck does not notice a wrong memory order of a result; Inductor does."""
    compiled = torch.compile(lambda x: hard_swish(2 * x) + 1, fullgraph=True)
    for layout in ("dense", "channels-last"):
        x = LAYOUTS[layout](images())
        torch.testing.assert_close(compiled(x), hard_swish(2 * x) + 1)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[hard_swish\] x: expected dtype float32 or float64, got Half"):
        hard_swish(torch.zeros(2, dtype=torch.float16))


@pytest.mark.parametrize(
    ("dy", "message"),
    [
        (torch.zeros(3), r"shape \[2\], got \[3\]"),
        (torch.zeros(2, dtype=torch.float64), "dtype Float, got Double"),
    ],
    ids=["shape", "dtype"],
)
def test_another_upstream_gradient_is_refused(dy: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[hard_swish_backward\] dy: expected {message}"):
        torch.ops.my_extension.hard_swish_backward(dy, torch.zeros(2))
