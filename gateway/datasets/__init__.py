"""Which datasets there are, which exchanges they hold, and which of those were forgotten since.

The files of a dataset are the trainer's, on whatever machine it is; here is what must be known of them so
that forgetting reaches them, and the versions that learned from them. Called by `api`, and by `traffic` when
it erases. It may call `db` and `adapters`.
"""

from gateway.datasets.held import Datasets, NewDataset

__all__ = ["Datasets", "NewDataset"]
