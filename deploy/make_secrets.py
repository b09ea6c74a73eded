"""`make secrets`: the passwords and the first admin's token for docker compose, each in a file of deploy/secrets.

A secret that is there stays as it is. Every file is readable by one user alone, the one as whom Berth's containers run:
you, or, when root makes the secrets, the user id of the image. `.env` tells docker compose which one that is.

Needs the standard library alone: it runs before anything is installed.
"""

import json
import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).parent
SECRETS = HERE / "secrets"
ENVIRONMENT = HERE.parent / ".env"
CONTAINER_UID = 10001  # the image's own, when those of root must not be used
NATS_USERS = ("engine", "api", "past", "relay", "dispatcher", "reader", "controller-vm")


def main() -> int:
    uid = os.getuid() or CONTAINER_UID
    SECRETS.mkdir(mode=0o700, exist_ok=True)
    SECRETS.chmod(0o700)
    made = {f"nats_{user}": json.dumps({"user": user, "password": secrets.token_urlsafe(24)}) for user in NATS_USERS}
    made |= {name: secrets.token_urlsafe(32) for name in ("postgres_owner", "postgres_service")}
    made["admin_token"] = f"berth_{secrets.token_urlsafe(32)}"
    for name, text in made.items():
        _keep(SECRETS / name, text, uid=uid)
    ENVIRONMENT.write_text(_with_uid(uid))
    print(f"The secrets are in {SECRETS}, readable by user id {uid} alone. Next: docker compose up --build")
    return 0


def _keep(file: Path, text: str, *, uid: int) -> None:
    """Make the file if it is missing; its mode and owner are set either way, whatever the umask was or is."""
    if not file.exists():
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as stream:
            stream.write(text)
    if file.stat().st_uid != uid:
        os.chown(file, uid, -1)
    file.chmod(0o400)


def _with_uid(uid: int) -> str:
    """What stands in `.env` already, with the containers' user id."""
    lines = ENVIRONMENT.read_text().splitlines() if ENVIRONMENT.exists() else []
    kept = [line for line in lines if not line.startswith("BERTH_UID=")]
    return "".join(f"{line}\n" for line in [*kept, f"BERTH_UID={uid}"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PermissionError as refused:
        sys.exit(f"{refused.filename} belongs to another user. Run this as that user, or as root.")
