"""Interactions from LC-Rec's and LETTER's `….inter.json`: `{user: [item, …]}`, each user's items in the order of time.

Invariant: the order of a list is the order of time; there are no timestamps.
"""

import json
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.item_index import ItemIndex, known_indices
from drafting.errors import InteractionError, check_file
from drafting.trie.arrays import offsets_of

SUFFIX = ".inter.json"
_FORM = '{"user": ["item", …], …}'


def load_inter(path: Path, catalog: ItemIndex) -> Interactions:
    """Read the users and their items.

    Raises:
        InteractionError: the file is malformed, or names a user twice or an item that the catalog does not have.
    """
    check_file(path, "The interactions", InteractionError)
    try:
        data = path.read_bytes()
        # As pairs, because a dictionary would silently keep the last of two equal keys.
        pairs = msgspec.convert(json.loads(data, object_pairs_hook=list), list[tuple[str, list[str | int]]])
    except OSError as error:
        raise InteractionError(f"The interactions {path} cannot be read: {error.strerror}.") from error
    except msgspec.ValidationError as error:
        raise InteractionError(f"The interactions {path} are not of the form {_FORM}: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise InteractionError(f"The interactions {path} are not JSON: {error}.") from error
    users = tuple(user for user, _ in pairs)
    if not data.lstrip().startswith(b"{") or len(set(users)) != len(users):
        raise InteractionError(f"The interactions {path} are not of the form {_FORM} with every user once.")
    names = [str(item) for item in chain.from_iterable(items for _, items in pairs)]
    different, numbers = np.unique(np.array(names, dtype=object), return_inverse=True)
    indices = known_indices(different.tolist(), catalog, path)
    lengths = np.fromiter((len(items) for _, items in pairs), np.int64, len(pairs))
    return Interactions(users, offsets_of(lengths), indices[numbers.reshape(-1)])
