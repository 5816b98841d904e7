"""Where to train is checked at the start."""

import pytest
import torch

from config import InputError
from tuning.training import check_accelerator, device_name


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    check_accelerator("cpu")
    check_accelerator("auto")
    with pytest.raises(InputError, match="--accelerator is 'gpu' and this machine shows none"):
        check_accelerator("gpu")


def test_what_is_computed_on_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device_name("auto") == "1 CPU thread"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert device_name("auto") == "2 CPU threads"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert device_name("auto") == device_name("gpu") == "NVIDIA H100"
    assert device_name("cpu") == "2 CPU threads"
