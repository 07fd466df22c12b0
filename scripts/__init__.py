"""Commands behind `make run`, `make docker`, `make experiment` and `make hard-cases`."""
