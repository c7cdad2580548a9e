"""What a checkpoint holds of a run beside its arrays, as values that were looked at before they are believed.

```python
record = Record.of_facts(saved.facts)   # CheckpointError if it is none
record.standing.progress.step           # 1200
```
"""

from typing import Any

import attrs
import cattrs
import numpy as np
from numpy.typing import NDArray

from engine.columns import Logs
from engine.errors import CheckpointError
from engine.execution import Execution, Xla
from engine.progress import Progress


@attrs.frozen
class Part:
    """A state whose arrays are kept apart.

    Attributes:
        values: What is no array.
        arrays: What the arrays are called.
    """

    values: dict[str, Any]
    arrays: list[str]

    @classmethod
    def of(cls, state: dict[str, Any], name: str, extras: dict[str, NDArray[Any]]) -> "Part":
        """Takes the arrays at the top level of a state, and puts them into `extras` under the part's name."""
        arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
        extras.update({f"{name}/{key}": array for key, array in arrays.items()})
        return cls({key: value for key, value in state.items() if key not in arrays}, list(arrays))

    def state(self, name: str, extras: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """The state, whole again."""
        return self.values | {key: extras[f"{name}/{key}"] for key in self.arrays}

    def extras(self, name: str) -> set[str]:
        """What its arrays are called in a snapshot."""
        return {f"{name}/{key}" for key in self.arrays}


@attrs.frozen
class CallbackPart:
    """The state of a callback.

    Attributes:
        callback: Its class.
        state: What it told.
    """

    callback: str
    state: Part


@attrs.frozen(kw_only=True)
class Standing:
    """Where a fit stands between two blocks of steps.

    Attributes:
        progress: How far it has come.
        is_inside: Whether an epoch has begun that has not ended; at the end of a run, whether only its limit of steps
            or seconds has ended the last epoch.
        is_validation_due: Whether a validation belongs here that has not been done.
        is_stopped: Whether a callback has set `model.stop_training`.
        validated: What the last validation of the epoch gave.
        logs: Of the last epoch that ended.
    """

    progress: Progress
    is_inside: bool
    is_validation_due: bool = False
    is_stopped: bool = False
    validated: Logs
    logs: Logs


@attrs.frozen(kw_only=True)
class Record:
    """All that a checkpoint holds of a run but for its arrays.

    Attributes:
        run: What must be the same for a run that goes on from here (see `engine.description`).
        versions: Of the packages that decide about bits.
        standing: Where the fit stands.
        means: The running means of the epoch.
        execution: How its steps are executed.
        pace_steps: Steps of the next block.
        best_score: The best score of a checkpoint of this run so far; None: none has one.
        data: Where the run stands in its data.
        validation: Where it stands in the data to validate on.
        fingerprint: Of the batch that comes next; None: nobody could look ahead.
        generators: Where the global random generators stand.
        callbacks: The state of each callback that can tell it.
    """

    run: dict[str, Any]
    versions: dict[str, str]
    standing: Standing
    means: dict[str, Any]
    execution: Execution
    pace_steps: int = attrs.field(validator=attrs.validators.ge(1))
    best_score: float | None
    data: Part
    validation: Part | None
    fingerprint: str | None
    generators: dict[str, Any]
    callbacks: list[CallbackPart]

    def facts(self) -> dict[str, Any]:
        """The record as plain values and NumPy arrays."""
        return attrs.asdict(
            self, value_serializer=lambda _, __, value: value.value if isinstance(value, Xla) else value
        )

    def extras(self) -> set[str]:
        """The arrays that belong to it, beside the variables."""
        validation = set() if self.validation is None else self.validation.extras("validation")
        states = (part.state.extras(f"callbacks/{index}") for index, part in enumerate(self.callbacks))
        return self.data.extras("data").union(validation, *states)

    @classmethod
    def of_facts(cls, facts: Any, path: Any) -> "Record":
        """The record that `facts` gave.

        Args:
            facts: As a checkpoint held them.
            path: Of the checkpoint, for the error.

        Raises:
            CheckpointError: It is not what `facts` gives: values are missing, unknown, of other types or impossible.
        """
        try:
            return _CONVERTER.structure(facts, cls)
        except Exception as error:  # what cattrs raises depends on what is wrong
            raise foreign(path, "; ".join(cattrs.transform_error(error))) from error


def foreign(path: Any, told: str) -> CheckpointError:
    """The error of a checkpoint that is whole, but is none of a run of this version."""
    return CheckpointError(
        f"Checkpoint {path} is whole, but does not hold what a run of this version is made of: {told}. It was written "
        "by another version, or by somebody else. Give another directory."
    )


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


@_CONVERTER.register_structure_hook
def _as_it_is_if_int(value: Any, _: type) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value


@_CONVERTER.register_structure_hook
def _as_it_is_if_bool(value: Any, _: type) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


@_CONVERTER.register_structure_hook
def _as_it_is_if_str(value: Any, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
