"""What a folder's records answer."""

from pewb.record import write_record
from pewb.runner.found import Found
from pewb.runner.process import Children


def test_that_memory_ran_out_elsewhere_is_no_answer(make_job, reports):
    job = make_job()
    found = Found(job.results, reports, Children())
    kind, name = Children().device()
    write_record(job.record("out_of_memory", device={"kind": kind, "name": "a smaller one"}), job.results)
    assert found.answer(job) is None
    here = job.model_copy(update={"run": f"{job.run}-2"})
    path = write_record(here.record("out_of_memory", device={"kind": kind, "name": name}), job.results)
    assert found.answer(job)[1] == path


def test_what_ends_well_after_its_pewb_was_killed_is_found(make_job, reports):
    """Its process goes on for a while beside the pewb that was started again, which must not run it a second time."""
    job = make_job()
    found = Found(job.results, reports, Children())
    assert found.answer(job) is None
    (job.results / "other.json").write_text("{}", encoding="utf-8")
    path = write_record(job.record("success", device={"kind": "cpu", "name": "CPU"}), job.results)
    assert found.answer(job)[1] == path
    assert found.answer(job)[1] == path
    assert [text for text in reports.notices if "other.json" in text] == [reports.notices[-1]]
