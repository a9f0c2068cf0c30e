"""The product under aten::mm against float64, in every layout autograd and models use."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tanzim.models.kernels import matmul


@pytest.mark.parametrize("shape", [(1, 7, 5), (33, 64, 17), (300, 16, 8), (0, 3, 4), (3, 0, 4), (3, 4, 0)])
@pytest.mark.parametrize("layout", ["NN", "NT", "TN", "TT", "slice", "broadcast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_numpy(shape, layout, dtype):
    rows, inner, columns = shape
    torch.manual_seed(0)
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    if layout[0] == "T":
        left = left.t().contiguous().t()
    if layout in ("NT", "TT"):
        right = right.t().contiguous().t()
    if layout == "slice":
        left = torch.cat([left, left], 1)[:, :inner]
        right = torch.cat([right, right], 1)[:, :columns]
    if layout == "broadcast":
        left = torch.ones(1, 1, dtype=dtype).expand(rows, inner)
    want = left.double().numpy() @ right.double().numpy()
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 0.1}[dtype]
    got = matmul.product(left, right)
    assert got.dtype == dtype
    np.testing.assert_allclose(got.double().numpy(), want, rtol=tolerance, atol=tolerance)


def test_shapes_that_do_not_fit_are_refused_as_torch_does():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        matmul.product(torch.ones(2, 3), torch.ones(2, 3))


def test_registered_product_serves_linear_layers_and_their_gradients():
    matmul.register()
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 20, bias=False)
    x = torch.randn(2, 30, 12, requires_grad=True)
    layer(x).square().sum().backward()
    wide, y = layer.weight.detach().double(), x.detach().double()
    grad = 2 * (y @ wide.t())
    torch.testing.assert_close(x.grad.double(), grad @ wide, rtol=1e-5, atol=1e-5)
    want = grad.flatten(0, 1).t() @ y.flatten(0, 1)
    torch.testing.assert_close(layer.weight.grad.double(), want, rtol=1e-5, atol=1e-4)


LAYOUTS = """
import torch
from tanzim.models.kernels.matmul import product
wide, x = torch.randn(64, 192), torch.randn(32, 200)
product(x[:, :80], wide[:, :80].t())                      # slices of columns, as in VeRA
product(torch.randn(32, 64), wide[:, :80])
product(torch.randn(32, 64), torch.randn(80, 64).t())
product(x[:, :64].t(), torch.randn(32, 16))               # a gradient
product(torch.ones(1, 1).expand(32, 64), torch.randn(64, 16))
"""


def test_no_layout_falls_back_to_plain_loops():
    """oneDNN names the kernel of each product: its reference ones are a thousand times slower."""
    environment = os.environ | {"ONEDNN_VERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LAYOUTS], env=environment, capture_output=True, text=True, check=True
    )
    kernels = [line.split(",")[7] for line in done.stdout.splitlines() if ",exec,cpu,inner_product," in line]
    assert len(kernels) == 5
    assert not [kernel for kernel in kernels if kernel.startswith("ref")]
