"""Batch norm over processes: the batch norm of all their rows."""

import torch
from torch import nn

from tubelet.vjepa import batch_norm
from tubelet.vjepa.batch_norm import BatchNormOverProcesses, over_processes


def two_alike(monkeypatch):
    """As if a second process held the same rows."""
    monkeypatch.setattr(batch_norm, "world_size", lambda: 2)
    monkeypatch.setattr(batch_norm, "sum_over_ranks", lambda x: 2 * x)
    monkeypatch.setattr(batch_norm, "samples_over_ranks", lambda x: 2 * len(x))
    monkeypatch.setattr(batch_norm, "mean_over_samples", lambda x, n: 2 * x.sum(0) / n)


def test_outputs_and_running_statistics_are_those_of_all_rows(monkeypatch):
    torch.manual_seed(0)
    plain = nn.BatchNorm1d(4)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    model = nn.Sequential(nn.BatchNorm1d(4))
    model[0].load_state_dict(plain.state_dict())
    over_processes(model)
    two_alike(monkeypatch)
    for _ in range(3):
        x = 3 + 2 * torch.randn(6, 4)
        assert torch.allclose(model(x), plain(torch.cat([x, x]))[:6], atol=1e-6)
    for name, value in plain.state_dict().items():
        assert torch.allclose(model[0].state_dict()[name], value, atol=1e-6), name
    model.eval()
    plain.eval()
    assert torch.allclose(model(x), plain(x), atol=1e-5)


def test_one_process_and_other_modules_are_left_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    names = list(model.state_dict())
    over_processes(model)
    assert [type(m) for m in model] == [nn.Linear, BatchNormOverProcesses, nn.LayerNorm]
    assert list(model.state_dict()) == names
    x = torch.randn(5, 4)
    assert torch.equal(model[1](x), nn.BatchNorm1d(4)(x))


def test_half_precision_comes_back_as_it_went_in(monkeypatch):
    two_alike(monkeypatch)
    model = nn.Sequential(nn.BatchNorm1d(4))
    over_processes(model)
    assert model(torch.randn(5, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
