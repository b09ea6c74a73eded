"""What `berth up` prints when the platform is ready: the address, the token, and three things to try."""

import shutil
import sys
from pathlib import Path

from workers import own_api
from workers.settings import Settings


def greeting(settings: Settings, *, url: str) -> str:
    berth = _as_typed(Path(sys.executable).parent / "berth")
    token_file = settings.data / "admin.token"
    if token_file.exists():
        text = f"The admin token is in {token_file}\n{_suggestions(settings, url, berth=berth, token_file=token_file)}"
    else:
        remedy = f"`{berth} token reset admin --data {settings.data}`"
        text = f"The file {token_file} does not exist; {remedy} makes a new token."
    return f"Berth is ready at {url}\n{text}\nCtrl-C stops it."


def _suggestions(settings: Settings, url: str, *, berth: str, token_file: Path) -> str:
    """Requests that work on the site as it is: without the sample's tenant and quota, a VM can't be created."""
    path, body, kind = "tenants", '{"name":"payments"}', "tenants"
    token = token_file.read_text().strip()
    if own_api.exists(settings.host, settings.port, "/v1/groups/std/quotas/payments", token=token):
        body = '{"tenant":"payments","name":"web-1","group":"std","resources":{"cpu":4,"memory_mib":8192}}'
        path, kind = "vms", "hosts"
    return (
        "Three things to try:\n"
        f"  export BERTH_URL={url} BERTH_TOKEN=$(cat {token_file})\n"
        f"  1. curl -i $BERTH_URL/v1/{path} -H \"Authorization: Bearer $BERTH_TOKEN\" -H 'Prefer: wait=10' "
        f"-H 'Content-Type: application/json' -d '{body}'\n"
        f"  2. {berth} get {kind}\n"
        f"  3. open {url}/docs"
    )


def _as_typed(program: Path) -> str:
    """The program as it is typed in the directory from which `berth up` was started."""
    if shutil.which("berth") == str(program):
        return "berth"
    here = Path.cwd()
    return str(program.relative_to(here)) if program.is_relative_to(here) else str(program)
