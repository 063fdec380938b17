"""The kernels of batch norm, ReLU and dropout come to what torch does, and compile, without a GPU."""

import os
import subprocess
import sys

import pytest

ORACLE = """
import torch, torch.nn.functional as F
from scipy.stats import chi2
from mowst.kernels import choosing, norm_passes, normed
from mowst.kernels.normed import Settings, Tracked, dropping, one_pass

# the result, its gradients and what is remembered, beside float64
for rows, width, dtype, p, affine, middle in [
    (37, 150, torch.float32, 0.5, (True, True), 0.0), (90, 20, torch.float32, 0.0, (True, True), 1e4),
    (40, 300, torch.bfloat16, 0.3, (True, True), 2.0), (513, 1, torch.float32, 0.9, (False, False), 0.0),
    (2, 3, torch.float32, 0.0, (True, False), 0.0), (2600, 16, torch.float32, 0.2, (False, True), 1e3),
]:
    torch.manual_seed(0)
    wide = (torch.randn(rows, width + 3) * 3 + middle).to(dtype)
    gradient = torch.randn(rows, width).to(dtype)
    x, weight, bias = wide[:, :width], *(torch.randn(width) if there else None for there in affine)
    double, running = torch.nn.BatchNorm1d(width).double(), (torch.randn(width), torch.rand(width))
    double.running_mean.copy_(running[0]), double.running_var.copy_(running[1])
    double(x.double())
    for each in (x, x.t().contiguous().t(), x.contiguous())[: 3 if rows == 37 else 1]:
        given = [None if one is None else one.detach().requires_grad_() for one in (each, weight, bias)]
        remembered = [one.clone() for one in running]
        settings = Settings(1e-5, Tracked(*remembered, 0.1), dropping(p, x.device))
        out, moments = one_pass(*given, norm_passes, settings)
        found = [out.detach(), *torch.autograd.grad(out, [one for one in given if one is not None], gradient)]
        exact = [None if one is None else one.detach().double().requires_grad_() for one in given]
        normal = F.batch_norm(exact[0], None, None, *exact[1:], True)
        told = normal * (out > 0) / (1 - round(p * 2**16) / 2**16)
        asked = [one for one in exact if one is not None]
        wanted = [told.detach(), *torch.autograd.grad(told, asked, gradient.double())]
        torch.testing.assert_close(remembered[0].double(), double.running_mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(remembered[1].double(), double.running_var, rtol=1e-5, atol=1e-6)
        assert out.dtype == dtype and found[1].dtype == dtype and found[1].shape == (rows, width)
        for one, other in zip(found, wanted):
            bound = 1e-2 if dtype == torch.bfloat16 else max(2e-6, 1e-7 * middle)
            assert rows == 2 or choosing.apart(one, other) <= bound, (rows, width, choosing.apart(one, other))
            torch.testing.assert_close(one.double(), other, rtol=0.05, atol=float(other.abs().max()) * bound + 1e-4)
        kept, positive = int(((out > 0) & (normal > 0)).sum()), int((normal > 0).sum())
        assert abs(kept - (1 - p) * positive) <= 5 * (p * (1 - p) * positive) ** 0.5 + 1e-3 * positive
        again = norm_passes.forth(*given, settings._replace(tracked=None))
        assert torch.equal(again[0], out) and torch.equal(again[1], moments)
        if rows == 37:  # of several programs
            assert torch.equal(norm_passes.back(gradient, each, (weight, bias), moments, settings)[0], found[1])

# what is no number stays seen
x = torch.randn(40, 3)
x[7, 1] = torch.nan
out, _ = norm_passes.forth(x, None, None, Settings(1e-5))
assert out[:, 1].isnan().all() and not out[:, [0, 2]].isnan().any()

# a gradient that is one number, and rows further apart than 2^31 entries
x = torch.randn(50, 4, requires_grad=True)
one_pass(x, None, None, norm_passes, Settings(1e-5))[0].sum().backward()
(wanted,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True).relu().sum(), x)
torch.testing.assert_close(x.grad, wanted, atol=1e-5, rtol=1e-4)
space = torch.empty(3 * 2**30 + 8, dtype=torch.bfloat16)  # of which a few pages are touched
far = space.as_strided((4, 3), (2**30, 1)).copy_(x[:4, :3].detach())
out, moments = norm_passes.forth(far, None, None, Settings(1e-5))
near = norm_passes.forth(far.clone(), None, None, Settings(1e-5))
assert torch.equal(out, near[0]) and torch.equal(moments, near[1])
back = [norm_passes.back(each, each, (None, None), moments, Settings(1e-5))[0] for each in (far, far.clone())]
assert torch.equal(*back)

norm_passes.LANES = 2**14  # fewer programs
# masks: fixed by the seed, another one at each call, fair, and independent of what is beside them
ones, plus, p = torch.zeros(1024, 66), torch.ones(66), 0.3
def mask():
    return norm_passes.forth(ones, None, plus, Settings(1e-5, None, dropping(p, ones.device)))[0] > 0
torch.manual_seed(1)
first, second = mask(), mask()
torch.manual_seed(1)
assert torch.equal(mask(), first) and not torch.equal(first, second)
def fair(table, expected, freedom):
    assert float(((table - expected).square() / expected).sum()) < chi2.ppf(1 - 1e-4, freedom)
share = torch.tensor([p, 1 - p])
for one, other in [(first, second), (first[:, :-1], first[:, 1:]), (first[:, ::2], first[:, 1::2])] + [
    (first[:-lag], first[lag:]) for lag in (1, 2, 3, 4, 7, 8, 16, 64)
]:
    table = torch.bincount((2 * one.long() + other).flatten(), minlength=4).view(2, 2)
    fair(table, one.numel() * share[:, None] * share, 3)
for sums, of in ((first.sum(0), 1024), (first.sum(1), 66)):  # of columns, of rows
    assert float((sums - of * (1 - p)).square().sum() / (of * p * (1 - p))) < chi2.ppf(1 - 1e-4, len(sums))

# what decides whether it pays says that it comes to the same
normed.milliseconds = lambda way: 1.0 if way.__name__ == "own" else 9.0
for dtype in (torch.float32, torch.bfloat16):
    for p in (0.0, 0.5):
        norm = torch.nn.BatchNorm1d(20)
        torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
        x = torch.randn(600, 20).to(dtype)
        assert normed._pays(norm_passes, norm, x, p), (dtype, p)
print("as wanted")
"""

COMPILED = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from mowst.kernels import norm_kernels as kernels, row_products

numbers = {"GROUPS": 4, "BLOCK": 16, "STEP": 2, "PARTS": 16}
pointers = "x gradient out parts moments sums weight bias running_mean running_var value".split()
types = dict.fromkeys(pointers, "*fp32") | {"seed": "*i64", "start": "*i32", "column": "*i32"}
types |= dict.fromkeys(["eps", "factor", "grow"], "fp32")
both = [kernels.moments_of, kernels.merged, kernels.forth_of, kernels.back_of, row_products._kernel]
for kernel, adds in [*((each, True) for each in both), (kernels.back_of, False)]:
    names = kernel.arg_names
    constants = {name: adds if name == "ADDS" else numbers.get(name, True) for name in names if name.isupper()}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    source = ASTSource(kernel, signature, constexprs={(names.index(name),): it for name, it in constants.items()})
    assert ".entry" in compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
print("as wanted")
"""


@pytest.mark.parametrize(("program", "own"), [(ORACLE, {"TRITON_INTERPRET": "1"}), (COMPILED, {})])
def test_the_kernels_come_to_what_torch_does_in_float64_and_compile_for_a_gpu(program, own, tmp_path):
    """By Triton's interpreter, which runs on a CPU; and by its compiler, which needs no GPU."""
    pytest.importorskip("triton", reason="triton is not installed")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)} | own
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert found.stdout.strip() == "as wanted", found.stderr
