"""generate.py as a user runs it, on a real small run."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import generate
from config import InputError
from tests import commands

ENDLESS = ("--ignore-end-of-text", "--max-new-tokens", "1000000000")
Write = Callable[..., str]


@pytest.fixture
def write(run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Write:
    """What generate.py prints for some arguments."""

    def written(*arguments: str) -> str:
        default = [] if "--checkpoint" in arguments else ["--checkpoint", run]
        monkeypatch.setattr(sys, "argv", ["generate.py", *default, *arguments])
        assert generate.main() == 0
        return capsys.readouterr().out

    return written


def test_a_seed_writes_one_text_and_another_seed_another(write: Write, run: str) -> None:
    first = write("--prompt", "A: hi", "--max-new-tokens", "30", "--seed", "3")
    assert first.startswith("A: hi")
    assert first.endswith("\n")
    for path in ("phase2/best.ckpt", "model"):
        checkpoint = ("--checkpoint", f"{run}/{path}")
        same = write(*checkpoint, "--prompt", "A: hi", "--max-new-tokens", "30", "--seed", "3")
        assert same == first
    assert write("--prompt", "A: hi", "--max-new-tokens", "30", "--seed", "4") != first


def test_samples_are_those_of_the_seeds_that_follow(write: Write) -> None:
    samples = write("--num-samples", "2", "--max-new-tokens", "9", "--seed", "5")
    alone = [write("--max-new-tokens", "9", "--seed", seed) for seed in ("5", "6")]
    headings = [f"--- sample {index} of 2, seed {index + 4}\n" for index in (1, 2)]
    assert samples == headings[0] + alone[0] + headings[1] + alone[1]
    assert alone[0] != alone[1]


def test_without_a_temperature_the_seed_makes_no_difference(write: Write) -> None:
    greedy = ("--temperature", "0", "--max-new-tokens", "12", "--seed")
    assert write(*greedy, "1") == write(*greedy, "2")
    one_choice = ("--top-k", "1", "--max-new-tokens", "12", "--seed")
    assert write(*one_choice, "1") == write(*greedy, "1")


def test_a_prompt_from_a_file_is_read_and_not_printed(write: Write, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("A: hi", encoding="utf-8")
    continued = write("--prompt-file", str(tmp_path / "prompt.txt"), "--max-new-tokens", "20")
    assert write("--prompt", "A: hi", "--max-new-tokens", "20") == "A: hi" + continued


def test_text_ends_with_its_document_unless_told_otherwise(
    write: Write,
    run: str,
    tmp_path: Path,
) -> None:
    """A model that is sure of end-of-text, id 0, after every token."""
    checkpoint = torch.load(Path(run, "phase2", "best.ckpt"), weights_only=True)
    checkpoint["state_dict"]["head.output_bias"][0] = 1e4
    checkpoint["state_dict"]["head.copying.gates.bias"].fill_(-1e4)
    torch.save(checkpoint, tmp_path / "final.ckpt")
    sure = ("--checkpoint", str(tmp_path / "final.ckpt"), "--prompt", "so", "--max-new-tokens", "3")
    assert write(*sure) == "so\n"
    assert write(*sure, "--ignore-end-of-text") == "so" + 3 * "<|endoftext|>" + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "--temperature is -1.0; it must be 0 or more"),
        (["--temperature", "nan"], "--temperature is nan; it must be 0 or more"),
        (["--top-p", "0"], "--top-p is 0.0; it must be above 0 and at most 1"),
        (["--top-p", "1.01"], "--top-p is 1.01; it must be above 0 and at most 1"),
        (["--top-k", "0"], "--top-k is 0; it must be 1 or more"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0; it must be 1 or more"),
        (["--num-samples", "0"], "--num-samples is 0; it must be 1 or more"),
        (["--seed", "-1"], "--seed is -1; it must be 0 or more"),
        (["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file exclude each other"),
        (["--prompt", os.fsdecode(b"na\xefve")], "--prompt cannot be read: it is no UTF-8"),
        (["--prompt-file", "none.txt"], "--prompt-file none.txt cannot be read: No such file"),
        (["--prompt-file", "latin.txt"], "--prompt-file latin.txt cannot be read: it is no UTF-8"),
        (["--checkpoint", "none.ckpt"], "--checkpoint none.ckpt does not exist"),
    ],
)
def test_bad_input_is_told(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes("naïve".encode("latin-1"))
    with pytest.raises(InputError) as raised:
        write(*arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bad_input_ends_with_2(tmp_path: Path) -> None:
    ran = commands.run(tmp_path, "generate.py", "--checkpoint", "none", "--top-p", "2", expect=2)
    assert (ran.stdout, len(ran.stderr.splitlines())) == ("", 1)


def test_ctrl_c_keeps_what_was_written_and_ends_with_130(run: str, tmp_path: Path) -> None:
    """On an output that has no characters beyond ASCII, too."""
    ascii_only = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
    writing = commands.command("generate.py", "--checkpoint", run, "--prompt", "A: hi", *ENDLESS)
    with commands.started(writing, tmp_path, environment=ascii_only) as process:
        assert process.stdout is not None
        seen = process.stdout.read(100)
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate()
    assert process.returncode == 130
    assert error == ""
    assert seen.startswith("A: hi")
    assert rest.endswith("\n")


def test_a_reader_that_has_seen_enough_ends_it_without_an_error(run: str, tmp_path: Path) -> None:
    writing = commands.command("generate.py", "--checkpoint", run, *ENDLESS)
    with commands.started(writing, tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(10)) == 10
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr.read() == ""
