"""Where to train is checked at the start."""

import pytest
import torch

from config import InputError
from tuning.training import check_accelerator


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    check_accelerator("cpu")
    check_accelerator("auto")
    with pytest.raises(InputError, match="--accelerator is 'gpu' and this machine shows none"):
        check_accelerator("gpu")
