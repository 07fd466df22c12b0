"""MLflow: the one room that knows it.

`record` projects the pipeline's files into runs and registered versions, `promote` moves the alias
`Production`, `pull` brings a version to a service. `pull` and `errors` import no MLflow, since the
service does not have it.
"""

MODEL = "arithmetic-lm"
EXPERIMENT = "arithmetic-lm"
ALIAS = "Production"
CANDIDATE = "Candidate"  # what services may try beside it

# Where a registered version keeps the bundle, relative to the version's folder.
BUNDLE_PATH = "artifacts/bundle"
# And its signature, if it was registered with a key.
SIGNATURE_PATH = "artifacts/bundle.sig"
# The tag of a version that says which bundle it holds.
BUNDLE_TAG = "bundle_sha256"
# The tag that says which files it consists of: JSON, path to SHA-256.
FILES_TAG = "files_sha256"
