"""Our model beside the usual ones: same text, tokenizer, tokens, parameters and trials for tuning.

    python benchmarks/language_models.py --models kneser-ney --tokens 24576 64000 512000 3000000
    python benchmarks/language_models.py --tokens 64000 --parameters 1.5e6 --trials 6 --seeds 0 1 2
    python benchmarks/language_models.py --table

For each number of tokens, of parameters and each model: the width that has that many parameters;
an Optuna study (TPE) over learning rate, dropout and weight decay (for ours those of Phase 2, and
dist-reg-weight where there is a Phase 1), judged by validation perplexity; then a training under
each seed with the best values, judged on the test split's rows. Every training keeps its best epoch
by validation.

Finished trainings stand in --records, a line each, and the studies in a database beside it: the
same command goes on where it was left and repeats nothing. --table prints what is there.

Columns: weights in all, those of F included where it is not trained (for kneser-ney the n-grams that
it counts); training tokens, each seen once an epoch; perplexity and bits a byte of the predicted
tokens of the test rows, whose bytes are those of their text, mean and standard deviation over
seeds; wall time of a training, validations included, and training tokens it read a second (Phase
1's sweeps count for ours); wall time to generate a token for one row.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna
import torch

from benchmarks.baselines.candidates import parse_given
from benchmarks.baselines.comparison import Comparison
from benchmarks.baselines.curves import draw_curves
from benchmarks.baselines.options import MODELS, SHARED, Given, Options
from benchmarks.baselines.ours import parse_overrides
from benchmarks.baselines.records import Cell, Records, read_cells, table_lines
from benchmarks.devices import open_device
from benchmarks.options import parse_alone, run


def main() -> int:
    options = parse_alone(Options, __doc__)
    options.check()
    overrides = parse_overrides(options.ours, taken=SHARED)
    if options.table:
        cells = read_cells(options.records)
    else:
        device = open_device(options.device)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        cells = _measure(options, Given(overrides, parse_given(options.baselines)), device)
    print("\n".join(table_lines(cells, MODELS)))
    if options.plot is not None:
        draw_curves(cells).savefig(options.plot, dpi=150)
    return 0


def _measure(options: Options, given: Given, device: torch.device) -> list[Cell]:
    with Records(options.records) as records:
        try:
            for tokens in dict.fromkeys(options.tokens):
                Comparison(options, given, records, device, tokens).run()
        except KeyboardInterrupt:
            print("Interrupted; the same command goes on.", flush=True)
            raise
        return records.cells


if __name__ == "__main__":
    run(main)
