"""Verdicts over what happened to requests: pure functions over counts, without input, output or clocks.

Gateways and the coordinator run the very same code, and so do the simulations that bound its mistakes.
"""
