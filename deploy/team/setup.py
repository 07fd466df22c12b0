"""Create the bucket, the users and their permissions; a container of compose.yaml runs it.

Repeating it is harmless; it sets the passwords of .env again. The experiment and the model belong
to the admin, since a creator may do anything with what it made.
"""

import os
from collections.abc import Callable

import boto3
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

NAME = "arithmetic-lm"
# A registration that was killed leaves a run and a model, which the next one deletes: MANAGE.
GRANTS = {
    "registrar": [
        ("experiment", "EDIT"),
        ("run", "MANAGE"),
        ("logged_model", "MANAGE"),
        ("registered_model", "EDIT"),
    ],
    "promoter": [("experiment", "READ"), ("registered_model", "EDIT")],
    "service": [("experiment", "READ"), ("registered_model", "READ")],
}


def create_bucket() -> None:
    """Create the bucket of the artifacts."""
    s3 = boto3.client("s3")
    if not any(bucket["Name"] == "mlflow" for bucket in s3.list_buckets()["Buckets"]):
        s3.create_bucket(Bucket="mlflow")


def create_users() -> None:
    """Create experiment, model, users and grants."""
    client, auth = MlflowClient(), get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(NAME)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(NAME)
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    resources = {"experiment": experiment_id, "registered_model": NAME}
    for user, grants in GRANTS.items():
        password = os.environ[f"{user.upper()}_PASSWORD"]
        if fails_with("RESOURCE_ALREADY_EXISTS", auth.create_user, user, password):
            auth.update_user_password(user, password)
        for kind, permission in grants:
            grant = user, kind, resources.get(kind, "*")
            if auth.get_user_permission(*grant).permission != permission:
                fails_with("RESOURCE_DOES_NOT_EXIST", auth.revoke_user_permission, *grant)
                auth.grant_user_permission(*grant, permission)


def fails_with(code: str, function: Callable[..., object], *arguments: str) -> bool:
    """Call a function; return whether MLflow answered with this error."""
    try:
        function(*arguments)
    except MlflowException as error:
        if error.error_code != code:
            raise
        return True
    return False


if __name__ == "__main__":
    create_bucket()
    create_users()
    print(f"setup: bucket, {', '.join(GRANTS)} are there")
