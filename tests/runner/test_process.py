"""What the parent makes of a process, whatever becomes of it; the processes here are stand-ins that start quickly."""

import json
import signal
import subprocess
import sys

import pytest

from pewb.errors import InputError, PewbError, RefusedError
from pewb.record import read_records
from pewb.reporting import Silent
from pewb.runner import process
from pewb.runner.process import WORKER, Children, reserve, run_in_process, try_in_process

SAY = "import json, os, signal, sys, time\nsay = lambda **event: print(json.dumps(event), flush=True)\n"
FACTS = {"device": {"kind": "cpu", "name": "CPU"}, "precision": "fp32", "data": {"test_digest": "abc"}}


def stand_in(monkeypatch, script):
    """Let every process run `script`."""

    def start(module, arguments, log, environment):
        command = [sys.executable, "-c", SAY + script, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)

    monkeypatch.setattr(process, "fork_server", lambda environment: None)
    monkeypatch.setattr(process, "_started", start)


@pytest.fixture
def becomes(monkeypatch, make_job, reports):
    """Return a function that runs a job whose process is a script."""
    job = make_job()

    def run(script, reporter=reports, children=None):
        stand_in(monkeypatch, script)
        return run_in_process(job, reporter, children or Children())

    run.job = job
    return run


def test_killed_by_the_system_is_out_of_memory(becomes, reports):
    script = (
        f"say(event='known', facts={FACTS!r}); say(event='progress', stage='training', done=1, total=2, detail='loss')\n"
        "print('the last words', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    record, path = becomes(script)
    assert record.status == "out_of_memory"
    assert "memory runs out" in record.reason
    assert "the last words" in record.traceback
    assert (record.device.kind, record.precision) == ("cpu", "fp32"), "it is a row beside the others"
    assert record.data == {"test_digest": "abc"}
    assert path.name == f"{becomes.job.run}.json"
    assert reports.stages == [("training", 1, 2, "loss")]


@pytest.mark.parametrize(
    ("script", "ending"), [("sys.exit(3)", "with status 3"), ("os.kill(os.getpid(), signal.SIGSEGV)", "on SIGSEGV")]
)
def test_dying_otherwise_is_a_failed_record_that_names_the_log(becomes, script, ending):
    record, _ = becomes(f"print('the last words', file=sys.stderr, flush=True); {script}")
    assert record.status == "failed"
    assert f"ended {ending}" in record.reason
    assert f"logs/{becomes.job.run}.log" in record.reason
    assert "the last words" in becomes.job.log_file.read_text()


def test_half_an_event_is_passed_over(becomes):
    record, _ = becomes(
        'sys.stdout.write(\'{"event": "prog\'); sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)'
    )
    assert record.status == "out_of_memory"


def test_an_input_error_leaves_neither_record_nor_log(becomes):
    with pytest.raises(RefusedError, match="it does not fit"):
        becomes("say(event='input_error', kind='RefusedError', text='it does not fit'); sys.exit(2)")
    assert [path for path in becomes.job.results.rglob("*") if path.is_file()] == []


class _Interrupts(Silent):
    """A user who presses Ctrl-C at the first progress, and again at every later one if `impatient`."""

    def __init__(self, impatient):
        self.impatient = impatient
        self.children = Children()
        self.firsts = []

    def progress(self, stage, done, total, detail=""):
        if done == 1 or self.impatient:
            self.firsts.append(self.children.interrupt())


def test_an_interrupt_that_was_lost_is_sent_again(becomes, monkeypatch):
    monkeypatch.setattr(process, "_REMIND_SECONDS", 0.1)
    script = (
        "def stop(*_): signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\n"
        "signal.signal(signal.SIGINT, stop); say(event='progress', stage='training', done=1, total=2)\n"
        "while True: signal.pause()"
    )
    reporter = _Interrupts(impatient=False)
    record, _ = becomes(script, reporter, reporter.children)
    assert (record.status, record.reason) == ("cancelled", "interrupted")


def test_an_interrupt_reaches_the_process_once_and_its_record_is_kept(becomes):
    job = becomes.job
    written = job.record("cancelled", reason="interrupted", precision="fp32").model_dump_json()
    script = (
        f"text, path = {written!r}, {str(job.results / (job.run + '.json'))!r}\n"
        "def stop(*_): open(path, 'w').write(text); sys.exit(0)\n"
        "signal.signal(signal.SIGINT, stop); say(event='progress', stage='training', done=1, total=2)\n"
        "while True: signal.pause()"
    )
    reporter = _Interrupts(impatient=False)
    record, _ = becomes(script, reporter, reporter.children)
    assert reporter.firsts == [True]
    assert [record] == read_records(job.results)
    assert (record.status, record.precision) == ("cancelled", "fp32"), "the process's own record, not the parent's"


def test_a_second_interrupt_ends_the_process_at_once(becomes):
    script = (
        "signal.signal(signal.SIGINT, lambda *_: say(event='progress', stage='still', done=2, total=2))\n"
        "say(event='progress', stage='training', done=1, total=2)\n"
        "while True: signal.pause()"
    )
    reporter = _Interrupts(impatient=True)
    record, _ = becomes(script, reporter, reporter.children)
    assert reporter.firsts == [True, False]
    assert (record.status, record.reason) == ("cancelled", "interrupted")


def test_after_an_interrupt_nothing_goes_on(becomes):
    children = Children()
    children.interrupt()
    record, _ = becomes("while True: signal.pause()", children=children)
    assert record.status == "cancelled"


def test_what_is_given_up_stays_so_however_fast_it_goes_on(becomes, monkeypatch):
    script = (
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "for number in (1, 2, 3): say(event='validated', evaluation=number, value=0.5)\n"
        "say(event='answer', value=0.5, reason=None)"
    )
    stand_in(monkeypatch, script)
    answer = try_in_process(becomes.job, Silent(), Children(), lambda evaluation, _: evaluation == 2)
    assert answer.given_up
    assert answer.validation == [(1, 0.5), (2, 0.5)]


def test_an_interrupt_reaches_a_process_of_the_background(make_job, tmp_path):
    """A shell that has no job control starts these with the signal ignored, which is inherited."""
    job = make_job(training={"epochs": 100_000})
    (tmp_path / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(tmp_path / "job.json")], stdout=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        for line in worker.stdout:
            if json.loads(line).get("stage") == "training":
                worker.send_signal(signal.SIGINT)
                break
        worker.communicate(timeout=60)
    finally:
        worker.kill()
    [record] = read_records(job.results)
    assert (record.status, record.reason) == ("cancelled", "interrupted")


def test_no_process_is_left_behind_when_nobody_can_listen(becomes):
    class Gone(Silent):
        def progress(self, *_, **__):
            raise BrokenPipeError

    stopped = becomes.job.results / "stopped"
    script = (
        f"def stop(*_): open({str(stopped)!r}, 'w').close(); sys.exit(0)\n"
        "signal.signal(signal.SIGINT, stop); say(event='progress', stage='training', done=1, total=2)\n"
        "while True: signal.pause()"
    )
    with pytest.raises(BrokenPipeError):
        becomes(script, Gone())
    assert stopped.exists()


def test_results_that_cannot_be_written_are_told_before_anything_is_trained(make_job, tmp_path):
    (tmp_path / "file").write_text("")
    job = make_job()
    with pytest.raises(InputError, match="file: the results can't be written here"):
        reserve(job.model_copy(update={"results": tmp_path / "file"}))


def test_a_full_disk_is_told_in_one_message(becomes, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(process, "write_record", full)
    with pytest.raises(PewbError, match=r"could not be recorded in results .No space left on device"):
        becomes("sys.exit(1)")


def test_the_job_reaches_the_process_whole(becomes, monkeypatch):
    copied = becomes.job.results / "copy.txt"
    becomes(f"open({str(copied)!r}, 'w').write(open(sys.argv[1]).read()); sys.exit(1)")
    assert json.loads(copied.read_text()) == json.loads(becomes.job.model_dump_json())
