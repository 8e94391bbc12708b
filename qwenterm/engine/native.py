"""The one door to llama.cpp: nothing else imports llama_cpp.

Its bindings are untyped, so they leave here as `Any`; the modules beside this one give each call a
type and turn return codes into exceptions.
"""

from __future__ import annotations

from typing import Any

from llama_cpp import __version__ as _version
from llama_cpp import llama_cpp as _native
from llama_cpp.llama_grammar import SchemaConverter as _SchemaConverter

lib: Any = _native
SchemaConverter: Any = _SchemaConverter
VERSION: str = _version
