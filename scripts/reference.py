"""The reference pages of the documentation, generated from the code while MkDocs builds.

MkDocs calls :func:`on_page_markdown` for each page (``hooks`` in mkdocs.yml). A line such as
``{{ settings }}`` in a page is replaced by what :data:`GENERATORS` makes of that name. Nothing
generated is committed, so a page cannot say something else than the code does.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    *("headrace", "bench", "deploy", "trainer", "serving"),
    *("features", "streaming", "inttower", "settings"),
)
_TEST = re.compile(r"^- `(test_\w+)`$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)
_TYPE_NAMES = {
    "NoneType": "null",
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "Path": "path",
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Fill in a page's placeholders, and name the file of each test that it lists.

    Raises:
        KeyError: no generator fills the placeholder, or there is no such test.
    """
    markdown = _TEST.sub(lambda found: f"- `{tests()[found[1]]}::{found[1]}`", markdown)
    return _PLACEHOLDER.sub(lambda found: GENERATORS[found[1]](), markdown)


@cache
def tests() -> dict[str, str]:
    """The file of each test, by the name of the test."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name in re.findall(r"def (test_\w+)\(", path.read_text()):
            found[name] = path.relative_to(ROOT).as_posix()
    return found


# ---------------------------------------------------------------------- settings


@cache
def settings() -> str:
    """Every setting: a table a section, and the way to set one from the environment."""
    from pydantic import BaseModel  # noqa: PLC0415

    from settings.settings import Settings  # noqa: PLC0415

    plain, sections = {}, {}
    for name, field in Settings.model_fields.items():
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        (sections if nested else plain)[name] = field
    pages = ["## At the top level\n", _settings_table(plain, "")]
    for name, field in sections.items():
        section = cast("type[BaseModel]", field.annotation)
        about = (section.__doc__ or "").strip()
        pages += [f"## `{name}`\n", f"{about}\n", _settings_table(section.model_fields, f"{name}.")]
    return "\n".join(pages)


@cache
def log_file() -> str:
    """Every key of the TOML that declares a log, a table of the TOML at a time."""
    from streaming.logs.log_file import LogFile  # noqa: PLC0415

    pages, seen = [], set()
    waiting: list[tuple[str, type[BaseModel]]] = [("", LogFile)]
    while waiting:
        key, form = waiting.pop(0)
        title = f"`[{key}]`" if key else "At the top level"
        fields = {name: f for name, f in form.model_fields.items() if name != "folder"}
        about = inspect.cleandoc(form.__doc__ or "").partition("\n\n")[0]
        pages += [f"## {title}\n", f"{about}\n", _settings_table(fields, "")]
        for name, field in fields.items():
            for nested in _models_in(field.annotation):
                if nested not in seen:
                    seen.add(nested)
                    many = "dict" in str(field.annotation)
                    waiting.append((f"{key}.{name}".strip(".") + (".NAME" if many else ""), nested))
    return "\n".join(pages)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - a type or a union
    from typing import get_args  # noqa: PLC0415

    from pydantic import BaseModel  # noqa: PLC0415

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models_in(one)


def _settings_table(fields: dict[str, FieldInfo], prefix: str) -> str:
    rows = []
    for name, field in fields.items():
        bounds = ", ".join(
            f"{sign} {getattr(rule, what)}"
            for rule in field.metadata
            for what, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
            if getattr(rule, what, None) is not None
        )
        kind = _type_name(field.annotation) + (f", {bounds}" if bounds else "")
        default = (
            "required"
            if field.is_required()
            else _value(field.get_default(call_default_factory=True))
        )
        rows.append((f"`{prefix}{name}`", kind, default, field.description or ""))
    return _table(("setting", "type", "default", "what it does"), rows)


def _value(value: object) -> str:
    from pydantic import BaseModel  # noqa: PLC0415

    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        value = {
            key: one.model_dump(mode="json") if isinstance(one, BaseModel) else one
            for key, one in value.items()
        }
    if value == "":
        return "empty"
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _type_name(annotation: Any) -> str:  # noqa: ANN401 - a type or a union of types
    from types import UnionType  # noqa: PLC0415
    from typing import Annotated, Literal, Union, get_args, get_origin  # noqa: PLC0415

    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in args)
    if origin in {Union, UnionType}:
        return " or ".join(_type_name(one) for one in args)
    if origin is Annotated:
        return _type_name(args[0])
    if origin in {tuple, list, set, frozenset}:
        inner = sorted({_type_name(one) for one in args if one is not Ellipsis})
        return f"list of {' or '.join(inner)}"
    if origin is dict:
        return f"table of {_type_name(args[1])}"
    name = getattr(annotation, "__name__", str(annotation))
    return _TYPE_NAMES.get(name, name)


# ---------------------------------------------------------------------- metrics

_PARTS = (
    ("server", ""),
    ("trainer", "trainer_"),
    ("writer", "writer_"),
    ("job", "job_"),
    ("broker", "broker_"),
    ("clock", "clock_"),
)


@cache
def metrics() -> str:
    """Every metric of every part, read from the registries that the parts expose."""
    rows: dict[str, list[tuple[str, ...]]] = {part: [] for part, _ in _PARTS}
    for metric in sorted(_all_metrics(), key=lambda one: one.name):
        rest = metric.name.removeprefix("headrace_")
        part = next((p for p, prefix in _PARTS if prefix and rest.startswith(prefix)), "server")
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = ", ".join(f"`{label}`" for label in _labels(metric))
        rows[part].append((f"`{name}`", metric.type, labels, metric.documentation))
    pages = []
    for part, found in rows.items():
        pages += [f"## {part}\n", _table(("name", "kind", "labels", "what it tells"), found)]
    return "\n".join(pages)


def _registries() -> Iterator[CollectorRegistry]:
    """The registries that hold the metrics of all parts, as each part makes them."""
    from prometheus_client import REGISTRY  # noqa: PLC0415

    import features.catalogue  # noqa: PLC0415
    import features.feature_writer  # noqa: PLC0415, F401
    import serving.server_metrics  # noqa: PLC0415, F401
    from streaming.job.job_metrics import JobMetrics  # noqa: PLC0415
    from streaming.kafka.broker import BrokerMetrics  # noqa: PLC0415
    from streaming.kafka.clock import ClockMetrics  # noqa: PLC0415
    from trainer.trainer_metrics import Metrics  # noqa: PLC0415

    for make in (JobMetrics, BrokerMetrics, ClockMetrics):
        make()
    yield REGISTRY
    yield Metrics().registry


_label_names: dict[str, tuple[str, ...]] = {}


def _all_metrics() -> Iterator[Metric]:
    for registry in _registries():
        for collector in list(registry._collector_to_names):
            for metric in collector.collect():
                if metric.name.startswith("headrace_"):
                    _label_names[metric.name] = getattr(collector, "_labelnames", ())
                    yield metric


def _labels(metric: Metric) -> Sequence[str]:
    return _label_names[metric.name]


# ---------------------------------------------------------------------- HTTP


@cache
def http() -> str:
    """The routes and forms of the server's OpenAPI document."""
    from serving.http.app import make_app  # noqa: PLC0415
    from serving.http.service import Service  # noqa: PLC0415
    from settings.settings import Settings  # noqa: PLC0415

    # a document is made of the routes alone: nothing is started
    document = make_app(Settings(), cast(Service, None)).openapi()
    forms = document["components"]["schemas"]
    pages = []
    for path, routes in document["paths"].items():
        for method, route in routes.items():
            pages.append(f"## {method.upper()} `{path}`\n\n{route.get('description', '')}\n")
            if body := _form_name(route.get("requestBody")):
                pages.append(f"Takes {_form_link(body)}.\n")
            answers = {status: _form_name(answer) for status, answer in route["responses"].items()}
            told = (f"{status}: {_form_link(name)}" for status, name in answers.items() if name)
            pages.append(f"Answers {', '.join(told) or 'text'}.\n")
    for name in sorted(forms):
        pages.append(f"### {name}\n\n{forms[name].get('description', '')}\n")
        pages.append(_form_table(forms[name]))
    return "\n".join(pages)


def _form_name(holder: dict[str, Any] | None) -> str | None:
    for content in (holder or {}).get("content", {}).values():
        reference: str = content.get("schema", {}).get("$ref", "")
        if reference:
            return reference.rpartition("/")[2]
    return None


def _form_link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _form_table(form: dict[str, Any]) -> str:
    required = set(form.get("required", ()))
    rows = []
    for name, field in form.get("properties", {}).items():
        about = field.get("description", "")
        parts = [one.get("description", "") for one in field.get("anyOf", ())]
        about = about or "; ".join(part for part in parts if part)
        if name in required:
            need = "required"
        else:
            need = _value(field["default"]) if "default" in field else ""
        rows.append((f"`{name}`", _json_type(field), need, about))
    return _table(("field", "type", "default", "what it is"), rows)


def _json_type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_json_type(one) for one in field["anyOf"]))
    if "$ref" in field:
        return _form_link(field["$ref"].rpartition("/")[2])
    if "enum" in field:
        return " or ".join(f"`{one}`" for one in field["enum"])
    kind = str(field.get("type", "anything"))
    if kind == "array":
        return f"list of {_json_type(field.get('items', {}))}"
    return "text" if kind == "string" else kind


# ---------------------------------------------------------------------- records


@cache
def records() -> str:
    """The topics with their partitions and settings, and the form of every record that is JSON."""
    import msgspec  # noqa: PLC0415

    from settings.settings import Settings  # noqa: PLC0415
    from streaming import events  # noqa: PLC0415
    from streaming.kafka.topics import all_topics  # noqa: PLC0415

    topics = []
    for topic in all_topics(Settings()):
        config = ", ".join(f"`{key}={value}`" for key, value in topic.config.items())
        topics.append((f"`{topic.name}`", str(topic.partitions), config))
    classes = (one for one in vars(events).values() if isinstance(one, type))
    kinds = [one for one in classes if issubclass(one, msgspec.Struct)]
    _, forms = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    pages = ["## Topics\n", _table(("topic", "partitions by default", "settings"), topics)]
    for name, form in forms.items():
        pages.append(f"### {name}\n\n{_sphinx_free(form.get('description', ''))}\n")
        pages.append(_form_table(form))
    return "\n".join(pages)


# ---------------------------------------------------------------------- commands


@cache
def commands() -> str:
    """The help of every command."""
    import typer.main  # noqa: PLC0415

    from headrace.cli import app  # noqa: PLC0415

    root = typer.main.get_command(app)
    pages = ["## headrace\n", f"{root.help}\n", _options_table(root.params)]
    for path, command in _leaves(root, ()):
        about, _, example = (command.help or "").partition("Example:")
        example = re.sub(r"\[/?bold\]", "", example).strip()
        arguments = " ".join(
            (p.name or "").upper() for p in command.params if p.param_type_name == "argument"
        )
        title = " ".join(("headrace", *path, arguments)).strip()
        pages += [f"## {' '.join(path)}\n", f"`{title}`\n", f"{about.strip()}\n"]
        if example:
            pages.append(f"```\n{example}\n```\n")
        pages.append(_options_table(command.params))
    return "\n".join(pages)


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - typer has no public type for both
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from _leaves(child, (*path, name))
        else:
            yield (*path, name), child


def _options_table(parameters: Iterable[Any]) -> str:
    rows = []
    for one in parameters:
        name = ", ".join((*one.opts, *one.secondary_opts))
        if one.param_type_name == "argument":
            name = (one.name or "").upper()
        default = one.default
        missing = default is None or callable(default) or "UNSET" in repr(default)
        default_text = "" if missing else _value(default)
        rows.append((f"`{name}`", default_text, getattr(one, "help", None) or ""))
    return _table(("option", "default", "what it does"), rows) if rows else ""


# ---------------------------------------------------------------------- code


@cache
def modules() -> str:
    """The first sentence of every module, folder by folder."""
    pages = []
    for folder in FOLDERS:
        rows = []
        for path in sorted((ROOT / folder).rglob("*.py")):
            about = ast.get_docstring(ast.parse(path.read_text())) or ""
            if path.name == "__init__.py" and path.parent == ROOT / folder:
                pages += [f"## `{folder}/`\n", f"{_sphinx_free(about)}\n"]
            elif path.name != "__init__.py":
                name = path.relative_to(ROOT).as_posix()
                rows.append((f"`{name}`", _sphinx_free(about.partition("\n\n")[0])))
        pages.append(_table(("file", "what it does"), rows))
    return "\n".join(pages)


@cache
def library() -> str:
    """The library's own page, which lies with it, less its title."""
    return (ROOT / "inttower" / "README.md").read_text().partition("\n")[2]


def _sphinx_free(text: str) -> str:
    """A docstring's markup as Markdown."""
    text = inspect.cleandoc(text)
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


# ---------------------------------------------------------------------- Markdown


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table.

    >>> print(_table(("a", "b"), [("1", "x | y")]))
    | a | b |
    |---|---|
    | 1 | x \| y |
    <BLANKLINE>
    """
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = (" ".join(cell.split()).replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "http": http,
    "library": library,
    "log_file": log_file,
    "metrics": metrics,
    "modules": modules,
    "records": records,
    "settings": settings,
}
