"""`outpost doctor`: what is present, what is missing, how to get it."""

import typer


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("doctor")(doctor)


def doctor() -> None:
    """Show what is present on this machine, what is missing and how to get it."""
    from outpost.doctor import report

    raise typer.Exit(0 if report() else 1)
