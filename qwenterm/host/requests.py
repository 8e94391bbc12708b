"""What a client may send, validated: the OpenAI chat-completions dialect plus documented extras.

Unknown fields are ignored, as clients send many; wrong values of known ones are errors that name
the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from qwenterm.chat.formats import ToolSpec
from qwenterm.core.errors import QwentermError


class InvalidRequestError(QwentermError):
    """The request asks for something that cannot be done; the message says what."""


class Wire(BaseModel):
    """Base of the wire models."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def joined(value: Any) -> Any:
    """Return content parts as one text; anything else as it is, for the validation to judge."""
    if value is None:
        return ""
    if isinstance(value, list):
        texts: list[str] = []
        for part in cast("list[Any]", value):
            if not isinstance(part, dict) or cast("dict[str, Any]", part).get("type") != "text":
                raise ValueError("only text content is supported")
            texts.append(str(cast("dict[str, Any]", part).get("text", "")))
        return "".join(texts)
    return value


class FunctionCall(Wire):
    """A call inside an assistant message; `arguments` is JSON text on the wire."""

    name: str
    arguments: dict[str, Any] = {}

    @field_validator("arguments", mode="before")
    @classmethod
    def _decode(cls, value: Any) -> Any:
        if isinstance(value, str):
            return json.loads(value) if value.strip() else {}
        return value


class CallEntry(Wire):
    """One entry of `tool_calls`."""

    id: str = ""
    function: FunctionCall


class ChatMessage(Wire):
    """A message; content parts are joined to one text."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str = ""
    reasoning_content: str = ""
    tool_calls: tuple[CallEntry, ...] = ()

    @field_validator("content", "reasoning_content", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return joined(value)

    @field_validator("tool_calls", mode="before")
    @classmethod
    def _calls(cls, value: Any) -> Any:
        return value or ()

    def for_template(self) -> dict[str, Any]:
        """Return the message in the form that chat templates read."""
        shown: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.content,
        }
        if self.reasoning_content:
            shown["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            shown["tool_calls"] = [
                {"name": call.function.name, "arguments": call.function.arguments}
                for call in self.tool_calls
            ]
        return shown


class Function(Wire):
    """A tool's function."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}


class ToolEntry(Wire):
    """One entry of `tools`."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(Wire):
    """The function of a `tool_choice` that names one."""

    name: str


class NarrowedFunction(NamedFunction):
    """A function that may be called; `values` are all that some of its arguments may be."""

    values: dict[str, tuple[str, ...]] = {}


class NarrowedChoice(Wire):
    """One of the tools that may be called."""

    type: Literal["function"] = "function"
    function: NarrowedFunction


class NamedChoice(Wire):
    """A `tool_choice` that names a function."""

    type: Literal["function"] = "function"
    function: NamedFunction


class AllowedTools(Wire):
    """The tools that may be called at the moment, of all that the prompt names."""

    mode: Literal["auto", "required"] = "auto"
    tools: tuple[NarrowedChoice, ...] = Field(min_length=1)


class AllowedChoice(Wire):
    """A `tool_choice` that narrows the tools and leaves the prompt, and so its cache, as it is."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class JsonSchema(Wire):
    """The schema of a `response_format`."""

    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(Wire):
    """What the answer must look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Wire):
    """Options of a streamed answer."""

    include_usage: bool = False


class Prediction(Wire):
    """Text that the answer probably repeats, such as the file that is being edited."""

    type: Literal["content"] = "content"
    content: str = ""

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        return joined(value)


_EFFORT = {"none": 0, "minimal": 0, "low": 512, "medium": 2048}


class CompletionRequest(Wire):
    """The body of `POST /v1/chat/completions`."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1)
    model: str = ""
    tools: tuple[ToolEntry, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | NamedChoice | AllowedChoice = "auto"
    parallel_tool_calls: bool = False
    response_format: ResponseFormat | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    top_k: int = Field(default=40, ge=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    chat_template_kwargs: dict[str, Any] = {}
    continue_final_message: bool = False
    return_progress: bool = False
    ignore_eos: bool = False
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    thinking_token_budget: int | None = Field(default=None, ge=0)
    drop_thinking_before: int = Field(default=0, ge=0)
    prediction: Prediction | None = None
    draft_most: int | None = Field(default=None, ge=0, alias="speculative.n_max")

    @field_validator("stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @field_validator("tools", "tool_choice", "stream_options", mode="before")
    @classmethod
    def _absent(cls, value: Any, info: Any) -> Any:
        defaults = {"tools": (), "tool_choice": "auto", "stream_options": StreamOptions()}
        return defaults[info.field_name] if value is None else value

    @property
    def thinking_budget(self) -> int | None:
        """Return how many tokens of thinking are granted, None for no limit of its own."""
        if self.thinking_token_budget is not None:
            return self.thinking_token_budget
        return _EFFORT.get(self.reasoning_effort or "")

    @property
    def template_variables(self) -> dict[str, Any]:
        """Return what the chat template is told besides messages and tools."""
        if self.thinking_budget == 0:
            return {**self.chat_template_kwargs, "enable_thinking": False}
        return self.chat_template_kwargs

    def answer_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that the answer must satisfy, None for free text."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        wanted = self.response_format.json_schema
        return wanted.schema_ if wanted else {"type": "object"}

    def callable_tools(self) -> Sequence[ToolSpec]:
        """Return the tools that this request may call; raises ValueError for an unknown choice."""
        specs = [ToolSpec(tool.function.name, tool.function.parameters) for tool in self.tools]
        if self.tool_choice == "none":
            return []
        if isinstance(self.tool_choice, NamedChoice):
            name = self.tool_choice.function.name
            specs = [spec for spec in specs if spec.name == name]
            if not specs:
                raise ValueError(f"tool_choice: there is no tool named {name!r}")
        elif isinstance(self.tool_choice, AllowedChoice):
            allowed = [choice.function for choice in self.tool_choice.allowed_tools.tools]
            values = {function.name: function.values for function in allowed}
            unknown = set(values) - {spec.name for spec in specs}
            if unknown:
                raise ValueError(f"tool_choice: there is no tool named {min(unknown)!r}")
            specs = [_narrowed(spec, values[spec.name]) for spec in specs if spec.name in values]
        elif self.tool_choice == "required" and not specs:
            raise ValueError("tool_choice: required, but there are no tools")
        return specs

    @property
    def must_call(self) -> bool:
        """Return whether the answer has to be a call."""
        choice = self.tool_choice
        if isinstance(choice, AllowedChoice):
            return choice.allowed_tools.mode == "required"
        return choice == "required" or isinstance(choice, NamedChoice)


def _narrowed(tool: ToolSpec, values: Mapping[str, tuple[str, ...]]) -> ToolSpec:
    """Return the tool with some arguments limited to the given values."""
    if not values:
        return tool
    properties = dict(cast("Mapping[str, Any]", tool.parameters.get("properties") or {}))
    for name, allowed in values.items():
        if name not in properties or not allowed:
            raise ValueError(f"tool_choice: {tool.name} has no argument {name!r} to limit so")
        properties[name] = {**properties[name], "enum": list(allowed)}
    return ToolSpec(tool.name, {**tool.parameters, "properties": properties})


class LoadRequest(Wire):
    """The body of `POST /admin/load`."""

    path: str
    n_ctx: int = Field(ge=256)
    n_gpu_layers: int = Field(default=-1, ge=-1)
    threads: int = Field(default=0, ge=0)
    batch: int = Field(default=0, ge=0)
    sequences: int = Field(default=4, ge=1, le=64)
    cache_mb: int = Field(default=1024, ge=0)
    warm_folder: str = ""
    warm_mb: int = Field(default=0, ge=0)
