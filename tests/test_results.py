"""What the evidence files say can be recomputed from them."""

import json
import math
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common import paths, results
from common.bootstrap import summarise_predictions
from common.evaluation import METRICS, report_classes
from common.files import hash_file
from common.predictions import pair_copies
from common.results import (
    DESCRIBED,
    SUFFIXES,
    find_published,
    load_results,
    read_predictions,
    save_results,
    tabulate_results,
    tabulate_transfer,
)
from tests.prediction_tables import make_predictions

COMMITTED = sorted(paths.RESULTS_DIR.rglob("*.json"))


@dataclass(frozen=True)
class FakeRun:
    predictions: pd.DataFrame
    description: dict
    validation: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"epoch": [0, 1]}))
    complete: bool = True
    first_model: None = None


@dataclass(frozen=True)
class FakeConfig:
    learning_rate: float = 1e-7
    shape: tuple[int, int] = (64, 157)


def make_run(*, corpus: str = "ravdess", protocol: str = "speaker_5fold", **settings) -> FakeRun:
    description = {
        "corpus": corpus,
        "protocol": protocol,
        "seeds": list(settings.get("seeds", (0, 1))),
        "num_parameters": np.int64(12345),
        "features": FakeConfig(),
        "training": {"learning_rate": 1e-7, "epochs": np.int32(3), "patience": None},
        "model": "layers",
        "versions": {"keras": "3.9"},
        "backend": "tensorflow",
        "device": "CPU",
        "seconds": 90.0,
        "key": "abc",
        "folds": {"0/0": "aa", "0/1": "bb", "0/2": "cc"},
        "start": None,
    }
    return FakeRun(make_predictions(**settings), description)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> Path:
    """Keep what these tests write out of the repository."""
    monkeypatch.setattr(paths, "RESULTS_DIR", tmp_path / "results")
    monkeypatch.setattr(paths, "RUNS_DIR", tmp_path / "runs")
    return tmp_path


def find_table(path: Path) -> Path:
    """The predictions of which a JSON tells, with probabilities or without."""
    table = path.with_suffix(".csv")
    return table if table.is_file() else path.with_suffix(".csv.xz")


def read_table(path: Path) -> pd.DataFrame:
    return read_predictions(find_table(path))


def check_evidence(path: Path) -> None:
    """Recompute from the CSV every number of the JSON that follows from it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    predictions = read_table(path)

    def agree(printed, computed) -> bool:
        if printed is None:
            return math.isnan(computed)
        return abs(printed - computed) <= 0.5000001e-6

    metrics = summarise_predictions(predictions)
    assert set(content["metrics"]) == set(metrics) == set(METRICS)
    for metric, values in metrics.items():
        assert set(content["metrics"][metric]) == set(values)
        for name, value in values.items():
            assert agree(content["metrics"][metric][name], value), (path, metric, name)
    report = report_classes(predictions)
    assert [*content["per_class"]] == [*report.index]
    for emotion, values in report.iterrows():
        for name, value in values.items():
            assert agree(content["per_class"][emotion][name], value), (path, emotion, name)
    assert content["num_utterances"] == predictions["utterance"].nunique()
    assert content["num_speakers"] == predictions["speaker"].nunique()
    assert sorted(content["seeds"]) == sorted(predictions["seed"].unique())
    parts = [content["corpus"], content["protocol"], content["variant"]]
    assert path.stem == "__".join(filter(None, parts))
    assert path.parent.name == content["notebook"]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_committed_numbers_follow_from_the_committed_predictions(path):
    check_evidence(path)
    predictions = read_table(path)
    assert not predictions.duplicated(["seed", "utterance"]).any()
    chances = predictions.filter(regex="^p_")
    assert find_table(path).suffix == ".xz" or chances.sum(axis=1).between(0.999, 1.001).all()
    assert set(predictions["utterance"].str.partition("/")[0]) != {"sample"}


def test_every_committed_table_has_its_json_and_none_is_of_the_sample():
    folder = paths.ROOT / "results"
    tables = {path for path in folder.rglob("*.csv*") if not path.name.endswith(".history.csv")}
    assert tables == {find_table(path) for path in COMMITTED}
    for path in folder.rglob("*.history.csv"):
        evidence = path.with_name(path.name.replace(".history.csv", ".json"))
        assert evidence in COMMITTED and len(pd.read_csv(path))
        files = json.loads(evidence.read_text(encoding="utf-8"))["files"]
        assert files["history"] == hash_file(path)
    assert not [path for path in COMMITTED if path.stem.startswith("sample__")]


def test_saved_numbers_follow_from_the_saved_predictions(folders):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    assert path == folders / "runs/results/11_cnn/ravdess__speaker_5fold.json"
    check_evidence(path)


def test_a_copy_is_one_more_prediction_of_its_utterance():
    predictions = make_predictions(seeds=(0, 1))
    copies = predictions.assign(utterance=predictions["utterance"] + "+noise2")
    paired = pair_copies(pd.concat([predictions, copies], ignore_index=True))
    assert set(paired["utterance"]) == set(predictions["utterance"])
    assert set(paired["seed"]) == {0, 2, 10, 12}
    assert not paired.duplicated(["seed", "utterance"]).any()
    np.testing.assert_array_equal(paired["correct"], [*predictions["correct"]] * 2)


def test_predictions_come_back_as_they_were():
    run = make_run()
    path = save_results(run, notebook="11_cnn", title="CNN")
    pd.testing.assert_frame_equal(read_predictions(path.with_suffix(".csv")), run.predictions)


def test_table_has_the_promised_columns_and_four_decimals():
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    header, first, *_ = path.with_suffix(".csv").read_text().splitlines()
    assert header.startswith(
        "utterance,speaker,fold,seed,true_label,predicted_label,correct,part,p_neutral,p_calm,p_happy"
    )
    fields = first.split(",")
    assert fields[:5] == ["corpus/01/neutral_0", "01", "0", "0", "neutral"]
    assert all(len(chance.split(".")[1]) == 4 for chance in fields[8:])


def test_json_has_the_promised_keys_and_keeps_the_settings():
    path = save_results(make_run(), notebook="11_cnn", title="CNN", variant="focal_loss")
    assert path.name == "ravdess__speaker_5fold__focal_loss.json"
    content = json.loads(path.read_text())
    assert set(content) == {
        *("notebook", "title", "variant", "corpus", "protocol", "num_utterances", "num_speakers"),
        *("metrics", "per_class", "ablation", "commit", "files", "model_of"),
        *DESCRIBED,
    }
    assert content["variant"] == "focal_loss"
    assert content["num_parameters"] == 12345
    assert content["training"] == {"learning_rate": 1e-7, "epochs": 3, "patience": None}
    assert content["features"] == {"learning_rate": 1e-7, "shape": [64, 157]}
    assert content["commit"] is None or len(content["commit"]) == 40


def test_an_undefined_deviation_is_null():
    path = save_results(make_run(seeds=(0,), num_folds=1), notebook="11_cnn", title="CNN")
    assert json.loads(path.read_text())["metrics"]["uar"]["std"] is None
    check_evidence(path)


def test_results_on_synthetic_speech_stay_out_of_the_evidence(folders):
    path = save_results(make_run(corpus="sample"), notebook="11_cnn", title="CNN")
    assert path == folders / "runs/results/11_cnn/sample__speaker_5fold.json"
    save_results(make_run(), notebook="11_cnn", title="CNN")
    assert [result["corpus"] for result in load_results()] == ["ravdess"]
    assert [result["corpus"] for result in load_results(corpus="sample")] == ["sample"]


def test_saving_again_replaces_and_leaves_nothing_else(folders):
    save_results(make_run(skill=0.1), notebook="11_cnn", title="CNN")
    path = save_results(make_run(skill=3), notebook="11_cnn", title="CNN")
    check_evidence(path)
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [f"ravdess__speaker_5fold.{end}" for end in ("csv", "history.csv", "json")]


@pytest.mark.parametrize("variant", ["a__b", "../up", "", "two words", "_x"])
def test_a_name_that_makes_no_file_name_is_refused(variant, folders):
    with pytest.raises(ValueError, match="file name"):
        save_results(make_run(), notebook="11_cnn", title="CNN", variant=variant)
    assert not (folders / "runs").exists()


def spoil_correct(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(correct=~table["correct"])


def spoil_label(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(predicted_label="bored", correct=False)


def spoil_columns(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"p_sad": "p_calm", "p_calm": "p_sad"})


def drop_seed(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="seed")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_correct, "contradicts"),
        (spoil_label, "p_bored"),
        (spoil_columns, "most probable"),
        (drop_seed, "seed"),
        (lambda table: table.head(0), "rows"),
    ],
)
def test_predictions_that_contradict_themselves_are_neither_saved_nor_read(
    spoil, message, folders, tmp_path
):
    run = make_run()
    spoilt = spoil(run.predictions)
    with pytest.raises(ValueError, match=message):
        save_results(FakeRun(spoilt, run.description), notebook="11_cnn", title="CNN")
    assert not (folders / "runs").exists()
    spoilt.to_csv(tmp_path / "spoilt.csv", index=False)
    with pytest.raises(ValueError, match=rf"spoilt.csv.*{message}"):
        read_predictions(tmp_path / "spoilt.csv")


def test_predictions_that_are_absent_or_no_table_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        read_predictions(tmp_path / "nowhere.csv")
    (tmp_path / "text.csv").write_text("no table at all\n")
    with pytest.raises(ValueError, match="text.csv"):
        read_predictions(tmp_path / "text.csv")


def test_results_are_found_by_corpus_protocol_and_notebook():
    save_results(make_run(), notebook="12_bilstm", title="CNN")
    save_results(make_run(protocol="random_5fold"), notebook="11_cnn", title="CNN")
    save_results(make_run(), notebook="11_cnn", title="CNN")
    save_results(make_run(corpus="savee", num_speakers=4), notebook="11_cnn", title="CNN")
    assert [
        (result["notebook"], result["corpus"], result["protocol"]) for result in load_results()
    ] == [
        ("11_cnn", "ravdess", "random_5fold"),
        ("11_cnn", "ravdess", "speaker_5fold"),
        ("11_cnn", "savee", "speaker_5fold"),
        ("12_bilstm", "ravdess", "speaker_5fold"),
    ]
    assert len(load_results(corpus="ravdess", protocol="speaker_5fold")) == 2
    (found,) = load_results(corpus="savee", notebook="11_cnn")
    assert read_predictions(found["csv"])["speaker"].nunique() == 4
    assert load_results(corpus="tess") == []


def test_ablations_come_only_when_asked_for():
    save_results(make_run(), notebook="11_cnn", title="CNN")
    save_results(make_run(), notebook="11_cnn", title="CNN", variant="no_copies", ablation=True)
    assert [result["variant"] for result in load_results()] == [None]
    assert tabulate_results(corpus="ravdess")["variant"].to_list() == [""]
    assert [result["variant"] for result in load_results(ablations=True)] == [None, "no_copies"]


def test_a_broken_json_is_named(folders):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    path.write_text("{")
    with pytest.raises(ValueError, match="ravdess__speaker_5fold.json"):
        load_results()


def test_results_are_tabulated_with_their_intervals():
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    save_results(make_run(num_folds=1, seeds=(0,)), notebook="11_cnn", title="CNN", variant="small")
    table = tabulate_results(corpus="ravdess")
    assert [*table.columns] == [
        *("notebook", "variant", "title", "own", "protocol"),
        *(
            metric + suffix
            for metric in ("uar", "wa", "macro_f1")
            for suffix in ("", "_low", "_high", "_mean", "_std")
        ),
        *("num_parameters", "num_seeds", "minutes", "backend"),
    ]
    assert table["variant"].to_list() == ["", "small"]
    metrics = json.loads(path.read_text())["metrics"]
    first = table.iloc[0]
    assert (first["uar"], first["wa_low"]) == (metrics["uar"]["score"], metrics["wa"]["low"])
    assert (first["num_parameters"], first["num_seeds"], first["minutes"]) == (12345, 2, 1.5)
    assert np.isnan(table.loc[1, "uar_std"])
    empty = tabulate_results(corpus="tess")
    assert empty.empty
    assert [*empty.columns] == [*table.columns]


def test_what_other_corpora_taught_has_a_table_of_its_own():
    run = make_run(corpus="ant+bee+corpus", protocol="leave_one_corpus_out", num_folds=2)
    names = {0: "ant/", 1: "bee/"}
    moved = run.predictions["fold"].map(names) + run.predictions["utterance"]
    run = replace(run, predictions=run.predictions.assign(utterance=moved))
    save_results(run, notebook="50_cross_corpus", title="CNN")
    save_results(make_run(), notebook="11_cnn", title="CNN")
    save_results(run, notebook="50_cross_corpus", title="z", variant="z", ablation=True)
    table = tabulate_transfer()
    assert table["tested_on"].tolist() == ["ant", "bee"]
    assert table["trained_on"].tolist() == ["bee+corpus", "ant+corpus"]
    for row in table.itertuples():
        own = run.predictions[run.predictions["utterance"].str.startswith(row.tested_on)]
        scores = summarise_predictions(own)["uar"]
        assert row.uar == pytest.approx(scores["score"]) and row.uar_low <= row.uar <= row.uar_high
        assert row.num_speakers == own["speaker"].nunique() and row.num_emotions == 8
    assert tabulate_transfer(own=False).empty
    assert tabulate_results(corpus="ravdess")["protocol"].tolist() == ["speaker_5fold"]


def test_validation_rows_are_kept_apart_from_test_rows():
    run = replace(make_run(), validation=make_predictions(skill=0.1).assign(seed=5))
    path = save_results(run, notebook="11_cnn", title="CNN")
    check_evidence(path)
    pd.testing.assert_frame_equal(read_predictions(path.with_suffix(".csv")), run.predictions)
    kept = read_predictions(path.with_suffix(".csv"), part="validation")
    pd.testing.assert_frame_equal(kept, run.validation)


def test_labels_alone_give_the_same_scores_in_a_small_file(folders):
    run = make_run(repetitions=20)
    whole = save_results(run, notebook="11_cnn", title="CNN")
    path = save_results(run, notebook="12_bilstm", title="CNN", labels_only=True)
    names = sorted(file.name for file in path.parent.iterdir())
    assert names == [f"ravdess__speaker_5fold.{end}" for end in ("csv.xz", "history.csv", "json")]
    table = path.with_suffix(".csv.xz")
    assert table.stat().st_size < whole.with_suffix(".csv").stat().st_size / 10
    found = read_predictions(table)
    pd.testing.assert_frame_equal(
        found, run.predictions.drop(columns=found.filter(regex="^p_")).loc[:, [*found]]
    )
    check_evidence(path)
    first, second = (json.loads(file.read_text(encoding="utf-8")) for file in (whole, path))
    assert first["metrics"] == second["metrics"] and first["per_class"] == second["per_class"]
    assert [result["csv"].name for result in load_results()] == [
        "ravdess__speaker_5fold.csv",
        "ravdess__speaker_5fold.csv.xz",
    ]
    publish(folders)
    assert save_results(run, notebook="12_bilstm", title="CNN", labels_only=True) == (
        folders / "results/12_bilstm/ravdess__speaker_5fold.json"
    )
    assert not any(result["own"] for result in load_results())
    with pytest.raises(ValueError, match="lacks probabilities or rows"):
        save_results(replace(run, predictions=found), notebook="13_own", title="CNN")
    (folders / "results/12_bilstm/ravdess__speaker_5fold.csv.xz").unlink()
    with pytest.raises(ValueError, match=r"speaker_5fold.csv.xz is not the one"):
        load_results()


def test_a_table_of_another_run_beside_a_json_is_refused(folders):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    other = save_results(make_run(skill=3), notebook="12_bilstm", title="LSTM")
    shutil.copy(other.with_suffix(".csv"), path.with_suffix(".csv"))
    with pytest.raises(ValueError, match=r"11_cnn.ravdess__speaker_5fold.csv is not the one"):
        load_results()


def test_curves_and_a_model_of_another_run_beside_a_json_are_refused(folders):
    for kind in ("history", "model"):
        path = save_results(make_run(), notebook="11_cnn", title="CNN")
        content = json.loads(path.read_text())
        file = path.with_suffix(SUFFIXES[kind])
        content["files"][kind] = hash_file(path)  # of anything else
        file.write_bytes(b"another")
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"11_cnn.{file.name} is not the one"):
            load_results()


@pytest.mark.parametrize("step", ["compute_evidence", "_write_csv", "hash_file"])
def test_a_save_that_fails_leaves_what_was_there(step, folders, monkeypatch):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with monkeypatch.context() as dying:
        dying.setattr(results, step, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_results(make_run(skill=3), notebook="11_cnn", title="CNN")
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    check_evidence(save_results(make_run(skill=3), notebook="11_cnn", title="CNN"))


def test_a_save_that_is_killed_between_two_files_leaves_no_half_of_a_result(folders, monkeypatch):
    save_results(make_run(), notebook="11_cnn", title="CNN")
    replace_by = Path.replace

    def die(temporary, target):
        if Path(target).suffix == ".json":
            raise KeyboardInterrupt
        return replace_by(temporary, target)

    with monkeypatch.context() as dying:
        dying.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            save_results(make_run(skill=3), notebook="11_cnn", title="CNN")
    assert load_results() == []
    save_results(make_run(skill=3), notebook="11_cnn", title="CNN")
    assert len(load_results()) == 1


def test_a_reader_never_meets_the_unfinished_files_of_another_process(folders, monkeypatch):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    names, write, listed = sorted(path.parent.iterdir()), results._write_csv, []

    def read_meanwhile(target, rows, **named):
        write(target, rows, **named)
        assert target.is_file()
        assert len(load_results()) == 1
        listed.append(sorted(file for file in path.parent.glob("*.*") if file.is_file()))

    monkeypatch.setattr(results, "_write_csv", read_meanwhile)
    save_results(make_run(skill=3), notebook="11_cnn", title="CNN")
    assert listed
    assert all(files == names for files in listed)


def test_a_result_that_goes_while_it_is_read_is_passed_over(folders, monkeypatch):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    publish(folders)
    own = save_results(make_run(skill=3), notebook="11_cnn", title="CNN")
    assert own == path
    read_text = Path.read_text

    def go(listed, **named):
        if listed == own:
            listed.unlink()
        return read_text(listed, **named)

    with monkeypatch.context() as reading:
        reading.setattr(Path, "read_text", go)
        assert [result["own"] for result in load_results()] == [False]


def test_a_result_that_is_replaced_while_it_is_read_is_passed_over(folders, monkeypatch):
    save_results(make_run(), notebook="11_cnn", title="CNN")

    def read_meanwhile(listed):
        listed.write_text(listed.read_text() + " ")
        raise ValueError("the old JSON beside the new CSV")

    monkeypatch.setattr(results, "read_evidence", read_meanwhile)
    assert load_results() == []


def publish(folders) -> None:
    shutil.copytree(folders / "runs" / "results", folders / "results", dirs_exist_ok=True)


def test_own_results_stand_beside_published_ones_unless_they_are_the_same(folders):
    path = save_results(make_run(), notebook="11_cnn", title="CNN")
    assert tabulate_results(corpus="ravdess")["own"].to_list() == [True]
    publish(folders)
    assert tabulate_results(corpus="ravdess")["own"].to_list() == [False]
    published = save_results(make_run(), notebook="11_cnn", title="CNN")
    assert published == folders / "results" / path.relative_to(folders / "runs" / "results")
    again = save_results(make_run(skill=1.4), notebook="11_cnn", title="CNN")
    assert again == path
    assert tabulate_results(corpus="ravdess")["own"].to_list() == [False, True]
    assert tabulate_results(corpus="ravdess", own=False)["own"].to_list() == [False]


def test_only_evidence_with_the_key_of_a_run_is_its_published_evidence(folders):
    save_results(make_run(), notebook="11_cnn", title="CNN")
    assert find_published("abc") == []
    publish(folders)
    [found] = find_published("abc")
    assert found["notebook"] == "11_cnn" and find_published("ab") == []
