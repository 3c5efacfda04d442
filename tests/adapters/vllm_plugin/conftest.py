"""Imports vLLM once, with the warnings of others muted: warnings are errors for our own code."""

import warnings
from collections.abc import Iterator

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import vllm.lora.layers
    import vllm.lora.punica_wrapper.punica_cpu
    import vllm.lora.worker_manager  # noqa: F401


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The matrices are tiny: on a busy machine two threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
