"""How fast the engine is, beside `model.fit`, loops written by hand, Keras on JAX, and PyTorch Lightning.

```bash
make bench                              # every case, some 30 minutes on 2 cores; writes docs/benchmarks.md
make bench ARGS="--only loops epochs --rounds 9 --no-write"
```

Contestants of a case take turns, round after round, so that what else the machine does falls on all alike; those that
need packages of their own run in processes that wait for their turn. What counts is the ratio of the medians.
"""
