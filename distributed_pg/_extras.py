"""Optional libraries and the extras that install them."""

from importlib.util import find_spec

from distributed_pg.errors import UsageError


def need_extra(extra: str, *modules: str) -> None:
    """Check that optional modules are installed.

    Args:
        extra: the extra of this package that installs them.
        modules: names of the modules.

    Raises:
        UsageError: a module is missing; the message has the pip command.
    """
    for module in modules:
        found = find_spec(module)
        # Any folder of that name is found, too, as a namespace: wandb's output, for one.
        if found is None or found.origin is None:
            raise UsageError(
                f"{module} is not installed; install it with pip install 'distributed-pg[{extra}]'"
            )
