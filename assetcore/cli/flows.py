"""Flows: run plain work that a project declares beside its assets."""

from __future__ import annotations

import json
from typing import Any

import click

from assetcore.cli.call import MAKING, Call, verb
from assetcore.cli.names import complete_flow, complete_input, remember
from assetcore.errors import MakeError, NothingSelectedError, UsageError

WAIT_SECONDS = 24 * 3600


@verb()
@click.argument("flow", shell_complete=complete_flow)
@click.option("--input", "inputs", multiple=True, metavar="PARAM=ASSET", shell_complete=complete_input,
              help="Documents: the current ones of an asset.")  # fmt: skip
@click.option("--param", "parameters", multiple=True, metavar="PARAM=VALUE", help="A value, written as in YAML.")
@click.option("--deployment", is_flag=True, help="By a worker of the work pool, and wait for it.")
@click.option("--pool", default="assetcore", show_default=True, help="The work pool of --deployment.")
async def run(
    call: Call, flow: str, inputs: tuple[str, ...], parameters: tuple[str, ...], deployment: bool, pool: str
) -> None:
    """Run FLOW, a function with @pipeline_flow, and say where the documents are that it returned.

    Example: aipctl run translate --input documents=pages --param 'limits={longest: 80}'
    """
    from assetcore import stack
    from assetcore.cli import show
    from assetcore.loading import flows
    from assetcore.notation import parse_yaml
    from assetcore.running import prepare_prefect

    documents = dict(_pair(text, "--input") for text in inputs)
    try:
        values = {name: parse_yaml(text) for name, text in (_pair(text, "--param") for text in parameters)}
    except ValueError as error:
        raise UsageError(f"--param cannot be read: {error}.", hint="Quote it as in YAML.") from None
    async with call.opened(MAKING, ahead={"prefect"}) as session:
        name = call.project(session.project.root)
        declared = flows(session.project.root, name)
        remember(session.project.settings.home, name, {"flows": declared})
        if flow not in declared:
            raise NothingSelectedError(
                f"{session.name} has no flow {flow!r}.",
                hint=f"It has: {', '.join(declared) or 'none; declare one with @pipeline_flow'}.",
            )
        prepare_prefect(session.project.settings)
        addresses = await stack.up(session.project.settings, {"prefect"}, call.say)
        session.project.settings = addresses.applied_to(session.project.settings)
        from assetcore import conduct  # Prefect takes a second to import

        if not deployment:
            answer = (await conduct.conduct(session, declared[flow], documents, values)).to_json()
        else:
            answer = await _by_worker(session, flow, documents, values, pool)
    call.answer(answer, show.conducted)


async def _by_worker(
    session: Any, flow: str, documents: dict[str, str], values: dict[str, Any], pool: str
) -> dict[str, Any]:
    from assetcore.conduct import run_pipeline
    from assetcore.deploy import register, trigger

    settings, name = session.project.settings, f"{session.name}-{flow}"
    parameters = {"project": session.name, "name": flow, "inputs": documents, "parameters": values}
    api = settings.prefect_api_url
    deployed = await register(
        api, name=name, pool=pool, folder=settings.root, parameters=parameters, target=run_pipeline
    )
    state = await trigger(api, deployed, parameters, WAIT_SECONDS)
    if not state.is_completed():
        raise MakeError(
            f"{flow} ended as {state.name}: {state.message}", hint=f"Look at the flow run in Prefect: {api}"
        )
    return json.loads(state.message or "{}")


def _pair(text: str, option: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise UsageError(f"{option} {text}: that is no NAME=VALUE.")
    return name.strip(), value.strip()
