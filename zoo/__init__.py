"""Models to train: one family a file, nothing compiled, nothing downloaded.

```python
from zoo import small_inception

model = small_inception(num_classes=10)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train)  # images: float32, (batch, height, width, channels), in [0, 1]
```

Every model ends in a softmax: it gives float32 probabilities, `(batch, num_classes)`, so its loss
is one on probabilities (`from_logits=False`, the default in Keras). Images have their channels last.
"""

from zoo.augmentation import RandomViews
from zoo.baselines import ConvNet, functional_cnn, sequential_cnn
from zoo.contrastive import SimCLR, nt_xent, small_encoder, with_projection_head
from zoo.distillation import Distillation, conv_teacher, dense_student, softened
from zoo.fine_tuning import FineTuned, fine_tuned
from zoo.inception import Inception, paper_inception, small_inception
from zoo.modules import ConvModule, DownsampleModule, InceptionModule

__all__ = [
    "ConvModule",
    "ConvNet",
    "Distillation",
    "DownsampleModule",
    "FineTuned",
    "Inception",
    "InceptionModule",
    "RandomViews",
    "SimCLR",
    "conv_teacher",
    "dense_student",
    "fine_tuned",
    "functional_cnn",
    "nt_xent",
    "paper_inception",
    "sequential_cnn",
    "small_encoder",
    "small_inception",
    "softened",
    "with_projection_head",
]
