"""Numba kernels: numpy arrays in, numpy arrays out. They never raise, print or see a name; installed as `topo.kernels`."""
