"""The command line: what it says when something is wrong, and its exit codes."""

import os
import signal
import subprocess
import sys

import pytest
import typer

import outpost
from outpost import cli
from outpost.errors import OutpostError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", "from outpost.cli import main; main()",
                           *arguments], capture_output=True, text=True, check=False)


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"outpost {outpost.__version__}\n")


def test_an_error_is_one_plain_line_with_its_brackets() -> None:
    done = run("toolchain", "[red]none[/]")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no toolchain '[red]none[/]'")
    assert "Traceback" not in done.stderr


def test_an_unknown_verb_exits_with_2() -> None:
    assert run("nonsense").returncode == 2


@pytest.mark.parametrize(("raised", "code"), [
    (OutpostError("model.toml: [contract] accuracy 0.9"), 1),
    (FileNotFoundError(2, "No such file or directory", "model.toml: [contract] accuracy"), 1),
    (OSError(28, "No space left on device: [contract] accuracy"), 1),
    (KeyboardInterrupt(), 130),
])
def test_exit_codes(raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch,
                    capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def verb() -> None:
        raise raised

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "argv", ["outpost"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    if code == 1:
        assert "[contract] accuracy" in shown


def test_an_error_that_no_person_can_put_right_keeps_its_traceback(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(OSError, match="descriptor"):
        cli.main()


def test_doctor_tells_what_is_missing(monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    from outpost import doctor

    assert doctor.report()
    assert "MicroPython" in capsys.readouterr().out
    monkeypatch.setattr(doctor.unix, "can_compile", lambda folder: False)
    assert not doctor.report()
    assert "build-essential" in capsys.readouterr().out


def test_ctrl_c_while_a_verb_runs() -> None:
    code = ("import signal, time, typer\nfrom outpost import cli\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # though we may ignore it
            "@cli.app.command()\ndef wait():\n    print('up', flush=True); time.sleep(60)\n"
            "cli.main()")
    with subprocess.Popen([sys.executable, "-c", code, "wait"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "up\n"
        os.kill(process.pid, signal.SIGINT)
        _, shown = process.communicate()
    assert process.returncode == 130
    assert shown == ""
