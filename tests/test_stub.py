"""The committed python/stapes/_core.pyi names the functions and arguments of the built module."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from stapes import _core


def test_the_stub_is_current():
    stub = ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text())
    told = {
        node.name: [a.arg for a in node.args.args]
        for node in stub.body
        if isinstance(node, ast.FunctionDef)
    }
    built = {
        name: re.findall(r"(?:\(|, )(\w+):", function.__doc__.splitlines()[0])
        for name, function in vars(_core).items()
        if callable(function)
    }
    assert told == built, "run `nox -s stub`"
