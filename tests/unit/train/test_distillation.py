"""Distillation against torch's kl_div over full logits, and runs of the engine with a teacher."""

import pytest
import torch
from tiny_train import documents, fit, lines, store, tiny_llama, tiny_method
from torch.nn import functional

from tanzim.core.errors import TrainError
from tanzim.train.batches import collate
from tanzim.train.objectives.config import DistillationConfig
from tanzim.train.objectives.distillation import Distillation, Teacher
from tanzim.train.objectives.language_model import Way

SOFT = {"type": "distillation", "teacher": "big", "alpha": 0.7, "temperature": 2.0}


def teacher(dtype=torch.float32, **changes):
    """A wider random model of the same vocabulary."""
    torch.manual_seed(11)
    model = tiny_llama(dtype, hidden_size=48, num_attention_heads=4, **changes)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return Teacher(model, "t" * 64)


def reference(student, big, docs, config):
    """Each document alone through both models' own forward passes, full logits in memory."""
    total = 0.0
    for document in docs:
        ids = torch.from_numpy(document.ids.astype("int64"))[None]
        weights = torch.tensor(document.weights[1:]).double()
        ours = student(input_ids=ids).logits[0, :-1]
        with torch.no_grad():
            theirs = big(input_ids=ids).logits[0, :-1]
        tau = config.temperature
        soft = functional.kl_div(
            (ours / tau).log_softmax(-1), (theirs / tau).log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)
        hard = functional.cross_entropy(ours, ids[0, 1:], reduction="none")
        total = total + ((config.alpha * tau**2 * soft + (1 - config.alpha) * hard) * weights).sum()
    return total


@pytest.mark.parametrize("own_logits", [False, True])
def test_loss_and_gradients_equal_the_formula_on_full_logits(tmp_path, own_logits):
    docs = list(store(tmp_path / "t.arrow", documents(6, weighted=True)))
    config = DistillationConfig.model_validate(SOFT)
    method, big = tiny_method(tiny_llama(torch.float64), type="lora", rank=4), teacher(torch.float64)
    objective = Distillation(method.model, config, teacher=big)
    objective.choose(docs)
    assert objective.layout == "packed"
    if own_logits:
        objective.student.way = objective.teacher.way = Way(own_logits=True, packed=True)
    parameters = list(method.parameters.values())
    with torch.no_grad():
        for name, value in method.parameters.items():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.1)
    want = reference(method.model, big.model, docs, config)
    want_grads = torch.autograd.grad(want, parameters)
    got = objective.loss_sum(collate(docs), scale=0.5)
    torch.testing.assert_close(got * 2, want, rtol=1e-8, atol=1e-10)
    for ours, theirs in zip(torch.autograd.grad(got * 2, parameters), want_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def divergence_from(big, model, docs):
    """Mean KL(teacher ‖ student) per token at temperature 1."""
    total, count = 0.0, 0
    with torch.no_grad():
        for document in docs:
            ids = torch.tensor([document.ids])
            ours, theirs = (m(input_ids=ids).logits[0].log_softmax(-1) for m in (model, big.model))
            total += float((theirs.exp() * (theirs - ours)).sum())
            count += len(document.ids)
    return total / count


def test_a_student_comes_close_to_its_teacher(tmp_path):
    # A teacher whose next token depends on the last one alone, and says nothing of the rows' own order.
    big, held_out = teacher(), documents(12, seed=4)
    with torch.no_grad():
        for layer in big.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    student = tiny_method(tiny_llama(), type="full")
    before = divergence_from(big, student.model, held_out)
    fit(
        tmp_path,
        prepared=student,
        method={"type": "full"},
        objective={**SOFT, "alpha": 1.0, "temperature": 1.0},
        teacher=big,
        epochs=6,
        eval_steps=100,
    )
    after = divergence_from(big, student.model, held_out)
    assert after < 0.5 * before


def test_the_teacher_stays_as_it_was_and_a_resumed_run_ends_bit_equal(tmp_path):
    big = teacher()
    kept = {name: value.clone() for name, value in big.model.named_parameters()}
    whole = tiny_method()
    fit(tmp_path / "whole", prepared=whole, objective=SOFT, teacher=big, max_steps=6, save_steps=3)
    for name, value in big.model.named_parameters():
        assert torch.equal(value, kept[name])
        assert value.grad is None

    class Stopped(Exception):
        pass

    def stop(line):
        if line["kind"] == "train" and line["step"] == 4:
            raise Stopped

    with pytest.raises(Stopped):
        fit(tmp_path / "cut", objective=SOFT, teacher=big, max_steps=6, save_steps=3, on_line=stop)
    resumed = tiny_method()
    fit(tmp_path / "cut", prepared=resumed, objective=SOFT, teacher=big, max_steps=6, save_steps=3)
    assert lines(tmp_path / "cut", "train") == lines(tmp_path / "whole", "train")
    for name, value in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], value)


def test_a_teacher_that_is_not_finite_is_refused(tmp_path):
    big = teacher()
    with torch.no_grad():
        big.model.model.norm.weight[0] = float("nan")
    with pytest.raises(TrainError, match="before any training"):
        fit(tmp_path, objective=SOFT, teacher=big)
