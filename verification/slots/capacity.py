"""The maximum number of tree nodes that run at once: as many as fit in the memory of their table of continuations."""

from drafting.errors import SetupError
from drafting.trie.item_trie import ItemTrie
from verification.request import MAX_BEAM_WIDTH

TABLE_BYTES = 128 * 2**20
MOST_TABLE_BYTES = 8 * TABLE_BYTES
MOST_NODES = 16384


class CatalogTooLarge(SetupError):
    """A catalog whose continuations find no memory; the message is a sentence."""


def node_capacity(trie: ItemTrie) -> int:
    """Node slots of an engine that starts with this catalog, at least what the widest request needs to run alone."""
    fewest = 1 + MAX_BEAM_WIDTH * (trie.depth - 1)
    return max(fewest, min(MOST_NODES, TABLE_BYTES // (4 * max(trie.max_children))))


def check_capacity(trie: ItemTrie, nodes: int) -> None:
    """Raise CatalogTooLarge unless a catalog may be served with so many node slots, which another catalog has chosen."""
    if nodes <= MAX_BEAM_WIDTH * (trie.depth - 1) or 4 * nodes * max(trie.max_children) > MOST_TABLE_BYTES:
        raise CatalogTooLarge("The catalog needs more memory for continuations than this engine can still give: start a server with it.")
