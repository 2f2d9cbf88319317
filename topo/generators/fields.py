"""Finite fields, as tables: enough arithmetic for incidence geometry."""

from __future__ import annotations

import functools

import numpy as np


def prime_power(q: int) -> tuple[int, int] | None:
    """(p, e) with q = p**e and p prime; None if there are none."""
    p = next((p for p in range(2, q + 1) if q % p == 0), 0)
    e = 0
    while p and q % p == 0:
        q, e = q // p, e + 1
    return (p, e) if q == 1 and e else None


@functools.cache
def field(q: int) -> tuple[np.ndarray, np.ndarray]:
    """(add, multiply): the tables (q, q) of the field of q elements, 0 and 1 first; q must be a prime power.

    Elements are polynomials over the integers modulo p, digits of a number in base p, multiplied modulo the first monic
    polynomial of degree e that leaves no two elements with product 0.
    """
    power = prime_power(q)
    assert power is not None
    p, e = power
    digits = np.arange(q)[:, None] // p ** np.arange(e) % p
    value = p ** np.arange(e)
    add = (digits[:, None] + digits) % p @ value
    product = np.zeros((q, q, 2 * e - 1), np.int64)
    for i in range(e):
        product[:, :, i : i + e] += digits[:, None, i, None] * digits
    for modulus in digits:  # x**e = -(the polynomial of these digits)
        rest = product % p
        for top in range(2 * e - 2, e - 1, -1):
            rest[:, :, top - e : top] = (rest[:, :, top - e : top] - rest[:, :, top, None] * modulus) % p
        multiply = rest[:, :, :e] @ value
        if multiply[1:, 1:].all():
            break
    return add, multiply
