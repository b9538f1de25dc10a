"""A template from its source: what is wrong with it is found when it is read, with line and column; what is wrong in a rendering, too."""

import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from drafting.errors import PromptError
from drafting.prompts.bounds import Endless, Late, Steps, concat, running
from drafting.prompts.sandbox import CONCAT, STEP, Sandbox, count_steps
from drafting.prompts.view import NoSuchName, SaidError

# Names that every template knows.
FUNCTIONS = ("range", "dict", "namespace", "cycler", "joiner", "raise_exception")
_OTHER_FILES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_WORD = re.compile(r"\w+")
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")


class TemplateFault(PromptError):
    """A template can't be rendered, whoever the user is."""


class TooLong(TemplateFault):
    """A template writes too much, which may be because of long lists."""


class TooSlow(TemplateFault):
    """A template takes too much time, on this machine."""


class TextTemplate:
    """A template that can be rendered.

    Attributes:
        names: variables that it reads.
    """

    def __init__(self, source: str, place: str, known: Collection[str] | None) -> None:
        """
        Args:
            place: where it stands, as a sentence about it begins.
            known: variables that there are; None for a chat template, which may ask for any.

        Raises:
            TemplateFault: it is no template, names other variables, or reaches for what is out of reach.
        """
        self._place = place
        if known is None:
            # The block marks what training scores, and changes nothing of the text.
            source = _GENERATION.sub(lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", source)
        sandbox = Sandbox(is_chat=known is None)
        try:
            tree = sandbox.parse(source)
            sandbox.said = frozenset(_said(tree))
            counted = sandbox.parse(source)
            count_steps(counted, sandbox)
            self._template = sandbox.from_string(counted)
            self.names = find_undeclared_variables(tree)
            faults = [(line, _column(sandbox, source, line, name), sentence) for line, name, sentence in _faults(tree, known)]
        except (RecursionError, SyntaxError, UnicodeError) as error:
            raise TemplateFault(f"{place}: it is nested too deeply, or holds what is no text.") from error
        except TemplateSyntaxError as error:
            raise TemplateFault(f"{place}, line {error.lineno}: {(error.message or 'no template').rstrip('.')}.") from error
        for line, column, sentence in sorted(faults):
            raise TemplateFault(f"{place}, line {line}, column {column}: {sentence}.")

    def render(self, variables: Mapping[str, Any], most: int, steps: Steps | None = None) -> str:
        """The text of the template.

        Args:
            most: letters that it may have.
            steps: what it may do, and what is rendered with the same ones; by default as much as a template may at all.

        Raises:
            TooLong: the text has more letters.
            TooSlow: it takes too much time.
            TemplateFault: the template can't be rendered, whoever the user is.
            PromptError: it can't be rendered with these variables.
        """
        pieces, letters, steps = [], 0, steps or Steps()
        rendering = running.set(steps)
        try:
            for piece in self._template.generate(variables, **{STEP: steps, CONCAT: concat}):
                letters += len(piece)
                if letters > most:
                    raise TooLong(f"{self._place}: it writes more than {most:,} letters.")
                pieces.append(piece)
        except TooLong:
            raise
        except Late as error:
            raise TooSlow(self._sentence(error, str(error))) from error
        except (Endless, NoSuchName) as error:
            raise TemplateFault(self._sentence(error, str(error))) from error
        except (RecursionError, MemoryError) as error:
            raise TemplateFault(self._sentence(error, "its recursion is too deep, or it takes too much memory")) from error
        except SaidError as error:
            raise PromptError(self._sentence(error, str(error).rstrip("."))) from error
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            # Libraries quote what they can't find or read, and a value of a person belongs into no sentence, nor into a log.
            raise PromptError(self._sentence(error, "it can't be rendered with a value that is known of this user")) from None
        finally:
            running.reset(rendering)
        return "".join(pieces)

    def _sentence(self, error: Exception, said: str) -> str:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
        line = f", line {lines[-1]}" if lines else ""
        return f"{self._place}{line}: {said}."


def _said(tree: nodes.Template) -> Iterator[str]:
    """Names and texts that stand in a template."""
    yield from (read.attr for read in tree.find_all(nodes.Getattr))
    for constant in tree.find_all(nodes.Const):
        # Paths of attributes and fields of formats among them.
        yield from (text := str(constant.value), *_WORD.findall(text))


def _faults(tree: nodes.Template, known: Collection[str] | None) -> Iterator[tuple[int, str, str]]:
    """What a template must not do: line, the name in question, and a sentence."""
    for other in tree.find_all(_OTHER_FILES):
        yield other.lineno, type(other).__name__.lower(), "a prompt's template stands alone and can't read another file"
    unknown = set() if known is None else find_undeclared_variables(tree) - {*known, *FUNCTIONS}
    for name in tree.find_all(nodes.Name):
        if name.name in unknown:
            yield name.lineno, name.name, f"there is no {name.name!r}: a template knows {', '.join(known or ())}"
        if name.name in (STEP, CONCAT):
            yield name.lineno, name.name, f"{name.name!r} is taken"
    attributes = [(read.lineno, read.attr) for read in tree.find_all(nodes.Getattr)]
    attributes += [(read.lineno, read.arg.value) for read in tree.find_all(nodes.Getitem) if isinstance(read.arg, nodes.Const)]
    for line, attribute in attributes:
        if isinstance(attribute, str) and attribute.startswith("_"):
            yield line, attribute, f"{attribute!r} is out of reach, as all names that begin with an underscore"


def _column(sandbox: Sandbox, source: str, line: int, name: str) -> int:
    """The column of a name on a line, from 1."""
    position = 0
    for number, kind, value in sandbox.lex(source):
        found = source.find(value, position)
        position = max(found, position)
        if number == line and name in value and kind in ("name", "string"):
            return position - source.rfind("\n", 0, position)
        position += len(value)
    return 1
