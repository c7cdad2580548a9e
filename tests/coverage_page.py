"""The page of what is accepted, each line with the test that covers it; `python -m tests.coverage_page` writes it.

`tests/test_coverage_page.py` holds the page to the tests: every parameter has a line, every line a test that exists.
"""

from collections.abc import Mapping
from pathlib import Path

from tests import test_bad_input, test_every_data_kind, test_every_loss_and_metric, test_every_output

PAGE = Path(__file__).parent.parent / "docs/design/coverage.md"
KINDS = "test_every_data_kind.py::test_every_kind_trains_evaluates_and_predicts_as_in_keras"
WEIGHTED = "test_every_data_kind.py::test_every_kind_carries_weights_of_samples_which_those_of_classes_multiply"
FORMS = "test_every_loss_and_metric.py::test_it_is_as_in_fit"
COUNTS = "test_counts.py::test_steps_samples_and_hooks_are_those_of_the_data"
OUTPUTS = "test_every_output.py::test_outputs_are_those_of_keras"
VALIDATIONS = (
    "test_counts.py::test_every_validation_begins_at_the_first_batch_and_has_as_many_as_were_asked_for",
    "engine/test_trainer.py::test_the_batches_of_a_validation_are_as_large_and_as_many_as_in_keras",
)
DOOR = "test_bad_input.py::test_data_that_cannot_be_trained_on_is_refused_at_the_door"
ARGUMENTS = "test_bad_input.py::test_an_argument_that_makes_no_sense_is_refused_at_the_door"
SAID = "test_counts.py::test_what_is_said_goes_where_it_was_asked_for"
COMPILED = "engine/test_trainer.py::test_a_layer_or_a_model_is_compiled_from_the_trainers_keywords"

PARAMETERS: dict[str, dict[str, tuple[str, ...]]] = {
    "fit": {
        "x": (KINDS, DOOR),
        "y": (KINDS, "engine/test_trainer.py::test_forgotten_targets_are_missed_in_words"),
        "batch_size": (
            "test_counts.py::test_without_a_batch_size_arrays_are_cut_into_the_steps_asked_for_as_in_keras",
            "engine/data/test_arrays.py::test_batches_are_those_of_model_fit",
        ),
        "epochs": (
            COUNTS,
            "test_counts.py::test_no_epoch_at_all_is_a_fit_with_a_beginning_and_an_end",
            "test_counts.py::test_the_caps_of_keras_config_hold",
        ),
        "verbose": (SAID,),
        "callbacks": (
            "test_hook_sequence.py",
            "engine/test_hooks.py::test_callbacks_may_be_one_a_nest_or_a_ready_list_and_keep_their_order",
        ),
        "validation_split": (
            "test_counts.py::test_a_validation_split_takes_the_samples_that_keras_takes",
            "engine/data/test_splits.py::test_every_leaf_is_split_alike",
        ),
        "validation_data": (KINDS, "engine/test_arguments.py::test_validation_data_is_read_as_it_stands"),
        "shuffle": (
            "engine/test_trainer.py::test_shuffle_moves_no_sample_whole_batches_or_single_samples",
            "engine/data/test_order.py::test_an_order_is_a_permutation",
        ),
        "class_weight": (WEIGHTED, FORMS),
        "sample_weight": (WEIGHTED, FORMS),
        "initial_epoch": (COUNTS, "engine/test_fitting.py::test_epochs_are_counted_as_keras_counts_them"),
        "steps_per_epoch": (
            COUNTS,
            "engine/test_fitting.py::test_steps_per_epoch_are_never_exceeded_and_the_data_goes_on",
        ),
        "validation_steps": VALIDATIONS,
        "validation_batch_size": VALIDATIONS,
        "validation_freq": (
            "test_counts.py::test_validations_come_at_the_steps_at_which_they_are_due",
            "test_counts.py::test_whole_epochs_are_counted_as_in_keras",
        ),
        "resume": (
            "test_resume.py::test_a_cut_run_ends_as_if_it_had_never_stopped",
            "test_resume.py::test_what_differs_is_listed",
            "test_resume.py::test_nothing_is_trained_and_no_hook_is_called",
        ),
        "max_steps": (
            COUNTS,
            "engine/test_fitting.py::test_max_steps_ends_after_the_first_steps_of_the_same_training",
        ),
        "max_seconds": ("test_counts.py::test_max_seconds_ends_training_with_the_first_block_after_them",),
    },
    "evaluate": {
        "x": (KINDS, "engine/test_evaluation.py::test_scores_are_those_of_keras"),
        "y": (KINDS, "engine/test_evaluation.py::test_scores_are_those_of_keras"),
        "batch_size": ("engine/test_evaluation.py::test_scores_are_those_of_keras",),
        "verbose": (SAID,),
        "sample_weight": (FORMS, WEIGHTED),
        "steps": ("engine/test_evaluation.py::test_more_steps_than_there_are_batches_is_refused_at_the_door",),
        "callbacks": (
            "engine/test_hooks.py::test_an_error_from_any_hook_of_evaluate_and_predict_goes_its_way_unchanged",
        ),
        "return_dict": ("test_every_output.py::test_scores_come_as_a_dict_or_as_the_list_of_keras",),
    },
    "predict": {
        "x": (KINDS, OUTPUTS),
        "batch_size": ("engine/test_prediction.py::test_outputs_are_those_of_keras_in_its_structure",),
        "verbose": (SAID,),
        "steps": ("engine/test_prediction.py::test_outputs_are_those_of_keras_in_its_structure",),
        "callbacks": ("test_every_output.py::test_a_hook_gets_the_outputs_of_its_batch",),
    },
    "Trainer": {
        "task": ("test_overrides.py::test_a_layer_that_is_no_model_trains_as_a_sequential_of_it", COMPILED),
        "optimizer": (COMPILED, "test_precision_and_optimizers.py::test_an_optimizer_does_what_it_does_in_keras"),
        "loss": (COMPILED, FORMS),
        "metrics": (COMPILED, FORMS),
        "loss_weights": (COMPILED, FORMS),
        "weighted_metrics": (COMPILED, FORMS),
        "steps_per_execution": (
            "test_equal_to_fit_drawn.py",
            "test_precision_and_optimizers.py::test_blocks_as_compiled_or_as_given_change_nothing",
        ),
        "jit_compile": (
            "test_precision_and_optimizers.py::test_xla_gives_what_xla_gives_in_keras",
            "engine/test_tuning.py::test_auto_measures_at_the_first_fit_and_prints_the_table",
        ),
        "run_eagerly": ("test_precision_and_optimizers.py::test_eager_steps_give_what_eager_steps_give_in_keras",),
        "accumulate": (
            "test_accumulation.py::test_the_gradient_of_accumulated_steps_is_that_of_one_batch_of_all_their_samples",
        ),
        "strategy": ("test_replicas.py::test_a_model_made_outside_the_scope_is_refused",),
        "checkpoints": ("test_resume.py::test_saving_changes_nothing", "test_resume.py::test_the_best_is_kept"),
        "seed": ("engine/test_trainer.py::test_a_seed_decides_the_order_of_every_epoch",),
        "report_terms": ("engine/test_losses.py::test_every_term_is_named_and_they_add_up",),
        "report_gradients": (
            "engine/losses/test_descent.py::test_a_compiled_model_reports_the_norm_of_what_it_learns_from",
        ),
        "step": ("engine/test_stepped.py::test_a_function_trains_a_model_as_keras_would",),
    },
}
MODEL: dict[str, tuple[str, ...]] = {
    "`train_step`, `test_step`, `compute_loss`, `compute_metrics`, `metrics`, `get_metrics_result` overridden": (
        "test_overrides.py::test_a_model_trains_validates_and_predicts_as_in_keras",
        "test_overrides.py::test_every_batch_has_the_logs_it_has_in_keras",
    ),
    "`predict_step` overridden": ("test_overrides.py::test_a_predict_step_of_ones_own_gives_what_it_gives_in_keras",),
    "a `Layer` that is no `Model`": ("test_overrides.py::test_a_layer_that_is_no_model_trains_as_a_sequential_of_it",),
    "several optimizers in one `train_step`": (
        "test_overrides.py::test_adversaries_with_an_optimizer_each_train_as_in_keras",
    ),
    "mixed precision with loss scaling, float64": (
        "test_precision_and_optimizers.py::test_a_precision_trains_validates_and_predicts_as_in_keras",
        "test_precision_and_optimizers.py::"
        "test_a_step_whose_gradients_are_not_finite_is_skipped_and_the_scale_is_halved",
    ),
    "averaged weights, clipping, accumulation, schedules, `MultiOptimizer`": (
        "test_precision_and_optimizers.py::test_an_optimizer_does_what_it_does_in_keras",
    ),
    "`compile`, or other trainable weights, in a callback": (
        "test_recompile_inside_fit.py::test_a_change_takes_effect_with_the_next_epoch_by_one_more_trace",
    ),
    "`evaluate` in the middle of an epoch": (
        "test_evaluate_inside_fit.py::test_weights_and_curves_are_those_of_a_training_that_nobody_looked_at",
    ),
    "random models, data, losses, metrics, weights, masks, blocks": ("test_equal_to_fit_drawn.py",),
    "repeated fits and predictions: memory stays flat": ("test_memory.py",),
}


def page() -> str:
    """The whole page, Markdown."""
    parts = [
        "# What is accepted, and the test that covers it\n\nWritten by `python -m tests.coverage_page` from the tests "
        "themselves; a test holds it to them. Paths are relative to `tests/`. Where many lines name one test, it has a "
        "case for each. Those with PyTorch are run by `make compat`, which installs it.\n"
    ]
    for method, parameters in PARAMETERS.items():
        title = "Trainer" if method == "Trainer" else f"Trainer.{method}"
        parts.append(_table(f"`{title}`", "parameter", {f"`{name}`": tests for name, tests in parameters.items()}))
    parts += [
        _table("Kinds of data", "kind", dict.fromkeys(test_every_data_kind.KINDS, (KINDS,))),
        _table("Losses, metrics and weights", "form", dict.fromkeys(test_every_loss_and_metric.ROWS, (FORMS,))),
        _table("Outputs", "output", dict.fromkeys(test_every_output.OUTPUTS, (OUTPUTS,))),
        _table("Models and optimizers", "what", MODEL),
        _table("Refused at the door: data", "what", dict.fromkeys(test_bad_input.BAD_DATA, (DOOR,))),
        _table("Refused at the door: arguments", "what", dict.fromkeys(test_bad_input.BAD_ARGUMENTS, (ARGUMENTS,))),
    ]
    return "\n".join(parts)


def _table(title: str, first: str, rows: Mapping[str, tuple[str, ...]]) -> str:
    lines = [f"| {name} | {'<br>'.join(f'`{test}`' for test in tests)} |" for name, tests in rows.items()]
    return "\n".join([f"## {title}\n", f"| {first} | test |", "|---|---|", *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page())
