"""Numba kernels, installed as `topo.kernels`: numpy arrays in and out; they never raise, print or see a name."""
