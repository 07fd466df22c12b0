"""Serve a registered model over HTTP: one process a container, replicas by the orchestrator."""
