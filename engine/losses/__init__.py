"""The loss of a step: every term of it, right under replicas, masks and accumulation, down to the update of weights.

```text
with Total() as total                   total.py     a tape, and the terms
├── total.call(model, x)                terms.py     `model.losses` of this very call, by layer
├── total.compare("data", loss, y, p)   compared.py  a Keras loss, and what it is the mean over
└── total.add("penalty", value)
total.minimize(model)                   updates.py   accumulated over steps, if that was asked for
└── summed, clipped, applied            descent.py   over the replicas, then as the optimizer says
total.logs()                            shares.py    each term by name, of the whole batch
```

Targets that cannot be compared are refused beforehand: `targets.py`.
"""

from engine.losses.compared import LossLike, check_share, compared, loss_of
from engine.losses.counts import num_valid
from engine.losses.shares import has_shares, in_logs
from engine.losses.targets import check_target_shapes, check_target_values, takes_class_numbers, warn_of_unused
from engine.losses.terms import counted_parts, data_loss, mean_of, of_samples, outputs_of, terms_of
from engine.losses.total import Total
from engine.losses.updates import Updates

__all__ = [
    "LossLike",
    "Total",
    "Updates",
    "check_share",
    "check_target_shapes",
    "check_target_values",
    "compared",
    "counted_parts",
    "data_loss",
    "has_shares",
    "in_logs",
    "loss_of",
    "mean_of",
    "num_valid",
    "of_samples",
    "outputs_of",
    "takes_class_numbers",
    "terms_of",
    "warn_of_unused",
]
