"""`broker evaluate`: the reference worker, which asks models and streams what they say."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from broker.config.secret import mask_url
from broker.config.sources import Effective, load
from broker.errors import BrokerError, ConfigError, Problem
from broker.log import open_log

if TYPE_CHECKING:
    from broker.evaluation.handler import Handler
    from broker.evaluation.model import Model
    from broker.evaluation.settings import EvaluatorSettings


@click.command("evaluate", short_help="Run a worker that evaluates with models.")
@click.option(
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The models and their prompts; conf/evaluators.toml explains every setting.",
)
@click.option("--demo", is_flag=True, help="Canned answers in place of models: no FILE, no keys, nothing is asked.")
@click.option("--redis", "redis_url", metavar="URL", help="The daemon's Redis. Default: as configured for the daemon.")
@click.option(
    "--settings",
    "daemon_file",
    metavar="FILE",
    envvar="BROKER_CONFIG",
    type=click.Path(path_type=Path),
    help="The daemon's settings file, for its Redis, its prefix and its log. [BROKER_CONFIG]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Evaluations at once; more wait for their turn.",
)
def command(file: Path | None, demo: bool, redis_url: str | None, daemon_file: Path | None, concurrency: int) -> None:
    """Take evaluations from Redis, ask the models of FILE, and stream what they say.

    With --demo they are canned answers, to try evaluations out.

    SIGTERM or Ctrl-C ends it when what runs is finished; a second one hands that over to other workers.
    """
    import trio

    from broker.evaluation.settings import EvaluatorSettings

    if demo == (file is not None):
        raise click.UsageError("say --config FILE for models, or --demo for canned answers: one of them")
    problems: list[Problem] = []
    effective = settings = None
    try:
        effective = load(flags={"redis.url": redis_url}, environ=os.environ, file=daemon_file)
    except ConfigError as error:
        problems += error.problems
    try:
        settings = None if file is None else EvaluatorSettings.from_file(file)
    except ConfigError as error:
        problems += error.problems
    if effective is None or problems:
        raise ConfigError(problems)
    open_log(effective.config.log)
    trouble: list[str] = []
    try:
        trio.run(_run_demo if settings is None else partial(_run, settings), effective, concurrency)
    except* BrokerError as group:
        trouble = [line for error in _leaves(group) for line in str(error).splitlines()]
    if trouble:
        # Not inside `except*`, which would put the SystemExit into a group: a traceback.
        for line in trouble:
            click.echo(f"broker: {line}", err=True)
        sys.exit(1)


async def _run(settings: EvaluatorSettings, effective: Effective, concurrency: int) -> None:
    from broker.evaluation.model import Model, open_http

    async with open_http() as http:
        models = {
            name: Model.from_environment(name, model, os.environ, http) for name, model in settings.models.items()
        }
        if all(model.problem for model in models.values()):
            variables = ", ".join(dict.fromkeys(model.settings.key_env for model in models.values()))
            raise ConfigError([Problem("environment", f"no model has its key; set at least one of {variables}")])
        for line in _summary(settings, models):
            click.echo(line)
        await _serve(_handlers(settings, models), effective, concurrency)


async def _run_demo(effective: Effective, concurrency: int) -> None:
    from broker.evaluation import demo

    click.echo(f"{', '.join(demo.MODELS)}: canned answers, no model is asked")
    await _serve(demo.handlers(), effective, concurrency)


async def _serve(handlers: dict[str, Handler], effective: Effective, concurrency: int) -> None:
    """Until a signal, and until what runs is finished; a second signal ends it at once."""
    import trio

    from broker.evaluation.worker import serve

    config = effective.config
    url = config.redis.url or f"redis://127.0.0.1:{config.embedded.port}/0"
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:

        async def work(task_status: trio.TaskStatus[None]) -> None:
            await serve(
                handlers,
                url,
                channel_prefix=config.redis.channel_prefix,
                concurrency=concurrency,
                stopping=stopping,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

        # Before the work begins, or a signal in between would cut it off.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await nursery.start(work)
            click.echo(f"evaluates, with {mask_url(url)}; Ctrl-C ends it")
            await anext(aiter(signals))
            stopping.set()
            await anext(aiter(signals))
            nursery.cancel_scope.cancel()


def _handlers(settings: EvaluatorSettings, models: Mapping[str, Model]) -> dict[str, Handler]:
    from broker.evaluation import council, creative

    handlers: dict[str, Handler] = {}
    if settings.council:
        asked = [models[name] for name in settings.council.models]
        handlers[council.KIND] = council.Council(asked, settings.council.prompt, settings.council.quorum).evaluate
    if settings.creative:
        asked = [models[name] for name in settings.creative.models]
        handlers[creative.KIND] = creative.Creative(asked, settings.creative.prompt).evaluate
    return handlers


def _summary(settings: EvaluatorSettings, models: Mapping[str, Model]) -> Iterator[str]:
    """What can be asked, a line for each model, then what will fail for lack of keys."""
    width = max(map(len, models))
    for name, model in models.items():
        where = f"{name:<{width}}  {model.settings.model} at {model.settings.base_url}"
        variable = model.settings.key_env
        if model.problem:
            yield f"{where}: {model.problem}; set {variable}"
        else:
            yield f"{where}: " + (f"key from {variable}" if variable else "needs no key")
    if settings.council:
        able = sum(not models[name].problem for name in settings.council.models)
        if able < settings.council.quorum:
            yield (
                f"warning: {able} of the council's models can be asked, quorum is {settings.council.quorum}: "
                "every council evaluation will end in an error"
            )
    if settings.creative and all(models[name].problem for name in settings.creative.models):
        yield "warning: no model for creative evaluations can be asked: every one will end in an error"


def _leaves(group: BaseExceptionGroup[BrokerError]) -> Iterator[BrokerError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
