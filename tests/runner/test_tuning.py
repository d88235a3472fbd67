"""The search itself, with stand-ins for the trials' processes: what is tried next, what is kept, what breaks off."""

import math
from pathlib import Path

import pytest
from filelock import FileLock

from pewb.errors import InputError, PewbError, TrainingError
from pewb.recipe import Cell, LoadedRecipe, parse_recipe
from pewb.runner import tuning
from pewb.runner.comparison import Comparison
from pewb.runner.prepare import prepare
from pewb.runner.process import Answer, Children
from tests.runner.conftest import TASK


@pytest.fixture
def searching(sentence_files, tiny_backbone, reports, monkeypatch):
    """Return a function that searches with `respond(recipe, number of the call)` in the place of processes."""
    monkeypatch.chdir(sentence_files)

    def search(respond, children=None, task=TASK, device="cpu", **tune):
        content = {"backbone": str(tiny_backbone("bert")), "task": task, "strategy": "lora", "tune": tune}
        content["device"] = {"kind": device}
        [row] = prepare(LoadedRecipe([Cell(parse_recipe(content))], content), Path("results"), reports)
        calls = []

        def instead(job, reporter, children, give_up):
            calls.append(job.recipe)
            return respond(job.recipe, len(calls), give_up)

        monkeypatch.setattr(tuning, "try_in_process", instead)
        return tuning.tune(row, reports, children or Children()), calls

    return search


def by_rate(best):
    """Return a response whose value falls with the distance from the rate `best`, in decades."""
    return lambda recipe, *_: Answer(value=1 - abs(math.log10(recipe.training.learning_rate / best)))


def test_a_smaller_loss_is_better(searching):
    task = {name: value for name, value in TASK.items() if name not in ("kind", "text", "label")}
    task |= {"kind": "causal_lm", "completion": "sentence"}

    def respond(recipe, number, give_up):
        loss = 3 - by_rate(5e-3)(recipe).value
        if give_up(1, loss) or give_up(2, loss) or give_up(3, loss):
            return Answer(given_up=True)
        return Answer(value=loss)

    found, calls = searching(respond, task=task, trials=4, prune=False)
    tried = [recipe.training.learning_rate for recipe in calls]
    assert len(tried) > 4, "the largest rate was the best: the next one beyond it is tried"
    best = min(found.trials, key=lambda trial: trial.validation)
    assert found.chosen == best.values
    given_up = searching(respond, task=task | {"header": True, "format": "csv"}, trials=4)[0].trials
    assert [trial.state for trial in given_up[2:4]] == ["pruned", "complete"], "the worst so far, then the best"


def test_other_keys_are_searched_after_the_rates(searching):
    def respond(recipe, *_):
        return Answer(value=by_rate(5e-4)(recipe).value + (recipe.strategy.rank == 4))

    found, calls = searching(respond, trials=9, search={"strategy.rank": [2, 4], "training.weight_decay": [0.0, 0.1]})
    assert len(found.trials) == len(calls) == 9
    assert [set(trial.values) for trial in found.trials[:4]] == [{"training.learning_rate"}] * 4
    assert all(len(trial.values) == 3 for trial in found.trials[4:])
    assert found.chosen["strategy.rank"] == 4
    lowest, highest = (bound(recipe.training.learning_rate for recipe in calls[:4]) for bound in (min, max))
    assert all(lowest <= recipe.training.learning_rate <= highest for recipe in calls)


def test_broken_off_anywhere_it_goes_on_as_if_it_had_not(searching):
    arguments = {"trials": 7, "search": {"strategy.rank": [2, 4]}}
    whole, _ = searching(by_rate(1e-2), **arguments)
    Path("results").rename("whole")
    for _ in range(len(whole.trials)):
        children = Children()

        def one_and_no_more(recipe, number, _, children=children):
            if number == 2:
                children.interrupt()
            return by_rate(1e-2)(recipe)

        found, _ = searching(one_and_no_more, children, **arguments)
        if found:
            break
    assert found == whole


def test_a_study_of_a_killed_process_is_taken_up(searching):
    def killed(recipe, number, _):
        if number == 3:
            raise SystemExit("as if killed")
        return by_rate(5e-4)(recipe)

    with pytest.raises(SystemExit):
        searching(killed)
    found, calls = searching(by_rate(5e-4))
    assert len(calls) == 2, "two trials had ended"
    assert [trial.state for trial in found.trials] == ["complete"] * 4


def test_the_best_at_an_edge_is_followed_and_told(searching):
    found, _ = searching(by_rate(1.0), extensions=2)
    rates = [trial.values["training.learning_rate"] for trial in found.trials]
    assert len(rates) == 6
    assert found.chosen["training.learning_rate"] == max(rates)
    assert found.notices == [f"the best learning rate, {max(rates):g}, is the largest that was tried"]
    inside, _ = searching(by_rate(5e-4), trials=5)
    assert inside.notices == []
    assert len(inside.trials) == 5


def test_hopeless_trials_are_given_up(searching):
    def respond(recipe, number, give_up):
        value = 0.9 - number / 10
        answer = Answer(value=value)
        answer.given_up = give_up(1, value) or give_up(2, value)
        return answer

    found, _ = searching(respond)
    assert [trial.state for trial in found.trials] == ["complete", "complete", "pruned", "pruned"]
    assert found.trials[2].validation == pytest.approx(0.6)


def test_a_process_that_dies_says_nothing_of_its_rate(searching):
    def dies_once(recipe, number, _):
        return Answer(died=True, reason="killed") if number == 1 else by_rate(5e-4)(recipe)

    found, calls = searching(dies_once)
    assert len(calls) == 5
    assert [trial.state for trial in found.trials] == ["complete"] * 4
    Path("results").rename("before")
    with pytest.raises(TrainingError, match="killed"):
        searching(lambda *_: Answer(died=True, reason="killed"))
    found, _ = searching(by_rate(5e-4))
    assert [trial.state for trial in found.trials] == ["complete"] * 4, "tried again"


def test_a_rate_that_breaks_the_model_is_a_failed_trial(searching):
    def respond(recipe, *_):
        too_high = recipe.training.learning_rate > 1e-3
        return Answer(reason="the loss became nan") if too_high else by_rate(5e-4)(recipe)

    found, _ = searching(respond)
    assert [trial.state for trial in found.trials].count("failed") == 2
    assert found.chosen["training.learning_rate"] < 1e-3
    Path("results").rename("before")
    with pytest.raises(TrainingError, match=r"none of the 4 trials .* nan .to search anew, remove results.studies"):
        searching(lambda *_: Answer(reason="the loss became nan"))


def test_a_search_that_another_pewb_does_is_waited_for(searching, reports, monkeypatch):
    found, _ = searching(by_rate(5e-4))
    [study] = Path("results/studies").glob("*.db")
    monkeypatch.setattr(tuning, "_WAIT_SECONDS", 0.01)
    other = FileLock(f"{study}.lock")
    other.acquire()
    children = Children()
    answers = iter([other.release, children.interrupt])

    def notice(text):
        if "another pewb does this search; waiting for its end" in text:
            next(answers)()

    monkeypatch.setattr(reports, "notice", notice)
    again, calls = searching(by_rate(5e-4))
    assert (again, calls) == (found, [])
    other.acquire()
    assert searching(by_rate(5e-4), children)[0] is None, "it can be interrupted while it waits"


def test_what_a_gpu_chooses_is_not_what_a_cpu_does(searching):
    for kind in ("cpu", "cuda"):
        children = Children()
        children.device = lambda kind=kind: (kind, "of some name")
        _, calls = searching(by_rate(5e-4), children, device="auto")
        assert len(calls) == 4
    assert len(list(Path("results/studies").glob("*.db"))) == 2


def test_a_damaged_study_is_told_with_a_way_out(searching):
    searching(by_rate(5e-4))
    [study] = Path("results/studies").glob("*.db")
    study.write_bytes(b"no database" * 100)
    with pytest.raises(TrainingError, match=r"can't be used .*; remove it, and the search begins anew"):
        searching(by_rate(5e-4))


def test_an_input_that_no_trial_can_use_is_the_users_to_mend(sentence_files, tiny_backbone, reports, monkeypatch):
    """Alone in a recipe it is no failed run."""

    def refuse(*_):
        raise InputError("max_tokens is more than the backbone reads")

    monkeypatch.chdir(sentence_files)
    monkeypatch.setattr(tuning, "try_in_process", refuse)
    content = {"backbone": str(tiny_backbone("bert")), "task": TASK, "strategy": "lora", "tune": {}}
    rows = prepare(LoadedRecipe([Cell(parse_recipe(content))], content), Path("results"), reports)
    with pytest.raises(InputError, match="max_tokens"):
        Comparison(rows, Path("results"), reports).run()
    assert not list(Path("results").glob("*.json"))


def test_an_error_that_an_interrupt_made_is_not_told(sentence_files, tiny_backbone, reports, monkeypatch):
    """Such as that of the process that is asked for the device."""
    monkeypatch.chdir(sentence_files)
    content = {"backbone": str(tiny_backbone("bert")), "task": TASK, "strategy": "lora"}
    comparison = Comparison(
        prepare(LoadedRecipe([Cell(parse_recipe(content))], content), Path("results"), reports),
        Path("results"),
        reports,
    )

    def answer(job):
        comparison.children.interrupt()
        raise PewbError("the device can't be found out: KeyboardInterrupt")

    monkeypatch.setattr(comparison._found, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        comparison.run()


def test_a_row_whose_search_failed_names_no_rate(sentence_files, tiny_backbone, reports, monkeypatch):
    """In a comparison the fault is the row's, and the others go on."""

    def respond(job, *_):
        if job.recipe.strategy.kind == "lora":
            raise InputError("matches nothing")
        return Answer(reason="the loss became nan")

    monkeypatch.chdir(sentence_files)
    monkeypatch.setattr(tuning, "try_in_process", respond)
    content = {"backbone": str(tiny_backbone("bert")), "task": TASK, "tune": {}}
    cells = [Cell(parse_recipe(content | {"strategy": kind})) for kind in ("lora", "full")]
    rows = prepare(LoadedRecipe(cells, content), Path("results"), reports)
    lora, full = (record for record, _ in Comparison(rows, Path("results"), reports).run())
    assert (lora.status, lora.reason) == ("failed", "matches nothing")
    assert full.reason.startswith("none of the 4 trials ended well; the last: the loss became nan")
    assert [record.settings.split(", ")[-2:] for record in (lora, full)] == [["no lr chosen", "3 epochs"]] * 2
