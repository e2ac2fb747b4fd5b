"""Data source `hf_dataset`: any preference, prompt or demonstration data set of the Hugging Face hub or of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from rlhf_core.errors import DataError
from rlhf_core.records import Comparison, Feedback
from rlhf_plugins.tabular.mapping import Columns, MappingConfig
from rlhf_plugins.tabular.rows import Problem, Row, check_columns, format_of, missing_file
from rlhf_plugins.tabular.source import RowSource


class HfDataset(RowSource):
    """Reads a data set through `datasets`: a hub name, a folder or a file; also the Anthropic HH and TRL formats."""

    class Config(MappingConfig):
        """Where the data set is, and what its columns mean."""

        path: str
        """A hub name (Anthropic/hh-rlhf), a folder of data files, a folder written by `save_to_disk`, or one file."""
        name: str | None = None
        """Configuration of the data set."""
        split: str = "train"
        """Which split to read; slices such as `train[:1000]` work."""
        data_dir: str | None = None
        """Sub-folder of the data set to read."""
        data_files: str | tuple[str, ...] | None = None
        """Files of the data set to read."""
        revision: str | None = None
        """Commit or tag on the hub. Name one: the hub's files may change, and only a revision pins them."""
        streaming: bool = False
        """Read while downloading instead of downloading first."""
        format: Literal["auto", "hh", "trl", "columns"] = "auto"
        """hh: `chosen` and `rejected` dialogues of Anthropic HH. trl: TRL's columns `prompt`, `messages`, `chosen`,
        `rejected` and `completion`, as far as they exist, as texts or messages. columns: as `columns` says. auto: as
        `columns` says where it says anything, else as trl, where pairs may be HH dialogues too."""

    @classmethod
    def yields(cls, config: Any) -> frozenset[type[Feedback]]:
        """What the mapping says; hh and trl sets are taken to hold comparisons, which only reading them could tell."""
        return config.yields if _is_mapped(config) else frozenset({Comparison})

    def set_up(self) -> None:
        """Nothing loaded yet."""
        super().set_up()
        self._dataset: Any = None
        self._mapping: MappingConfig | None = None

    def mapping(self) -> MappingConfig:
        """The config, with the columns of the format where it names none."""
        if self._mapping is None:
            self._mapping = self._found() if not _is_mapped(self.config) else self.config
        return self._mapping

    def _found(self) -> MappingConfig:
        config: HfDataset.Config = self.config
        if config.format == "hh":
            columns = Columns(chosen="chosen", rejected="rejected")
            return config.model_copy(update={"columns": columns, "dialogue": "hh"})
        names = self._load().column_names or []
        columns = trl_columns(names)
        if not columns.named():
            raise DataError(
                f"none of its columns has a name that TRL's formats know: {', '.join(names)}",
                where=self.place(),
                remedy="Say what they mean, for example `columns: {prompt: question, chosen: good, rejected: bad}`.",
            )
        chat_only = columns.messages is not None and columns.chosen is None
        imitated = config.demonstrations or ("messages" if chat_only else None)
        return config.model_copy(update={"columns": columns, "demonstrations": imitated})

    def rows(self) -> Iterator[Row | Problem]:
        """The rows, numbered from 1."""
        dataset, wanted = self._load(), list(self.mapping().wanted)
        # A data set that is streamed may not know its columns before its first row.
        if dataset.column_names is not None:
            check_columns(self.place(), wanted, dataset.column_names)
            dataset = dataset.select_columns(wanted)
        with _readable_errors(self.place()):
            for number, cells in enumerate(dataset, 1):
                yield Row(number, cells)

    def place(self) -> str:
        """The data set and its split."""
        parts = (self.config.path, self.config.name, self.config.data_dir)
        return f"{'/'.join(part for part in parts if part)} ({self.config.split})"

    def unit(self) -> str:
        """Rows."""
        return "row"

    def title(self) -> str:
        """Last part of the data set's name."""
        return Path(self.config.path).name.split(".")[0]

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The local file or folder; a name on the hub is none, and pinned by `revision`."""
        return (Path(config.path),)

    def _load(self) -> Any:
        if self._dataset is None:
            with _readable_errors(self.place()):
                self._dataset = load(self.config)
        return self._dataset


def trl_columns(names: Sequence[str]) -> Columns:
    """The roles that TRL's column names play, of those that exist."""
    roles = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "reference": "completion"}
    found = {role: name for role, name in roles.items() if name in names}
    if "messages" in names and "prompt" not in names:
        found["messages"] = "messages"
    return Columns(**found)


def load(config: HfDataset.Config) -> Any:
    """The data set as `datasets` gives it: a Dataset, or an IterableDataset where it is streamed."""
    import datasets

    path = Path(config.path).expanduser()
    if config.path.startswith(("/", "./", "../", "~")) and not path.exists():
        raise missing_file(path)
    if (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))[config.split]
    if (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    common: dict[str, Any] = {"split": config.split, "streaming": config.streaming}
    if path.is_file():
        builder = {"jsonl": "json", "tsv": "csv"}.get(format_of(path), format_of(path))
        options = {"sep": "\t"} if format_of(path) == "tsv" else {}
        return datasets.load_dataset(builder, data_files=str(path), **options, **common)
    files = list(config.data_files) if isinstance(config.data_files, tuple) else config.data_files
    return datasets.load_dataset(
        str(path) if path.is_dir() else config.path,
        config.name,
        data_dir=config.data_dir,
        data_files=files,
        revision=None if path.is_dir() else config.revision,
        **common,
    )


def _is_mapped(config: HfDataset.Config) -> bool:
    return config.format == "columns" or (config.format == "auto" and bool(config.columns.named()))


@contextmanager
def _readable_errors(place: str) -> Iterator[None]:
    """Turn what `datasets` raises into one error a person can act on, and keep its bars off the terminal."""
    import datasets
    from datasets.exceptions import DatasetsError

    shows_bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except (OSError, ValueError, KeyError, DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise DataError(
            f"the data set cannot be read: {reason}",
            where=place,
            remedy="Check `path`, `name` and `split`. Of a broken local file, `use: table` names the broken rows.",
        ) from error
    finally:
        if shows_bars:
            datasets.enable_progress_bars()
