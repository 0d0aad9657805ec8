"""For mkdocs.yml: shows the Sphinx roles of docstrings, such as :func:`train`, as code."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`~?(?:[\w.]*\.)?(\w+)`")


class Roles(griffe.Extension):
    """Replaces each role by the last part of the name in it."""

    def on_instance(self, *, obj: griffe.Object, **_kwargs: Any) -> None:
        """Change an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
