"""`expertmesh erase`: a person's data, everywhere, with a record to show. Speaks to a running mesh over HTTP."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

import typer

from .cache import DEFAULT_URL, Key, Url, call

ROUTE = "/admin/erase"
TIMEOUT_S = 180.0
INCOMPLETE = 1


def erase(
    tenant: Annotated[str, typer.Option(help="Whose person it is.")],
    person: Annotated[str, typer.Option(help="The `user` field of the person's requests.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="The record as it stands in the audit log.")
    ] = False,
    url: Url = DEFAULT_URL,
    key: Key = "",
) -> None:
    """Erase a person's data in every place, look again, and print the record. Ends with 0 when it is complete and
    recorded (or there is no audit log), with 1 when a place is pending or the record could not be written: run it
    again."""
    if not tenant or not person:
        raise typer.BadParameter("name a --tenant and a --person")
    answer = cast(
        "dict[str, Any]",
        call(url, key, "POST", ROUTE, {"tenant": tenant, "person": person}, timeout_s=TIMEOUT_S),
    )
    typer.echo(json.dumps(answer, ensure_ascii=False) if as_json else "\n".join(_lines(answer)))
    if answer["record"]["outcome"] != "complete" or answer["recorded"] == "failed":
        raise typer.Exit(INCOMPLETE)


def _lines(answer: dict[str, Any]) -> list[str]:
    record = answer["record"]
    of = f"person {record['person']} of" if record["person"] else "a person of"
    lines = [f"{record['time']}  {record['outcome']}: {of} {record['tenant']} ({record['request_id']})"]
    for place in record["places"]:
        found, left = place.get("found", 0), place.get("left", 0)
        said = f"{place['state']:8} {place['place']}"
        if place["state"] == "erased":
            said += f": {'not counted' if found < 0 else f'{found} found'}, nothing left"
        elif left > 0:
            said += f": {left} left"
        said += f": {place['why']}" if place.get("why") else ""
        lines.append(said + (f"; until: {place['until']}" if place.get("until") else ""))
    how = {
        "signed": f"recorded and signed in the audit log {answer.get('chain', '')}",
        "off": "not recorded: this mesh has no audit log (EXPERTMESH_AUDIT_DIR)",
        "failed": "NOT RECORDED: the audit log could not be written; run this again",
    }
    return [*lines, how[answer["recorded"]]]
