"""Servers that `benchmarks.serving` compares with the service, as their documentation shows them.

All but `constant` and `torch_eager` answer by the same graphs through `arithmetic.inference`.
"""
