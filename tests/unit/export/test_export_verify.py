"""The comparison itself: equal models pass, a perturbed tensor or answer is named."""

import copy

import pytest
import torch
from transformers import LlamaForCausalLM

from tanzim.core.errors import DriftError
from tanzim.core.records import Message
from tanzim.export.config import ExportConfig
from tanzim.export.verify import compare, compare_answers, observer

PROMPTS = [[1, 5, 9, 40, 7], [1, 77, 78], [1, *range(30, 130)]]
CONFIG = ExportConfig(prompts=3, new_tokens=12)


def spell(ids: list[int]) -> str:
    return " ".join(map(str, ids))


def watch(model: LlamaForCausalLM, new_tokens: int = 12):
    return observer(model, stop_ids=[2], new_tokens=new_tokens)


def test_greedy_text_equals_generate_and_logprobs_equal_one_forward_pass(tiny_model) -> None:
    for prompt in PROMPTS:
        seen = watch(tiny_model)(prompt)
        ids = torch.tensor([prompt])
        made = tiny_model.generate(
            ids, max_new_tokens=12, do_sample=False, attention_mask=torch.ones_like(ids)
        )
        assert list(seen.ids) == made[0, len(prompt) :].tolist()
        whole = [*prompt, *seen.ids[:-1]]
        with torch.no_grad():
            logits = tiny_model(torch.tensor([whole])).logits[0]
        expected = logits.log_softmax(-1)[-len(seen.logprobs_TV) :]
        torch.testing.assert_close(seen.logprobs_TV, expected, rtol=0, atol=1e-5)
        assert len(seen.logprobs_TV) == min(len(prompt), 64) + len(seen.ids) - 1


def test_stops_at_a_stop_token(tiny_model) -> None:
    first = watch(tiny_model)(PROMPTS[0]).ids
    stopped = observer(tiny_model, stop_ids=[first[2]], new_tokens=12)(PROMPTS[0])
    assert stopped.ids == first[: list(first).index(first[2]) + 1]


def test_equal_models_are_equal(tiny_model) -> None:
    parity = compare(
        watch(tiny_model),
        watch(copy.deepcopy(tiny_model)),
        PROMPTS,
        config=CONFIG,
        form="merged",
        decode=spell,
    )
    assert (parity.max_logprob_difference, parity.top1_agreement) == (0.0, 1.0)
    assert (parity.prompts, parity.texts_equal) == (3, 3)
    assert parity.positions >= 5 + 3 + 64


@pytest.mark.parametrize("amount", [0.02, 1.0])
def test_a_perturbed_tensor_is_drift_with_its_prompt_and_numbers(tiny_model, amount: float) -> None:
    other = copy.deepcopy(tiny_model)
    other.model.layers[1].mlp.down_proj.weight.data[3] += amount
    ours, theirs = (
        m(torch.tensor([PROMPTS[0]])).logits.log_softmax(-1).detach() for m in (tiny_model, other)
    )
    assert (ours - theirs).abs().max() > CONFIG.tolerance
    with pytest.raises(DriftError, match=r"differ by up to .* \(tolerance 0.002\)") as caught:
        compare(watch(tiny_model), watch(other), PROMPTS, config=CONFIG, form="merged", decode=spell)
    assert "prompt 1 of 3: '1 5 9 40 7'" in str(caught.value)


def test_a_nan_is_drift(tiny_model) -> None:
    other = copy.deepcopy(tiny_model)
    other.lm_head.weight.data[:] = float("nan")
    with pytest.raises(DriftError, match="nan"):
        compare(watch(tiny_model), watch(other), PROMPTS, config=CONFIG, form="merged", decode=spell)


def test_another_text_is_drift_even_within_tolerance(tiny_model) -> None:
    other = copy.deepcopy(tiny_model)
    other.model.layers[0].mlp.down_proj.weight.data *= 1.3
    loose = ExportConfig(prompts=3, new_tokens=12, tolerance=1e6)
    with pytest.raises(DriftError, match=r"greedy text is .* instead of"):
        compare(watch(tiny_model), watch(other), PROMPTS, config=loose, form="merged", decode=spell)


def test_only_so_many_prompts_and_at_least_one(tiny_model) -> None:
    one = ExportConfig(prompts=1, new_tokens=2)
    same = watch(tiny_model, 2)
    assert compare(same, same, PROMPTS, config=one, form="merged", decode=spell).prompts == 1
    with pytest.raises(DriftError, match="no prompt"):
        compare(same, same, [], config=one, form="merged", decode=spell)


def test_served_answers() -> None:
    talks = [[Message("user", "hello")], [Message("user", "سلام")]]

    def echo(messages) -> str:
        return messages[-1].content.upper()

    assert compare_answers(echo, echo, talks, prompts=8, form="served").texts_equal == 2

    def changed(messages) -> str:
        return echo(messages) + ("!" if messages[-1].content == "سلام" else "")

    with pytest.raises(
        DriftError, match=r"served form answers otherwise.*'سلام!' instead of 'سلام'"
    ) as caught:
        compare_answers(echo, changed, talks, prompts=8, form="served")
    assert "prompt 2 of 2" in str(caught.value)
    assert compare_answers(echo, changed, talks, prompts=1, form="served").prompts == 1
