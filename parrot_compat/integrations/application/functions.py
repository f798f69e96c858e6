"""Semantic functions: a docstring that a model completes.

    @semantic_function(max_tokens=64)
    def write_python_code(task: str | Variable) -> Outputs:
        '''Write a Python function for: {{input:task}}. Code: {{output:code}}'''

    made = write_python_code("a sort")                      # at once: made.code is a variable, not yet a text
    test = write_test_code(made.code.transform("strip"))    # an edge of the graph; nothing is waited for here
    print(test.test.get())                                  # or: await test.test

The parameters are the template's inputs: a text, a number, or a variable of another call. Sampling is given for all
outputs (`max_tokens=…`), or by output (`outputs={"code": Output(temperature=0)}`). Where langchain-core is installed
(1.7 or newer), every semantic function is also a LangChain Runnable.

The invariant: a function that exists agrees with its template; what does not is refused where it is written.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, get_type_hints, overload

from parrot_compat.core.call import ObjectiveKind
from parrot_compat.core.errors import BadTemplate
from parrot_compat.core.template import TemplateForm

from .application import current_session
from .output import Output, OutputFields
from .outputs import Outputs
from .request import Request
from .session import Session
from .variable import Variable

__all__ = ["SemanticFunction", "semantic_function"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@overload
def semantic_function(function: Callable[P, R], /) -> SemanticFunction[P, R]: ...


@overload
def semantic_function(
    *,
    outputs: Mapping[str, Output] | None = None,
    form: TemplateForm = "chat",
    model: str | None = None,
    objective: ObjectiveKind | None = None,
    template: str | None = None,
    **sampling: Unpack[OutputFields],
) -> Callable[[Callable[P, R]], SemanticFunction[P, R]]: ...


def semantic_function(
    function: Callable[P, R] | None = None,
    /,
    *,
    outputs: Mapping[str, Output] | None = None,
    form: TemplateForm = "chat",
    model: str | None = None,
    objective: ObjectiveKind | None = None,
    template: str | None = None,
    **sampling: Unpack[OutputFields],
) -> Any:
    """Make a function whose docstring (or `template`) is a template, and whose body is never run.

    `sampling` is of every output, `outputs` of those it names; `form` is how the template speaks to the model.
    Errors: `BadTemplate` where parameters, template and return type do not agree.
    """

    def decorate(function: Callable[P, R]) -> SemanticFunction[P, R]:
        text = template if template is not None else inspect.getdoc(function)
        if text is None:
            raise BadTemplate(f"{function.__qualname__} has no docstring to be its template (python -OO strips them)")
        request = Request(
            template=text,
            sampling=Output(**sampling),
            outputs=outputs or {},
            form=form,
            function=function.__name__,
            model=model,
            objective=objective,
        )
        return _kind()(function, request)

    return decorate if function is None else decorate(function)


class SemanticFunction(Generic[P, R]):
    """Made by `semantic_function`. Calls belong to the session that the function is within, else to that of the
    variables they read, else to the current one."""

    def __init__(self, function: Callable[P, R], request: Request) -> None:
        functools.update_wrapper(self, function)
        self.request = request
        self.signature = inspect.signature(function)
        self.made = _outputs_of(function)
        self.made.check(request.parsed.outputs)
        self._own_session: Session | None = None
        self._must_agree()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Hand the call over, and return its variables at once. Errors: `BadTemplate` for an input of no use."""
        values = self._values(args, kwargs)
        (variables,) = self.session_of(values).call_each(self.request, [values])
        return self._outputs(variables)

    def map(self, *args: Any, **kwargs: Any) -> list[R]:
        """The function over lists, side by side, as one group: arguments that are lists go item by item, the others
        are the same for each. Errors: `BadTemplate`, and nothing was handed over."""
        given = self.signature.bind(*args, **kwargs).arguments
        lists = {name: value for name, value in given.items() if isinstance(value, list | tuple)}
        lengths = {name: len(items) for name, items in lists.items()}
        if len(set(lengths.values())) != 1:
            found = ", ".join(f"{name} has {length}" for name, length in lengths.items()) or "there is none"
            raise BadTemplate(f"{self.__name__}.map takes lists of one length; {found}", "bindings")
        (count,) = set(lengths.values())
        each = [
            self._values((), {**given, **{name: items[index] for name, items in lists.items()}})
            for index in range(count)
        ]
        return self.map_values(each)

    def map_values(self, each: list[dict[str, str | Variable]]) -> list[R]:
        """As `map`, over inputs by name."""
        joined = (session for values in each if (session := self.joined_session(values)) is not None)
        session = next(joined, None) or current_session()
        return [self._outputs(variables) for variables in session.call_each(self.request, each)]

    def within(self, session: Session) -> Self:
        """The same function, whose calls belong to this session. A variable of another one is `BadTemplate`."""
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__, _own_session=session)
        return bound

    def __repr__(self) -> str:
        return f"<semantic function {self.__name__}{self.signature}>"

    def __reduce__(self) -> str:
        if self._own_session is not None:
            raise TypeError(f"{self.__name__} is within a session, which cannot be pickled")
        return self.__qualname__  # as any function is: by its name

    # ---- inside, also for the Runnable -------------------------------------------------------------------

    __name__: str
    __qualname__: str

    def joined_session(self, values: Mapping[str, str | Variable]) -> Session | None:
        """The session that this function is within, or that of the variables that are read."""
        read = (value.session for value in values.values() if isinstance(value, Variable))
        return self._own_session or next(read, None)

    def session_of(self, values: Mapping[str, str | Variable]) -> Session:
        return self.joined_session(values) or current_session()

    def _outputs(self, variables: Mapping[str, Variable]) -> R:
        outputs: Any = self.made(variables)
        return outputs  # type: ignore[no-any-return]

    def _values(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, str | Variable]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return {name: self._value(name, value) for name, value in bound.arguments.items()}

    def _value(self, name: str, value: Any) -> str | Variable:
        if isinstance(value, str | Variable):
            return value
        if isinstance(value, int | float):
            return str(value)
        hint = "; pass one of its variables" if isinstance(value, Outputs) else ""
        raise BadTemplate(
            f"input {name!r} of {self.__name__} is a {type(value).__name__}; it must be a text, a number or a "
            f"variable{hint}",
            "bindings",
        )

    def _must_agree(self) -> None:
        parameters = self.signature.parameters
        for name, parameter in parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise BadTemplate(f"parameter {name!r} of {self.__name__} is many; an input is one")
        inputs = set(self.request.parsed.inputs)
        if missing := inputs - set(parameters):
            raise BadTemplate(f"{self.__name__} has no parameter for input {', '.join(sorted(missing))}")
        if unused := set(parameters) - inputs:
            raise BadTemplate(f"the template of {self.__name__} does not use parameter {', '.join(sorted(unused))}")


def _outputs_of(function: Callable[..., Any]) -> type[Outputs]:
    """What a call returns: the class that the function names, if it can be found from here."""
    said = SimpleNamespace(__annotations__={"return": inspect.get_annotations(function).get("return", Outputs)})
    try:
        # of the return type alone: a parameter's may be known to type checkers only
        returned = get_type_hints(said, globalns=getattr(inspect.unwrap(function), "__globals__", {}))["return"]
    except (NameError, AttributeError):  # imported for type checkers only, or local to a function
        return Outputs
    if returned is Any:
        return Outputs
    if not (isinstance(returned, type) and issubclass(returned, Outputs)):
        raise BadTemplate(f"{function.__qualname__} returns {returned!r}; a semantic function returns Outputs")
    return returned


@functools.cache
def _kind() -> type[SemanticFunction[Any, Any]]:
    """A Runnable where there is LangChain, because what is piped into a function must find one; the package itself
    needs none."""
    if importlib.util.find_spec("langchain_core") is None:
        return SemanticFunction
    try:
        from parrot_compat.integrations.langchain.function_runnable import RunnableFunction
    except ImportError as error:
        log.warning("semantic functions are no Runnables here: that needs langchain-core 1.7 or newer (%s)", error)
        return SemanticFunction
    return RunnableFunction
