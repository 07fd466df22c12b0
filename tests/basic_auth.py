"""Configure an MLflow server with passwords."""

from pathlib import Path


def write_basic_auth(path: Path, folder: Path, password: str) -> None:
    """Write the configuration of `--app-name=basic-auth`: an admin, and users in `folder`."""
    path.write_text(
        f"[mlflow]\ndatabase_uri = sqlite:///{folder}/users.db\n"
        "default_permission = NO_PERMISSIONS\n"
        f"admin_username = admin\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
