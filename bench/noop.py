"""`python -m bench.noop PORT`: the least that FastAPI does: a POST with a checked body, and a GET."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

app = FastAPI()


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    tenant: str
    name: str
    group: str
    resources: dict[str, int]


@app.post("/v1/vms", status_code=202)
async def accept(body: Body) -> dict[str, str]:
    return {"name": body.name}


@app.get("/noop")
async def nothing() -> dict[str, str]:
    return {"name": "nothing"}


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", log_config=None, access_log=False
    )
