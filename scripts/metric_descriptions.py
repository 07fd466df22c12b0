"""Describe each metric of the pipeline in one line, for docs/reference/metrics.md.

A test checks that every key and column of metrics/* and every metric of an MLflow run is here.
"""

# File, key or column: its name in MLflow (none if it is not a metric there) and its meaning.
# OPERATION is addition, subtraction, multiplication or division.
FILES: dict[str, dict[str, tuple[str, str]]] = {
    "metrics/evaluation.json": {
        "errors": (
            "evaluation/errors",
            "wrong answers in the domain, or in its sample where it is too large to list",
        ),
        "equations": ("evaluation/equations", "equations that were certified or decoded"),
        "exact_match": ("evaluation/exact_match", "1 − errors / equations"),
        "minimum_margin": (
            "evaluation/minimum_margin",
            "minimum logit margin of the correct token, over all equations and positions",
        ),
        "test_exact_match": ("test/exact_match", "share of exact answers in the test split"),
    },
    "metrics/training.json": {
        "parameters": ("train/parameters", "trained numbers of the model"),
    },
    "metrics/history.csv": {
        "step": ("", "optimizer steps so far; a row at each validation"),
        "phase": ("", "warmup, flat or decay of the learning rate"),
        "learning_rate": (
            "train/learning_rate",
            "Muon's at the last step; AdamW's has the same course",
        ),
        "train_loss": ("train/loss", "mean cross-entropy since the row before, in nats a token"),
        "validation_loss": ("validation/loss", "cross-entropy on the validation split"),
        "validation_token_accuracy": (
            "validation/token_accuracy",
            "share of tokens with the largest logit, in a teacher-forced pass",
        ),
        "validation_exact_match": (
            "validation/exact_match",
            "share of validation equations whose correct tokens all have the largest logit",
        ),
        "best": ("", "1 for the row of the smallest validation loss, whose weights are kept"),
    },
    "metrics/grpo.csv": {
        "step": ("", "steps of the reinforcement learning; a row for each operation every ten"),
        "operation": ("", "the operation of the row"),
        "reward": (
            "grpo/reward_OPERATION",
            "share of sampled answers that are exact; mean since the row before, as the next four",
        ),
        "pass_at_group": (
            "grpo/pass_at_group_OPERATION",
            "share of groups with at least one exact answer",
        ),
        "without_signal": (
            "grpo/without_signal_OPERATION",
            "share of groups whose rewards are all equal, so without a gradient",
        ),
        "kl": (
            "grpo/kl_OPERATION",
            "estimated divergence from the supervised model, nats a token (k3, Schulman 2020)",
        ),
        "entropy": (
            "grpo/entropy_OPERATION",
            "of the model's distribution at a sampled token, in nats",
        ),
        "gradient_norm": (
            "grpo/gradient_norm",
            "before clipping to `grpo.max_gradient_norm`, at the last step",
        ),
        "learning_rate": ("grpo/learning_rate", "of Muon; AdamW's has the same course"),
        "exact_match": (
            "grpo/exact_match_OPERATION",
            "share of the validation split that greedy decoding answers exactly",
        ),
        "hallucination": ("grpo/hallucination_OPERATION", "share of it that is no integer"),
        "infinite_generation": (
            "grpo/infinite_generation_OPERATION",
            "share of it that has no end token in its place",
        ),
    },
    "metrics/exact_match_by_length.csv": {
        "answer_length": ("", "digits of the correct answer, without its sign"),
        "errors": ("", "wrong answers of that length"),
        "equations": ("", "equations of that length"),
        "exact_match": ("", "1 − errors / equations"),
        "equations_of": ("", "`domain` or `test`"),
    },
    "metrics/margin_by_carry_chain.csv": {
        "operation": ("", "+ or -; the others have no carries from one digit to the next"),
        "carry_chain": ("", "most consecutive places with a carry (of -, a borrow) out of them"),
        "minimum_margin": ("", "minimum logit margin of the correct token in these equations"),
        "equations": ("", "equations of that operation and chain"),
    },
    "metrics/error_map.csv": {
        "operation": ("", "the operation of the row"),
        "operand_1": ("", "smallest first operand of the bin"),
        "operand_2": ("", "smallest second operand of the bin"),
        "errors": ("", "wrong answers in the bin"),
        "equations": ("", "equations in the bin"),
        "width": ("", "operands in the bin, of each of the two"),
    },
    "metrics/data_summary.csv": {
        "split": ("", "train, validation or test"),
        "operation": ("", "the operation of the row"),
        "answer_length": ("", "digits of the correct answer, without its sign"),
        "equations": ("", "equations of that split, operation and length"),
    },
}

IN_MLFLOW: dict[str, str] = {
    "evaluation/errors_OPERATION": "wrong answers of one operation",
    "evaluation/hallucinations": "answers that are not integers",
    "evaluation/infinite_generation": "answers without an end",
    "evaluation/out_of_range": "integers that no equation of the domain has as its answer",
    "evaluation/error_rate_bound": "upper bound of the error rate, of a sampled evaluation",
    "never_trained_on/errors": "wrong answers among equations that are not in the training split",
    "test/errors": "wrong answers in the test split",
    "train/steps": "optimizer steps of the training",
    "train/best_step": "step of the kept weights",
    "grpo/equations": "equations in which errors were counted before and after",
    "grpo/errors_before": "wrong answers of the supervised model",
    "grpo/errors_after": "wrong answers after the reinforcement learning",
}
