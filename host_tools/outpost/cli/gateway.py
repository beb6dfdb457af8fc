"""`outpost gateway`: take in what nodes report, and answer them."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("gateway")(gateway)


def gateway(
    database: Annotated[str, typer.Option(
        envvar="OUTPOST_DATABASE", show_envvar=True,
        help="an SQLite file, or postgresql+psycopg://USER:PASSWORD@HOST/NAME")] = "",
    broker: Annotated[str, typer.Option(
        envvar="OUTPOST_BROKER", show_envvar=True,
        help="mqtt[s]://USER:PASSWORD@HOST:PORT/PREFIX instead of a broker of its own")] = "",
    ca: Annotated[Path | None, typer.Option(
        help="certificates trusted for mqtts://, if not the system's")] = None,
    listen: Annotated[str, typer.Option(
        help="HOST:PORT of its own broker; 0.0.0.0:1883 lets nodes in")] = "127.0.0.1:1883",
    share: Annotated[str, typer.Option(
        help="divide the work with all gateways on this broker that give the same name")] = "",
    serial: Annotated[list[str] | None, typer.Option(
        help="a port with a node or a bridge on it; may be given more than once")] = None,
    time: Annotated[bool, typer.Option(help="tell nodes what time it is")] = True,
    provisioned: Annotated[bool, typer.Option(
        help="believe the nodes that were flashed from here")] = True,
    heavy: Annotated[str, typer.Option(
        help="a model, by name or path: its heavy one answers windows that nodes were unsure "
             "about")] = "",
    volatile: Annotated[bool, typer.Option(
        "--volatile", help="SQLite doesn't wait for the disk: what is acknowledged outlives this "
                           "process, but not a power cut")] = False,
    web: Annotated[bool, typer.Option("--web", help="the fleet in a browser as well")] = False,
    host: Annotated[str, typer.Option(
        help="where that is served; 0.0.0.0 lets other machines see it")] = "127.0.0.1",
    web_port: Annotated[int, typer.Option(
        min=0, max=65535, help="its port; 0: a free one")] = 8480,
    json: Annotated[bool, typer.Option("--json", help="one line of JSON when it is up")] = False,
) -> None:
    """Take in what nodes report, store each record once, and answer them. Ctrl-C stops it."""
    import asyncio
    import contextlib
    import gc
    import logging
    import signal
    from time import time as clock

    from rich.logging import RichHandler

    from outpost import recipe
    from outpost.console import console, print_json
    from outpost.gateway import main, mqtt, screen, store, views
    from outpost.gateway.service import Service

    logging.basicConfig(level=logging.WARNING, format="%(message)s", datefmt="[%X]",
                        handlers=[RichHandler(console=console, show_path=False)])
    if heavy:
        recipe.load(recipe.find(heavy))
    if not database:
        store.DEFAULT.parent.mkdir(parents=True, exist_ok=True)
    at, _, number = listen.rpartition(":")
    if not at or not number.isdecimal():
        raise typer.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    if share and not broker:
        raise typer.BadParameter("there is nobody to divide the work with on a broker of its own; "
                                 "--broker says where the others are", param_hint="--share")
    options = main.Options(
        database=(database if "://" in database
                  else Path(database or store.DEFAULT)),
        broker=mqtt.where(broker, str(ca) if ca else None) if broker else None,
        listen=(at.strip("[]"), int(number)), group=share or None, serial=serial or [],
        clock=clock if time else None, provisioned=provisioned, durable=not volatile,
        heavy=heavy or None)

    dashboard = ""

    def ready(where: mqtt.Where) -> None:
        if json:
            print_json({"broker": str(where), "host": where.host, "port": where.port}
                       | ({"web": dashboard} if web else {}))
        console.print(f"listening to {where}; Ctrl-C stops", highlight=False)

    async def watch(service: Service, where: mqtt.Where) -> None:
        await screen.Screen(service, where, views.Reader(options.database)).run()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await main.run(options, ready, stop, watch if console.is_terminal else None)

    with contextlib.ExitStack() as stack:
        if web:
            from outpost.dashboard import login, serve

            file = login.path()
            token, new = login.token(file)
            dashboard = stack.enter_context(serve.beside(options.database, host, web_port, token))
            if new:
                console.print(f"dashboard: {dashboard}login?token={token}", soft_wrap=True)
                console.print(f"this is the only time it is shown; it is kept in {file}",
                              soft_wrap=True)
            else:
                console.print(f"dashboard: {dashboard}; its token is in {file}", soft_wrap=True)
            if host not in ("127.0.0.1", "::1", "localhost"):
                console.print("others can reach it, and there is no TLS: token and pages go over "
                              "the network as they are", style="yellow")
        # Rows are alive by the thousand and in no circles: looking for those took a tenth.
        gc.freeze()
        gc.set_threshold(200_000)
        asyncio.run(run())
