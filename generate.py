"""Command line of generation: goes on with a text, token by token, at the same cost for each."""

import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import command_line
from config import Accelerator, InputError, require

if TYPE_CHECKING:
    import torch

    from lightning_modules.model_folder import LanguageModel


@dataclass(frozen=True)
class GenerateOptions:
    """What to write.

    Raises:
        InputError: an option is outside its range.
    """

    checkpoint: Path
    """Phase 2's checkpoint, the folder of a run, whose best one is taken, or a run's `model` folder."""
    prompt: str = ""
    """Beginning of the text, which is printed too. It is read as the beginning of a document; where
    it is empty, a document is made up."""
    prompt_file: Path | None = None
    """File with the beginning of the text, of any length, in place of --prompt; it is not printed."""
    max_new_tokens: int = 200
    """Tokens to write at most."""
    num_samples: int = 1
    """Texts to write, one after the other; each has the seed of the one before plus 1."""
    temperature: float = 0.8
    """Below 1, probable tokens are taken more often than their probability says; 0 takes the most
    probable."""
    top_p: float = 0.95
    """Tokens are drawn from the fewest that have this probability together; 1 takes all."""
    top_k: int | None = None
    """Tokens are drawn from this number of the most probable ones; None takes all."""
    ignore_end_of_text: bool = False
    """Go on with another document where one has ended."""
    seed: int = 42
    """Seed of the draws; the same seed writes the same text."""
    accelerator: Accelerator = "auto"
    """Where to compute."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_samples"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        finite = 0 <= self.temperature < float("inf")
        require(finite, "temperature", self.temperature, "0 or more")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        require(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "1 or more")
        in_range = self.seed >= 0 and self.seed + self.num_samples <= 2**32
        require(in_range, "seed", self.seed, "0 or more and below 2**32")
        try:
            self.prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError("--prompt cannot be read: it is no UTF-8.") from error
        if self.prompt and self.prompt_file is not None:
            raise InputError("--prompt and --prompt-file exclude each other; give one of them.")


def parse(arguments: list[str]) -> GenerateOptions:
    """Reads the command line; prints help or a usage error and exits as `tyro` does.

    Raises:
        InputError: an option is outside its range.
    """

    def options(given: Annotated[GenerateOptions, tyro.conf.arg(name="")]) -> GenerateOptions:
        return given

    return tyro.cli(options, args=arguments, prog="generate.py", description=__doc__)


def main() -> int:
    """Writes texts; returns the exit code."""
    options = parse(sys.argv[1:])
    prompt = _prompt(options)
    from lightning_modules.language_model import load_language_model

    model = load_language_model(options.checkpoint, _device(options.accelerator))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal may not have every character.
        sys.stdout.reconfigure(errors="replace")
    try:
        _write_samples(options, model, prompt)
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` has; what Python flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _device(accelerator: Accelerator) -> "torch.device":
    import torch

    from tuning.training import check_accelerator

    check_accelerator(accelerator)
    found = None if accelerator == "cpu" else torch.accelerator.current_accelerator()
    return found or torch.device("cpu")


def _prompt(options: GenerateOptions) -> str:
    if options.prompt_file is None:
        return options.prompt
    try:
        return options.prompt_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise InputError(
            f"--prompt-file {options.prompt_file} cannot be read: {reason}."
        ) from error


def _write_samples(options: GenerateOptions, model: "LanguageModel", prompt: str) -> None:
    from lightning_modules.text_writer import Sampling, read_text, write_text

    read = read_text(model, prompt)
    sampling = Sampling(options.temperature, options.top_p, options.top_k)
    for index in range(options.num_samples):
        seed = options.seed + index
        if options.num_samples > 1:
            print(f"--- sample {index + 1} of {options.num_samples}, seed {seed}", flush=True)
        print(options.prompt, end="", flush=True)
        written = write_text(
            model,
            read,
            seed=seed,
            sampling=sampling,
            max_new_tokens=options.max_new_tokens,
            ignore_end_of_text=options.ignore_end_of_text,
        )
        try:
            for text in written:
                print(text, end="", flush=True)
        finally:
            # After Ctrl-C too, so that what follows begins on a line of its own.
            print(flush=True)


if __name__ == "__main__":
    command_line.run(main)
