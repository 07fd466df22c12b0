"""The service: a registered version behind HTTP.

It reads no params.yaml and imports neither torch nor MLflow: the grammar travels in the bundle, and
`registry.pull` speaks REST.
"""
