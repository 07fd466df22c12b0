"""Servers that `benchmarks.serving` compares with the service, as their documentation shows them.

All but `fastapi_app` answer by the same graphs through `arithmetic.inference`.
"""
