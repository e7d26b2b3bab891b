"""`broker worker`: one of several processes of a daemon. `broker serve --workers` starts it; nobody else can."""

from __future__ import annotations

import sys

import click


@click.command(name="worker", hidden=True)
@click.option("--slot", type=int, required=True, help="Which of the workers it is; for those who list processes.")
@click.option("--pipe", type=int, required=True, help="The descriptor of its end of the supervisor's pipe.")
def command(slot: int, pipe: int) -> None:
    """Serve for a supervisor, which says by the pipe what, where and until when."""
    from broker.workers.worker import run_worker

    try:
        status = run_worker(pipe)
    except OSError:
        raise click.UsageError("`broker serve --workers N` starts workers, and hands them a pipe") from None
    sys.exit(status)
