"""name_layers: every variable starts with its layer's identifier, and the map from identifiers to layers is complete."""

from __future__ import annotations

import tvm
from tvm import relax

from bnn_deploy.passes.relax.expressions import layer_identifier, main_bindings
from bnn_deploy.passes.relax.name_layers import name_layers
from tests.passes.networks import build, constant


def layers(module: tvm.IRModule) -> list[str]:
    """The layer of each binding but the last, which only returns the result."""
    names = module.attrs["layer_names"]
    return [str(names[layer_identifier(binding.var)]) for binding in main_bindings(module["main"])[:-1]]


def importer_like(noted: dict[str, str]) -> tvm.IRModule:
    """matmul and add of one Gemm, then a relu; variables lv, lv1, lv2 as TVM's front end leaves them."""

    def body(emit: object, x: relax.Var) -> relax.Expr:
        product = emit(relax.op.matmul(x, constant([[1.0], [2.0]])))
        total = emit(relax.op.add(product, constant([3.0])))
        return relax.op.nn.relu(total)

    return build([(4, 2)], body, noted)


def test_nameless_values_belong_to_the_layer_that_follows() -> None:
    """Breaks: profile and validate report half a Gemm under no layer."""
    named = name_layers(importer_like({"lv1": "head.linear", "lv2": "head.relu"}))
    assert layers(named) == ["head.linear", "head.linear", "head.relu"]


def test_layers_whose_names_differ_in_punctuation_stay_apart() -> None:
    """Breaks: ``a.b`` and ``a_b`` become one layer in reports."""
    named = name_layers(importer_like({"lv1": "a.b", "lv2": "a_b"}))
    assert layers(named) == ["a.b", "a.b", "a_b"]


def test_names_do_not_change_what_is_computed() -> None:
    """Breaks: naming reorders or drops operators."""
    before = importer_like({"lv1": "head", "lv2": "relu"})
    named = name_layers(before)
    tvm.ir.assert_structural_equal(named["main"], before["main"])


def test_running_twice_changes_nothing() -> None:
    """Breaks: layer names depend on how often the pass ran."""
    once = name_layers(importer_like({"lv1": "head.linear", "lv2": "head.relu"}))
    assert layers(name_layers(once)) == layers(once)
