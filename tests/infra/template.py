"""infra/template.yaml, parsed: for what is asserted on the template itself.

Law: nothing is resolved. A short form such as `!Ref X` is read as its long one, `{"Ref": "X"}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

TEMPLATE = Path(__file__).parents[2] / "infra" / "template.yaml"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it carries no types
    """YAML with CloudFormation's short forms."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if name == "GetAtt":
        value = value.split(".")
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _function)


def load() -> dict[str, Any]:
    """The whole template."""
    with TEMPLATE.open(encoding="utf-8") as file:
        loaded: dict[str, Any] = yaml.load(file, _Loader)  # a SafeLoader
    return loaded


def of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by name."""
    return {name: one["Properties"] for name, one in template["Resources"].items() if one["Type"] == kind}
