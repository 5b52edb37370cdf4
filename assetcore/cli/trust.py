"""Trust: what was done, does the bucket say the same as the database, and what must go?"""

from __future__ import annotations

import click

from assetcore.cli.call import Call, verb


@click.group()
def catalog() -> None:
    """Make the database again of the bucket, or compare the two."""


@verb(project=False, group=catalog)
@click.option("--replace", is_flag=True, help="Also where the database is not empty: what it holds is replaced.")
async def rebuild(call: Call, replace: bool) -> None:
    """Make all that an empty database holds of the manifests in the bucket, for every project in it.

    \b
    Example: after Postgres was lost, with the bucket kept
      aipctl catalog rebuild && aipctl plan
    """
    from assetcore import stack
    from assetcore.catalog import rebuild_catalog
    from assetcore.cli import show

    settings = call.settings()
    addresses = await stack.up(settings, ("postgres", "store"), call.say)
    connected, embedded = addresses.applied_to(settings), settings.database_url is None
    result = await rebuild_catalog(connected, replace=replace, automatic_schema=embedded, say=call.say)
    call.answer(result.to_json(), show.rebuilt)
    if not result.whole:
        raise click.exceptions.Exit(1)


@verb(project=False, group=catalog, name="verify")
async def catalog_verify(call: Call) -> None:
    """Compare what the database holds with what the manifests in the bucket tell. Ends with 1 where they differ."""
    from assetcore import stack
    from assetcore.catalog import verify_catalog
    from assetcore.cli import show

    settings = call.settings()
    addresses = await stack.up(settings, ("postgres", "store"), call.say)
    result = await verify_catalog(addresses.applied_to(settings), say=call.say)
    call.answer(result.to_json(), show.compared)
    if not result.same:
        raise click.exceptions.Exit(1)
