"""Models to train: one family a file, nothing compiled, nothing downloaded.

```python
from zoo import small_inception

model = small_inception(num_classes=10)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x_train, y_train)  # images: float32, (batch, height, width, channels), in [0, 1]
```

Every classifier ends in a softmax: it gives float32 probabilities, `(batch, num_classes)`, so its loss
is one on probabilities (`from_logits=False`, the default in Keras). Images have their channels last. What `fit`
was not made for comes as an `engine.Task` beside its networks: `Trainer(GAN(generator, critic)).fit(images)`.
"""

from zoo.adversarial import GAN, small_critic, small_generator
from zoo.arena import Arena, Environment
from zoo.augmentation import RandomViews
from zoo.autoencoder import Gaussian, VariationalAutoencoder, VariationalInference
from zoo.baselines import ConvNet, functional_cnn, sequential_cnn
from zoo.contrastive import SimCLR, nt_xent, small_encoder, with_projection_head
from zoo.distillation import Distillation, softened
from zoo.episodes import Episodes, rewards_to_go
from zoo.fine_tuning import FineTuned, fine_tuned
from zoo.inception import Inception, paper_inception, small_inception
from zoo.modules import ConvModule, DownsampleModule, InceptionModule
from zoo.reinforcement import PPO, Reinforce, policy_network, value_network
from zoo.small import dense_classifier, strided_cnn

__all__ = [
    "GAN",
    "PPO",
    "Arena",
    "ConvModule",
    "ConvNet",
    "Distillation",
    "DownsampleModule",
    "Environment",
    "Episodes",
    "FineTuned",
    "Gaussian",
    "Inception",
    "InceptionModule",
    "RandomViews",
    "Reinforce",
    "SimCLR",
    "VariationalAutoencoder",
    "VariationalInference",
    "dense_classifier",
    "fine_tuned",
    "functional_cnn",
    "nt_xent",
    "paper_inception",
    "policy_network",
    "rewards_to_go",
    "sequential_cnn",
    "small_critic",
    "small_encoder",
    "small_generator",
    "small_inception",
    "softened",
    "strided_cnn",
    "value_network",
    "with_projection_head",
]
