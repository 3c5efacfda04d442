"""`hotswap worker`: takes fine-tuning jobs from the queue until it is told to stop."""

from __future__ import annotations

import os
from pathlib import Path

import click

from gateway.cli.client import fail, say


@click.command()
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Settings file (hotswap.toml)."
)
@click.option("--state-dir", type=click.Path(path_type=Path), help="The state folder of `hotswap up`.")
@click.option("--devices", type=int, help="Jobs at once; default: one a GPU.")
def worker(config_file: Path | None, state_dir: Path | None, devices: int | None) -> None:
    """Take fine-tuning jobs from the queue, one a device, until Ctrl-C or SIGTERM; jobs then go back to it.

    Finds Postgres by database.url_env, or the one that `hotswap up` runs in the same state folder, and the
    gateway by HOTSWAP_URL and HOTSWAP_API_KEY, or in that folder.
    """
    import asyncio
    import signal

    from gateway.db import DatabaseError, PostgresError, running_url
    from gateway.jobs.beside import DATABASE_URL, SETTINGS
    from gateway.jobs.worker import Worker
    from gateway.settings import Settings, SettingsError, load
    from gateway.supervise import log_to

    async def work(settings: Settings, url: str) -> None:
        found = Worker(settings, url)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, found.stop)
        say(f"worker {found.name} takes jobs (log: {settings.log_path / 'jobs-worker.log'})")
        await found.run()

    try:
        told = os.environ.pop(SETTINGS, None)
        flags = {"state_dir": state_dir, "jobs.devices": devices}
        settings = Settings.model_validate_json(told) if told else load(config_file, flags=flags)[0]
        name = settings.database.url_env
        url = os.environ.pop(DATABASE_URL, None) or (os.environ.get(name) if name else None)
        if url is None:
            url = running_url(settings.state_dir / "postgres")
        settings.log_path.mkdir(parents=True, exist_ok=True)
        log_to(settings.log_path / "jobs-worker.log")
        asyncio.run(work(settings, url))
    except (SettingsError, DatabaseError, PostgresError) as error:
        fail(str(error))
