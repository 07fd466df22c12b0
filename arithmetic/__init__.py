"""The domain: what an equation is and how a model answers it.

Knows nothing of DVC, MLflow or HTTP. The modules that serving needs (`grammar`, `tokenizer`,
`layouts`, `bundle`, `engine`) import no torch; `model` and `decoding` do.
"""
