"""Measure and prove: each module is one command and writes one file of benchmarks/results/."""
