"""What is said of a validation in one sentence, and what to do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bnn_deploy.report.verdict import agreement, verdict
from bnn_deploy.validation.report import ValidationReport
from tests.report.validation_samples import failing, model, model_only, passing


@pytest.mark.parametrize(
    ("report", "said", "advice"),
    [
        (passing(), "Passed: bimlp_m.rpi4 (rpi4) on ssh://pi@board computes what bimlp_m.onnx in onnxruntime", ""),
        (
            failing(),
            "first wrong layer is network.0.3.token_mixing/Sign (level 2",
            "Its kernel does what the compiler meant",
        ),
        (replace(failing(), levels=failing().levels[1:]), "first wrong layer", "Add --level 1"),
        (model_only(), "only 970 of 1,000 images (97%; 95% interval", "Add --level 1 and --level 2"),
        (
            replace(passing(), model=model(970, 1000), passed=False),
            "every layer compared is right, but only 970",
            "--deterministic-reference",
        ),
    ],
)
def test_verdict(report: ValidationReport, said: str, advice: str) -> None:
    """Breaks if the sentence that most people read only is wrong, or advises what was already done."""
    found = verdict(report)
    assert found.passed is report.passed and said in found.sentence
    assert advice in found.next_step and bool(advice) == bool(found.next_step)


def test_verdict_on_a_kernel() -> None:
    """Breaks if a kernel that is wrong is blamed on the model's import, which level 2 then fails by as well."""
    whole = failing()
    kernels = replace(whole.levels[0], rows=whole.levels[1].rows, passed=False)
    found = verdict(replace(whole, levels=(kernels, whole.levels[1])))
    assert "(level 1, value" in found.sentence and "The device computes something else" in found.next_step


def test_never_whole_where_it_is_not() -> None:
    """Breaks if 49,999 of 50,000 images are rounded to 100%, or 1 of them to 0%."""
    assert "(> 99.99%; 95% interval 99.99% to > 99.99%)" in agreement(model(49_999, 50_000))
    assert "95% interval 51.01% to 100%)" in agreement(model(4, 4))
    assert "(< 0.01%;" in agreement(model(1, 50_000)) and "(100%; " in agreement(model(7, 7))
