"""For every test: the same examples of properties on every run, time for kernels to compile, fonts of matplotlib."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

settings.register_profile("topo", deadline=None, derandomize=True)
settings.load_profile("topo")

# A list of fonts of our own: the user's may have been made while an installation came or went, and without the fonts
# of formulas figures are not drawn as they should be.
os.environ["MPLCONFIGDIR"] = tempfile.mkdtemp(prefix="topo-matplotlib-")
atexit.register(shutil.rmtree, os.environ["MPLCONFIGDIR"], ignore_errors=True)
