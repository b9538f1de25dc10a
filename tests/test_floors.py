"""Imports only go down: the floors, and the rooms of each floor, stand in one order.

A room is a folder of a floor or a file at its root. A file may import its own room and the rooms before it in the list of its floor, and
everything of the floors before its own. Imports inside functions and under TYPE_CHECKING count like all others.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

# The lowest comes first. A file belongs to the longest entry that its path begins with.
FLOORS = {
    "drafting": [
        "builds",
        "__init__",
        "array_types",
        "errors",
        "undecodable",
        "device",
        "lru",
        "cache",
        "model_files",
        "pretrained",
        "mapped_arrays",
        "memory",
        "freed_memory",
        "trie",
        "catalog",
        "prompts",
        "beam",
        "plans",
        "alignment/data",
        "preparation",
        "neighbours",
        "embeddings",
        "alignment",
    ],
    "verification": [
        "__init__",
        "blend",
        "scored",
        "explanation",
        "lengths",
        "request",
        "result",
        "search",
        "thought",
        "slots",
        "verifiers",
        "engine",
        "hosts",
        "batch",
        "request_maker",
        "recommender",
        "evaluation",
        "teacher",
    ],
    "server": [
        "__init__",
        "errors",
        "try_again",
        "engine_settings",
        "settings",
        "submit",
        "messages",
        "store_kind",
        "redis",
        "sqlite",
        "ticks",
        "metrics",
        "keys",
        "scheduling",
        "engine",
        "histories",
        "control",
        "schemas",
        "catalogs",
        "services",
        "lists",
        "http",
        "offline",
        "client",
        "console",
        "demo",
        "commands",
        "cli",
    ],
}
WORKSHOP = {"benchmarks", "tests", "deploy"}
LIBRARIES_OF_SERVER = {"fastapi", "starlette", "redis", "prometheus_client", "uvicorn", "opentelemetry"}
FILES_OF_VLLM = tuple(f"verification/hosts/{name}.py" for name in ("vllm", "vllm_attention", "vllm_head", "vllm_int8", "vllm_start"))
MOST_LINES = 300


class House:
    """The files of the floors, and what each imports."""

    def __init__(self, root: Path, floors: Mapping[str, Sequence[str]]) -> None:
        self.root = root
        self.floors = floors
        paths = [path.relative_to(root) for floor in floors for path in sorted((root / floor).rglob("*.py"))]
        self.files = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in paths}

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """For each module the dotted names that it imports, the names inside modules included."""
        return {module: set(imported_names(self.root / path, package(module, path))) for module, path in self.files.items()}

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """For each module the modules of the floors that it imports."""
        return {module: {self._module(name) for name in names} - {"", module} for module, names in self.imports.items()}

    def room(self, module: str) -> str:
        """The room of a module, empty if it has none."""
        floor, _, place = self.files[module].with_suffix("").as_posix().partition("/")
        return max((room for room in self.floors[floor] if f"{place}/".startswith(f"{room}/")), key=len, default="")

    def _module(self, name: str) -> str:
        """The module that a dotted name is, or is in; empty if it is none of the floors."""
        while name and name not in self.files:
            name = name.rpartition(".")[0]
        return name


def package(module: str, path: Path) -> str:
    return module if path.stem == "__init__" else module.rpartition(".")[0]


def imported_names(path: Path, package: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def floor_of(name: str) -> str:
    return name.partition(".")[0]


def imports_of_higher_floors(house: House) -> Iterator[str]:
    order = list(house.floors)
    for module, names in house.imports.items():
        above = {*order[order.index(floor_of(module)) + 1 :], *WORKSHOP}
        for name in sorted(names):
            if floor_of(name) in above:
                yield f"{house.files[module]} imports {name} from above: move what it needs down to {floor_of(module)}/, or pass it in."


def imports_of_higher_rooms(house: House) -> Iterator[str]:
    for module, imported in house.arrows.items():
        floor = floor_of(module)
        rooms = ["", *house.floors[floor]]
        for other in sorted(imported):
            here, there = house.room(module), house.room(other)
            if floor_of(other) == floor and rooms.index(there) > rooms.index(here):
                yield (
                    f"{house.files[module]} imports {other}, but FLOORS[{floor!r}] has {here!r} before {there!r}: "
                    f"move what both need to a room that comes before, or pass it in."
                )


def circles_of_files(house: House) -> Iterator[str]:
    try:
        TopologicalSorter(house.arrows).prepare()
    except CycleError as error:
        # The sorter goes from what is imported to what imports it.
        yield f"A circle of imports, {' -> '.join(reversed(error.args[1]))}: move what they share to a file of its own."


def files_without_a_room(house: House) -> Iterator[str]:
    for module, path in house.files.items():
        if not house.room(module):
            yield f"{path} is in no room: put it in one, or add its new room to FLOORS[{floor_of(module)!r}] above all that it imports."


def rooms_without_files(house: House) -> Iterator[str]:
    for floor, rooms in house.floors.items():
        lived_in = {house.room(module) for module in house.files if floor_of(module) == floor}
        for room in rooms:
            if room not in lived_in:
                yield f"FLOORS[{floor!r}] lists {room!r}, which has no files: take it off the list."


def forbidden_libraries(house: House) -> Iterator[str]:
    for module, names in house.imports.items():
        path = house.files[module]
        forbidden = set() if floor_of(module) == "server" else LIBRARIES_OF_SERVER
        if path.as_posix() not in FILES_OF_VLLM:
            forbidden = forbidden | {"vllm"}
        for library in sorted({floor_of(name) for name in names} & forbidden):
            place = " and ".join(FILES_OF_VLLM) if library == "vllm" else "server/"
            yield f"{path} imports {library}, which belongs to {place} alone: put what needs it there."


def long_files(house: House) -> Iterator[str]:
    for path in house.files.values():
        if (lines := len((house.root / path).read_text().splitlines())) > MOST_LINES:
            yield f"{path} has {lines} lines, more than {MOST_LINES}: split it by its nouns."


RULES: list[Callable[[House], Iterator[str]]] = [
    imports_of_higher_floors,
    imports_of_higher_rooms,
    circles_of_files,
    files_without_a_room,
    rooms_without_files,
    forbidden_libraries,
    long_files,
]


@pytest.fixture(scope="module")
def house() -> House:
    return House(Path(__file__).parents[1], FLOORS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(house: House, rule: Callable[[House], Iterator[str]]) -> None:
    assert len(house.files) > 100
    complaints = list(rule(house))
    assert not complaints, "\n".join(complaints)


SMALL = {
    "verification/__init__.py": "",
    "verification/hosts/__init__.py": "",
    "verification/hosts/vllm.py": "import vllm\n",
    "server/__init__.py": "",
    "server/errors.py": "",
    "server/lists/__init__.py": "",
    "server/lists/rules.py": "from server import errors\nfrom verification.hosts import vllm\n",
    "server/lists/service.py": "from server.lists.rules import choose\n",
}
SMALL_FLOORS = {"verification": ["__init__", "hosts"], "server": ["__init__", "errors", "lists"]}


def complaints(root: Path, planted: Mapping[str, str]) -> list[str]:
    """The complaints about a small house with planted files."""
    for name, text in (SMALL | planted).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    house = House(root, SMALL_FLOORS)
    return [complaint for rule in RULES for complaint in rule(house)]


def test_a_house_in_order_gives_no_reason_to_complain(tmp_path: Path) -> None:
    assert complaints(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("server/errors.py", "import server.lists.rules\n", "server/errors.py imports server.lists.rules, but FLOORS['server'] has"),
        ("server/errors.py", "def late():\n    from server.lists import rules\n", "FLOORS['server'] has 'errors' before 'lists'"),
        ("server/errors.py", "from .lists.rules import choose\n", "FLOORS['server'] has 'errors' before 'lists'"),
        ("server/lists/rules.py", "if TYPE_CHECKING:\n    from server.lists.service import S\n", "A circle of imports, server.lists."),
        ("verification/hosts/vllm.py", "from server.errors import E\n", "vllm.py imports server.errors.E from above"),
        ("server/errors.py", "import benchmarks.load\n", "server/errors.py imports benchmarks.load from above"),
        ("server/errors.py", "from deploy.checks import chart\n", "server/errors.py imports deploy.checks.chart from above"),
        ("server/helpers.py", "", "server/helpers.py is in no room"),
        ("server/tools/__init__.py", "", "server/tools/__init__.py is in no room"),
        ("server/lists/rules.py", "import vllm.engine\n", "rules.py imports vllm, which belongs to verification/hosts/vllm.py and "),
        ("verification/hosts/vllm_more.py", "import vllm\n", "vllm_more.py imports vllm, which belongs to verification/hosts/vllm.py and "),
        (
            "verification/hosts/__init__.py",
            "from redis.asyncio import Redis\n",
            "__init__.py imports redis, which belongs to server/",
        ),
        ("server/lists/rules.py", "\n" * 301, "server/lists/rules.py has 301 lines, more than 300"),
    ],
)
def test_what_is_planted_is_found(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    assert any(complaint in each for each in complaints(tmp_path, {name: text}))


def test_a_listed_room_without_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "drafting/trie").mkdir(parents=True)
    (tmp_path / "drafting/trie/arrays.py").touch()
    assert list(rooms_without_files(House(tmp_path, {"drafting": ["trie", "beam"]}))) == [
        "FLOORS['drafting'] lists 'beam', which has no files: take it off the list."
    ]
