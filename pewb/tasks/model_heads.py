"""What stands on top of a backbone, as transformers and PEFT know it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelHead:
    """One kind of model class of transformers."""

    mapping: str
    """transformers' table from configurations to its classes."""
    told_as: str
    peft_task_type: str
    """What PEFT calls a model with that head."""
    is_new: bool
    """Whether it is drawn anew for the task; else it predicts tokens, as the backbone was pre-trained to."""


SEQUENCE_CLASSIFICATION = ModelHead(
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING", "sequence classification head", "SEQ_CLS", is_new=True
)
"""One vector for a whole text."""
TOKEN_CLASSIFICATION = ModelHead(
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING", "token classification head", "TOKEN_CLS", is_new=True
)
"""One vector for each token."""
QUESTION_ANSWERING = ModelHead(
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING", "question answering head", "QUESTION_ANS", is_new=True
)
"""For each token, whether an answer begins or ends there."""
CAUSAL_LM = ModelHead("MODEL_FOR_CAUSAL_LM_MAPPING", "causal language modelling head", "CAUSAL_LM", is_new=False)
SEQ2SEQ_LM = ModelHead(
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING", "sequence-to-sequence head", "SEQ_2_SEQ_LM", is_new=False
)
