import copy

import pytest
import torch
from tiny_lm import make_tiny

from rlhf_core.errors import TrainingError
from rlhf_core.lm.adapted_head import AdaptedHead
from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.precision import computes_again
from rlhf_core.lm.recompute import recompute_activations
from rlhf_core.records import Prompt

PROMPTS = [Prompt(text="the senate approved the tram line on Monday")] * 4


def kept_and_gradients(model, loss):
    """Bytes that the backward pass keeps, and the gradients of `loss()`."""
    seen = {}

    def pack(tensor):
        seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    value.backward()
    return sum(seen.values()), {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}


def test_the_same_gradients_from_less_memory():
    lm = make_tiny(layers=4)
    ids, mask = lm.encode(PROMPTS)

    def loss():
        return sequence_logprobs(lm.model, ids, mask, 3)[0].sum()

    answers = lm.rollout(PROMPTS, seeds=[1, 2, 3, 4]).tokens
    kept, gradients = kept_and_gradients(lm.model, loss)
    copied = copy.deepcopy(lm.model)
    recompute_activations(lm.model)
    assert computes_again(lm.model)
    assert not computes_again(copied)
    less, again = kept_and_gradients(lm.model, loss)
    assert less < 0.6 * kept
    assert gradients.keys() == again.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-5)
    assert torch.equal(lm.rollout(PROMPTS, seeds=[1, 2, 3, 4]).tokens, answers), "sampling keeps its cache"


def test_a_copy_computes_with_its_own_weights():
    lm = make_tiny()
    recompute_activations(lm.model)
    copied = copy.deepcopy(lm.model)
    ids, mask = lm.encode(PROMPTS)
    before = sequence_logprobs(lm.model, ids, mask, 3)[0]
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(1.5)
    assert not torch.allclose(sequence_logprobs(copied, ids, mask, 3)[0], before)


def test_it_recomputes_with_the_adapters_that_were_worn(tmp_path):
    """The backward pass comes when the base wears the policy's adapters again."""
    make_tiny().save(tmp_path)
    options = {"max_prompt_tokens": 48, "max_new_tokens": 12, "lora": Lora(r=2), "dtype": "float32"}
    found = []
    for recompute in (False, True):
        lm = LanguageModel.from_pretrained(tmp_path, **options)
        head = AdaptedHead.on(lm).eval()
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in head.parameters():
                weight.copy_(torch.randn(weight.shape, generator=random) / 5)
        if recompute:
            recompute_activations(lm.model)
        _, gradients = kept_and_gradients(head, lambda lm=lm, head=head: head(*lm.encode(PROMPTS)).square().sum())
        found.append(gradients)
        assert not any(w.grad is not None for n, w in lm.model.named_parameters() if ".default." in n)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_in_fewer_bits_than_the_weights_are_kept_in():
    """What is computed again must be computed in the same number format."""
    found = []
    for recompute in (False, True):
        lm = make_tiny()
        lm.compute_dtype = torch.bfloat16
        if recompute:
            recompute_activations(lm.model)
        ids, mask = lm.encode(PROMPTS)
        with lm.autocast():
            loss = sequence_logprobs(lm.model, ids, mask, 3)[0].sum()
        loss.backward()
        found.append(torch.cat([weight.grad.flatten() for weight in lm.model.parameters()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999


def test_a_model_without_layers_to_recompute():
    with pytest.raises(TrainingError, match="no layers that can be computed again"):
        recompute_activations(torch.nn.Linear(2, 2))
