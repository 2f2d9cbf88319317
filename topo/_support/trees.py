"""Modules of torch as a tree: what goes round in one without end is found before torch goes round in it."""

from __future__ import annotations

from typing import Any

from topo._support.doors import said
from topo.errors import WiringError


def require_tree(model: Any) -> None:
    """WiringError for a model with a module that holds itself, however deep: torch goes round in it without end.

    And for one that cannot be looked through: its own named_parameters or __getattr__ raises, or its __init__ never
    called torch's.
    """
    if not all(hasattr(model, name) for name in ("_modules", "_parameters", "_buffers")):
        kind = type(model).__name__
        raise WiringError(f"the model {kind} holds no module yet: its __init__ calls super().__init__() first")
    done: set[int] = set()
    trail: dict[int, str] = {id(model): type(model).__name__}
    todo = [(model, iter(model._modules.items()))]
    while todo:
        module, rest = todo[-1]
        key, child = next(rest, (None, None))
        if key is None:
            todo.pop()
            trail.pop(id(module))
            done.add(id(module))
        elif child is not None and id(child) in trail:
            kind = type(module).__name__
            raise WiringError(f"the module '{key}' of a {kind} holds itself, through {trail[id(child)]}")
        elif child is not None and id(child) not in done:
            trail[id(child)] = type(child).__name__
            todo.append((child, iter(child._modules.items())))
    try:
        hasattr(model, "an_attribute_that_no_module_has")
    except Exception as error:  # torch and everybody else ask what a module has
        raise WiringError(
            f"the model {type(model).__name__} raises where it is asked for what it has not: {said(error)}; its "
            "__getattr__ should raise AttributeError"
        ) from error
    try:
        for _ in (*model.named_parameters(), *model.named_buffers()):
            pass
    except Exception as error:  # whatever a class of one's own raises
        raise WiringError(
            f"the parameters of the model {type(model).__name__} cannot be listed: {said(error)}"
        ) from error
