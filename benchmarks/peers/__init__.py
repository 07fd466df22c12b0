"""The servers that ours is measured against, each as its own documentation says to write it.

All but `constant` and `torch_eager` answer by the same serving graphs through `arithmetic.engine`.
They run in environments of their own, which benchmarks/serving_peers.py makes.
"""
