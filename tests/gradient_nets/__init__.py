"""The table of small networks whose traces are held against gradients: `TABLE`, family/name -> Case.

Each file of this folder is a family, which enters its networks when it is imported.
"""

from importlib import import_module
from pkgutil import iter_modules

from gradient_nets.table import MISSED, TABLE

__all__ = ["MISSED", "TABLE"]

for _family in iter_modules(__path__):
    import_module(f"{__name__}.{_family.name}")
