"""What becomes of a run inside its process: success, failure, no memory, and input that does not serve."""

import signal
from io import StringIO

import pytest
import torch
from datasets import Dataset

from pewb.batching import Collated, Encoded
from pewb.device import choose_device
from pewb.errors import OutOfMemoryError, TrainingError
from pewb.prediction import predict
from pewb.recipe import DeviceSection
from pewb.record import Record
from pewb.reporting import Silent
from pewb.runner.worker import Events


def left_nothing_but_a_log(results) -> bool:
    return {path.parent.name for path in results.rglob("*") if path.is_file()} <= {"logs"}


def test_a_loss_that_is_no_number_is_a_failed_record_with_a_way_out(do_job):
    done = do_job(strategy="full", training={"learning_rate": 1e30})
    assert done.status == 0
    record = done.record
    assert record["status"] == "failed"
    assert "learning_rate" in record["reason"]
    assert "1e+30" in record["reason"]
    assert "TrainingError" in record["traceback"]
    assert record["parameters"] and record["baseline"] and record["curves"]["loss"], "what was measured is kept"
    assert record["metrics"] == {}


def test_a_model_that_broke_at_the_last_step_is_no_success(do_job):
    done = do_job(strategy="full", training={"learning_rate": 1e30, "max_steps": 1, "warmup_ratio": 0})
    assert done.record["status"] == "failed"
    assert "not numbers" in done.record["reason"]
    assert done.record["predictions"] is None


def test_an_interrupt_ends_a_job_at_its_next_event_and_never_while_its_record_is_written():
    """Raised wherever it comes, it would be lost in a finaliser."""
    events = Events(StringIO())
    events.send("before")
    events.interrupt()
    with pytest.raises(KeyboardInterrupt):
        events.send("after")
    with pytest.raises(KeyboardInterrupt):
        events.interrupt()
    events.settle()
    events.interrupt()
    events.send("written")


def test_a_job_leaves_the_handling_of_interrupts_to_its_process(do_job):
    before = signal.getsignal(signal.SIGINT)
    do_job()
    assert signal.getsignal(signal.SIGINT) == before


def test_too_little_memory_is_an_out_of_memory_record(do_job):
    done = do_job(device={"memory": "64KiB"})
    record = done.record
    assert record["status"] == "out_of_memory"
    assert "one example at a time does not fit" in record["reason"]
    assert "64.0 KiB" in record["reason"]
    assert record["device"]["memory_limit_bytes"] == 64 * 1024
    assert record["data"]["test_digest"], "so that it is a row of the same group"


def test_some_memory_halves_the_micro_batch_and_the_record_says_so(do_job):
    free = do_job(training={"dropout": 0.0}).record  # dropout is drawn for each micro-batch
    assert free["status"] == "success", free["traceback"]
    limit = int(free["memory"]["train"]["peak_allocated_bytes"] * 0.9)
    record = do_job(training={"dropout": 0.0}, device={"memory": limit}).record
    assert record["status"] == "success", record["reason"]
    assert record["micro_batch_size"] in (1, 2, 4)
    assert any(f"micro-batches of {record['micro_batch_size']}, not 8" in notice for notice in record["notices"])
    assert any("the plan says that 8 examples at once do not fit" in notice for notice in record["notices"])
    assert free["curves"]["loss"][0][1] == pytest.approx(record["curves"]["loss"][0][1], abs=1e-4)


@pytest.mark.parametrize(
    ("architecture", "sections", "words"),
    [
        ("t5", {"strategy": {"kind": "prefix_tuning"}}, ["prefix_tuning", "t5", "pewb list strategies"]),
        ("deberta-v2", {"strategy": {"kind": "prefix_tuning"}}, ["prefix_tuning", "deberta-v2", "does not fit"]),
        ("bert", {"strategy": {"kind": "lora", "targets": ["gate"]}}, ["gate", "matches nothing", "query"]),
        ("bert", {"training": {"max_tokens": 128}}, ["max_tokens", "128", "allowed: up to 64"]),
        ("bert", {"training": {"precision": "fp16"}}, ["fp16", '"auto"']),
    ],
)
def test_what_only_the_model_can_tell_is_an_input_error(do_job, architecture, sections, words):
    done = do_job(architecture, **sections)
    assert done.status == 2
    assert all(word in done.input_error for word in words), done.input_error
    assert "\n" not in done.input_error
    assert done.record is None
    assert left_nothing_but_a_log(done.results)


def test_an_error_of_a_library_keeps_its_traceback_without_the_users_folders(do_job, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise RuntimeError(f"no kernel in {tmp_path}/here\nand a second line")

    monkeypatch.setattr("pewb.training.loop.make_optimizer", broken)
    record = do_job().record
    assert record["status"] == "failed"
    assert record["reason"].startswith("RuntimeError: no kernel in ./here")
    assert "in broken" in record["traceback"]
    assert str(tmp_path) not in record["traceback"]
    assert "/site-packages" not in record["traceback"]
    Record.model_validate(record)


class _Fits:
    """A model that holds at most `limit` examples at once."""

    training = True

    def __init__(self, limit, logit=1.0):
        self.limit, self.logit, self.seen = limit, logit, []

    def parameters(self):
        yield torch.zeros(1)

    def eval(self):
        self.training = False

    def train(self, mode):
        self.training = mode

    def __call__(self, input_ids):
        self.seen.append(len(input_ids))
        if len(input_ids) > self.limit:
            raise torch.OutOfMemoryError("no memory left")
        logits = torch.stack([input_ids[:, 0].float(), torch.full((len(input_ids),), self.logit)], 1)
        return type("Output", (), {"logits": logits})


class _Pads:
    padding_side = "right"
    pad_token_id = pad_token_type_id = 0


def _predicted(model, batch_size=8):
    from contextlib import nullcontext

    features = Dataset.from_dict({"input_ids": [[index] for index in range(10)]})
    data = Encoded(features, labels=[0] * 10, lengths=[3, 9, 4, 8, 5, 7, 6, 2, 1, 10], num_cut=0, weights=[1] * 10)
    return predict(model, Collated(_Pads(), data, torch.device("cpu")), batch_size, nullcontext, Silent(), "evaluating")


def test_evaluation_that_does_not_fit_goes_on_with_smaller_batches():
    model = _Fits(limit=3)
    predictions = _predicted(model)
    assert model.seen == [8, 4, 2, 2, 2, 2, 2]
    expected = torch.tensor([[float(index), 1.0] for index in range(10)]).softmax(-1)
    torch.testing.assert_close(predictions.probabilities, expected)
    assert model.training
    with pytest.raises(OutOfMemoryError, match="evaluating: one example at a time does not fit: no memory left"):
        _predicted(_Fits(limit=0))


def test_outputs_that_are_no_numbers_are_an_error():
    with pytest.raises(TrainingError, match=r"evaluating: .*not numbers"):
        _predicted(_Fits(limit=8, logit=float("nan")))


def test_the_cpu_can_always_be_chosen():
    assert choose_device(DeviceSection(kind="cpu")).type == "cpu"
