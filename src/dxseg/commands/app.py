"""The command line: which functions are commands, and how a command ends."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_args

from cyclopts import App, ArgumentCollection, CoercionError, CycloptsError, Group, Parameter

from dxseg.commands import export, import_volumes, imports
from dxseg.commands.data import check, info, split
from dxseg.commands.demo import demo
from dxseg.commands.evaluate import compare, evaluate, report, reproduce
from dxseg.commands.experiment import experiment
from dxseg.commands.import_annotations import import_annotations
from dxseg.commands.import_csv import import_csv
from dxseg.commands.import_dicom import import_dicom
from dxseg.commands.import_layout import find_importer
from dxseg.commands.import_nnunet import import_nnunet
from dxseg.commands.predict import predict
from dxseg.commands.serve import serve
from dxseg.commands.terminal import err, out, print_error, printable
from dxseg.commands.train import distill, methods, suggest, train
from dxseg.errors import DxsegError, TerminatedError, UsageError

INTERRUPTED = 130
TERMINATED = 143
"""As a shell reports a process that SIGTERM ended, so that one rule requeues both."""

_REMEDIES = {
    errno.ENOSPC: "; the disk is full: free some space, then repeat the same command",
    errno.EDQUOT: "; the quota is used up: free some space, then repeat the same command",
    errno.EFBIG: "; larger than files may be here: raise that limit (ulimit -f)",
    errno.EROFS: "; choose a folder that can be written to",
    errno.EACCES: "; choose a folder with the necessary permissions",
    errno.EPERM: "; choose a folder with the necessary permissions",
}

_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
"""Variables that torchrun, SLURM and Lightning set in each process of a distributed training."""


def _shown_default(value: object) -> str | None:
    """A default as the help shows it; no value, an unset flag and an empty list are left out."""
    if value is None or value is False or value in ((), ""):
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _refuse_rounding(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse 1.7 where an integer is expected: cyclopts would round it."""
    for argument in arguments:
        types = {argument.hint, *get_args(argument.hint)}
        if int in types and float not in types:
            for token in argument.tokens:
                if token.value and not re.fullmatch(r"[+-]?\d+", token.value):
                    raise CoercionError(argument=argument, token=token, target_type=int)


def _version() -> str:
    from dxseg import __version__

    return f"dxseg {__version__}"


app = App(
    name="dxseg",
    help="Lesion segmentation with many image-level labels and few masks. "
    "Research software, not a medical device.",
    version=_version,
    help_format="markdown",
    version_format="plaintext",
    console=out,
    error_console=err,
    config=_refuse_rounding,
    default_parameter=Parameter(
        negative=(),  # no --no-flag and --empty-list unless a parameter asks for it
        json_dict=False,  # a file name may start with a bracket
        json_list=False,
        show_default=_shown_default,
    ),
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
)

_IMPORTERS = (
    imports.import_busi,
    import_csv,
    imports.import_folder,
    imports.import_label_studio,
    import_annotations,
    import_nnunet,
    import_dicom,
    import_volumes.import_msd,
    import_volumes.import_volumes,
)
_EXPORTERS = (
    export.export_coco,
    export.export_hub,
    export.export_label_studio,
    export.export_nnunet,
    export.export_onnx,
)


def _group(name: str, title: str, functions: Sequence[Callable[..., Any]]) -> App:
    """The commands below `import` or `export`."""
    group = App(name=name, help=title)
    for function in functions:
        command = function.__name__.removeprefix(f"{name}_").replace("_", "-")
        group.command(function, name=command)
    return group


def _import_group() -> App:
    group = _group("import", "Import a dataset from another layout.", _IMPORTERS)
    group.default(find_importer)
    return group


_COMMANDS: dict[str, list[Callable[..., Any] | App]] = {
    "Data": [
        _import_group(),
        check,
        split,
        info,
    ],
    "Training": [train, distill, methods, suggest],
    "Evaluation": [evaluate, compare, experiment, report, reproduce],
    "Prediction": [predict],
    "Deployment": [
        _group("export", "Export a model or a dataset for other tools.", _EXPORTERS),
        serve,
    ],
    "Demo": [demo],
}


def _register() -> None:
    """Add the commands to the command line, grouped in the order of work."""
    for title, commands in _COMMANDS.items():
        group = Group.create_ordered(title)
        for position, command in enumerate(commands):
            if isinstance(command, App):
                command.group, command.sort_key = (group,), position
                app.command(command)
            else:
                app.command(command, group=group, sort_key=position)
    options = Group.create_ordered("Options")
    app.register_install_completion_command(
        help="Install completion for the current shell.", group=options
    )
    app["--help"].group = app["--version"].group = (options,)


_register()


def _is_rank_zero() -> bool:
    """Whether this process prints: Lightning runs the same command again in each process."""
    ranks = (os.environ[name] for name in _RANKS if os.environ.get(name))
    return next(ranks, "0") == "0"


def _show(result: object) -> int:
    """Print what a command returned; the exit code is 1 if something in it has `failed`.

    A result shows itself by `__rich__` (tables) or `__str__` (lines). What `failed`, if it has
    that, are pairs of a name and a reason, of which ten are printed.
    """
    failed: Sequence[tuple[str, str]] = getattr(result, "failed", ())
    if result is not None and _is_rank_zero():
        # A dataclass without __rich__ would be printed as its repr.
        out.print(result if hasattr(result, "__rich__") else printable(str(result)), soft_wrap=True)
        for name, reason in failed[:10]:
            print_error(f"{name}: {reason}")
    return DxsegError.exit_code if failed else 0


def run(words: Sequence[str]) -> int:
    """Run one command.

    Args:
        words: The command line without the program's name.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 130 or 143 stopped by a signal.
    """
    try:
        _, apps, rest = app.parse_commands(list(words))
        is_group = any(not name.startswith("-") for name in apps[-1])
        if is_group and not rest:
            app.help_print(list(words))  # a group without a command
            return UsageError.exit_code
        code: int = app(list(words), result_action=_show)
        return code
    except CycloptsError as error:
        command = " ".join(["dxseg", *(error.command_chain or ())])
        print_error(f"{error} See `{command} --help`.")
        return UsageError.exit_code
    except DxsegError as error:
        print_error(str(error))
        return error.exit_code
    except OSError as error:
        if error.errno == errno.EPIPE:  # whoever read the output has gone
            return DxsegError.exit_code
        remedy = _REMEDIES.get(error.errno or 0, "")
        print_error(f"{error.filename or 'system'}: {error.strerror or error}{remedy}")
        return DxsegError.exit_code
    except TerminatedError:
        err.print("Terminated. Repeat the same command to continue.")
        return TERMINATED
    except KeyboardInterrupt:
        err.print("Interrupted. Repeat the same command to continue.")
        return INTERRUPTED


def main() -> NoReturn:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # File names may contain bytes that are not UTF-8.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))
