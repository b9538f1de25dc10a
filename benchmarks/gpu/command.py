"""The commands of `atspeed-bench` for a GPU: figures of drafting, of tree attention, and of trained models end to end.

Invariant: as in `benchmarks.cli`, nothing heavy is imported before a command runs.
"""

import typer

# What these commands are given, their modules read themselves: they also run where torch, transformers and numpy are all that there is.
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def gpu(context: typer.Context) -> None:
    """Time drafting on random models of served size: `--help` lists shapes, prompts and batches (GPU; a CPU runs small ones).

    The same as `python -m benchmarks.gpu.run`, which needs torch, transformers and numpy only.
    """
    from benchmarks.gpu.run import main

    main(context.args)


def kernel(context: typer.Context) -> None:
    """Time tree attention against what the device can do at best: `--help` lists shapes, prompts and batches.

    The same as `python -m benchmarks.gpu.kernel`, which needs torch, transformers and numpy only.
    """
    from benchmarks.gpu.kernel import main

    raise typer.Exit(main(context.args))


def truth(context: typer.Context) -> None:
    """Train a target and a draft on this device and measure them end to end: `--help` lists data, sizes and lengths.

    The same as `python -m benchmarks.gpu.truth`, which needs torch, transformers, numpy, accelerate and msgspec.
    """
    from benchmarks.gpu.truth import main

    raise typer.Exit(main(context.args))
