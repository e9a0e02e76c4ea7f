"""What a corpus job works on."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One input: a file, or a record of a dataset.

    Attributes:
      source: its name below the folder that all inputs share, with forward slashes.
      path: where it is; of a record, its dataset as `AudioDataset` takes it, `FOLDER[SPLIT]`.
      bytes: its size, 0 if there is nothing; of a record, the mean size of the split's.
      record: its number in the dataset, or None for a file.
    """

    source: str
    path: str
    bytes: int
    record: int | None = None
