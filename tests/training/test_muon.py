"""Muon, by the singular values of its updates and against PyTorch's own."""

import pytest
import torch
from torch import nn

from trainer.training.muon import Muon, orthogonal, suits


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16), (1, 9), (64, 576)])
def test_the_orthogonal_factor_has_the_singular_vectors_of_the_matrix_and_values_near_1(
    shape, dtype, tolerance
):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    [factor] = orthogonal([matrix], dtype)
    assert factor.dtype == torch.float32
    found = left.T @ factor @ right.T  # diagonal in the matrix's own singular vectors
    values = found.diagonal()
    assert 0.5 < values.min() <= values.max() < 1.5
    assert (found - torch.diag(values)).abs().max() < tolerance


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_update_of_a_matrix_of_low_rank_does_not_grow(rank, dtype):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(128, rank, generator=generator) @ torch.randn(rank, 1152, generator=generator)
    [factor] = orthogonal([matrix], dtype)
    assert torch.linalg.matrix_norm(factor, 2) < 1.5


def test_the_scale_of_a_matrix_does_not_matter_and_nothing_comes_of_zero():
    matrix = torch.randn(8, 72, generator=torch.Generator().manual_seed(0))
    small, large, nothing = orthogonal([matrix, matrix * 1e4, torch.zeros(8, 72)])
    torch.testing.assert_close(large, small, atol=1e-3, rtol=1e-3)
    assert not nothing.any()


def test_matrices_of_many_shapes_keep_their_order_and_do_not_change_each_other():
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(*shape, generator=generator) for shape in [(8, 72), (16, 8), (4, 36), (8, 9)]]
    for together, alone in zip(orthogonal(matrices), (orthogonal([m])[0] for m in matrices), strict=True):
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_step_is_that_of_pytorch_on_the_filters_as_matrices():
    generator = torch.Generator().manual_seed(0)
    filters = nn.Parameter(torch.randn(16, 8, 3, 3, generator=generator))
    matrix = nn.Parameter(filters.detach().flatten(1).clone())
    ours = Muon([filters], lr=0.02, momentum=0.9, weight_decay=0.1)
    theirs = torch.optim.Muon(
        [matrix], lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        filters.grad = torch.randn(16, 8, 3, 3, generator=generator)
        matrix.grad = filters.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    # PyTorch iterates in bfloat16.
    torch.testing.assert_close(filters.detach().flatten(1), matrix.detach(), atol=2e-3, rtol=0)


def test_filters_over_an_image_heads_and_norms_are_not_for_muon():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Linear(8, 7))
    assert [name for name, parameter in network.named_parameters() if suits(parameter)] == ["2.weight"]
    assert not suits(nn.Conv2d(3, 64, 7).weight)


def test_a_parameter_without_a_gradient_stays_and_a_closure_is_called():
    still, moved = nn.Parameter(torch.ones(4, 4, 3, 3)), nn.Parameter(torch.ones(4, 4, 3, 3))

    def closure():
        loss = moved.square().sum()
        loss.backward()
        return loss

    assert Muon([still, moved], lr=0.1).step(closure) == 144
    assert (still == 1).all()
    assert not (moved == 1).any()
