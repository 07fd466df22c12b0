"""What measures. Each program prints a table and writes a dated file in benchmarks/results/."""
