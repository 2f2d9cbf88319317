"""For every test: property tests draw the same examples on every run, and compiling a kernel is no time-out."""

from hypothesis import settings

settings.register_profile("topo", deadline=None, derandomize=True)
settings.load_profile("topo")
