"""What `make` runs: thin programs over the rooms of the house."""
