"""The contract measured: on the emulated RP2040 and by counted instructions, beside the model."""

import pytest

from outpost import boards, check, contract, costs


@pytest.fixture(scope="module")
def found():
    return check.check("motion", "rp2040", fetch=True)


def test_everything_that_can_be_is_measured(found):
    lines = {line.name: line for line in found.lines}
    assert found.ok
    for name in ("accuracy", "worst_class", "heap", "heap_peak", "instructions", "latency_us"):
        assert lines[name].kind == contract.EMULATED
    assert lines["accuracy"].got == pytest.approx(119 / 120)
    assert lines["heap"].got <= lines["heap_peak"].got < 8192
    for name in ("latency", "instructions"):
        measured, bound = (lines[key] for key in (
            ("latency_us", "latency_bound_us") if name == "latency"
            else ("instructions", "instructions_bound")))
        assert measured.got <= bound.got <= 1.5 * measured.got and bound.kind == contract.MODELLED


def test_the_cost_model_is_close(found):
    """Instruction times of the emulator don't depend on the machine it runs on."""
    pre, infer = costs.latency_us(boards.load("rp2040"), found.what, found.fitted.forest)
    (measured,) = [line for line in found.lines if line.name == "latency_us"]
    assert pre + infer == pytest.approx(measured.got, rel=0.2)
