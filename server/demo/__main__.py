"""`python -m server.demo` prepares the demo and ends.

It is a process of its own because the libraries that train hold hundreds of megabytes, which the server that runs afterwards needs not.
"""

import sys

import typer

from drafting.alignment.settings import TrainingError
from drafting.cache import cache_directory
from server.demo.movielens import MovieLensError
from server.demo.preparation import DemoSettings, prepare
from server.try_again import HistoryUnavailable

INTERRUPTED = 130


def main() -> int:
    """Prepare the demo; the exit status."""
    cache = cache_directory()
    try:
        prepare(cache, DemoSettings())
    except (MovieLensError, TrainingError, HistoryUnavailable) as error:
        sentence = str(error)
    except ImportError as error:
        sentence = f"The demo trains a model, which needs the extra 'train' ({error}): pip install 'atspeed-server[train]'."
    except OSError as error:
        sentence = f"The demo cannot use its cache {cache}: {error}. Set ATSPEED_CACHE to a directory with some room."
    except KeyboardInterrupt:
        return INTERRUPTED
    else:
        return 0
    typer.secho(sentence, err=True, fg=typer.colors.RED)
    return 1


if __name__ == "__main__":
    sys.exit(main())
