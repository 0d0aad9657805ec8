"""Libraries that only some need, and what installs them."""

from importlib.util import find_spec

from distributed_pg.errors import UsageError


def need_extra(extra: str, *modules: str) -> None:
    """See to it that ``modules``, which the extra ``extra`` installs, are there.

    Raises:
        UsageError: one is missing; the message has the pip command.
    """
    for module in modules:
        if find_spec(module) is None:
            raise UsageError(
                f"{module} is not installed; pip install 'distributed-pg[{extra}]' brings it"
            )
