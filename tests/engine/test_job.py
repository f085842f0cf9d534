import json

import pytest

from onex_distill.engine.job import is_finished, locked, read_job, result_of, write_job
from onex_distill.engine.launch import launch
from onex_distill.storage.frame import store_frame
from support import damage

JOBS = [
    "stage_one",
    "stage_two",
    "cotraining",
    "reader",
    "autoencoder",
    "text_encoders",
    "transformer",
    "embedding",
    "sampling",
]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_survives_its_file(jobs, tmp_path, name):
    job = jobs(name, tmp_path)
    write_job(job, job.identity(), tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == (job, job.identity())


@pytest.mark.parametrize("name", JOBS)
def test_an_identity_is_flat_and_survives_json(jobs, tmp_path, name):
    identity = jobs(name, tmp_path).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert all(value is None or isinstance(value, str | int | float | bool) for value in identity.values())


@pytest.mark.parametrize("name", JOBS)
def test_where_a_job_runs_is_no_part_of_its_identity(jobs, tmp_path, name):
    elsewhere = jobs(name, tmp_path / "b", processes=4, sharding="fsdp2", mixed_precision="bf16", restarts=3)
    assert elsewhere.identity() == jobs(name, tmp_path / "a").identity()


def differences(first, second) -> set[str]:
    before, after = first.identity(), second.identity()
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.mark.parametrize(
    ("name", "change", "leaves"),
    [
        ("stage_one", {"seed": 77}, {"params.seed"}),
        ("stage_one", {"alpha": 0.5, "steps": 9}, {"params.guidance.alpha", "params.loop.steps"}),
        ("stage_one", {"shift": 2.0}, {"shift"}),
        ("stage_two", {"rank": 4}, {"params.lora.rank"}),
        ("cotraining", {"candidates": (((1, 2),),)}, {"params.candidates.0.0.1"}),
        ("reader", {"channels": (8, 8, 8)}, {"params.channels.2"}),
        ("sampling", {"guidance_scale": 2.0}, {"guidance_scale"}),
    ],
)
def test_a_changed_parameter_is_found_by_its_dotted_name(jobs, tmp_path, name, change, leaves):
    assert differences(jobs(name, tmp_path), jobs(name, tmp_path, **change)) == leaves


INPUTS = {
    "teacher/transformer/diffusion_pytorch_model.safetensors": {
        "stage_one": {"teacher"},
        "stage_two": {"student", "reference_generator"},
    },
    "teacher/vae/config.json": {"stage_two": {"autoencoder"}},
    "embeddings/table.json": {"stage_one": {"embeddings"}, "sampling": {"embeddings"}},
    "latents/table.json": {"transformer": {"latents"}},
}


@pytest.mark.parametrize("path", INPUTS)
def test_a_changed_input_is_found_by_its_name(jobs, inputs, tmp_path, path):
    before = {name: jobs(name, tmp_path).identity() for name in INPUTS[path]}
    damage(inputs.teacher.path.parent / path, ("flip", [(-1, 0)]))
    for name, fields in INPUTS[path].items():
        after = jobs(name, tmp_path).identity()
        assert {key for key in after if after[key] != before[name][key]} == {f"input.{field}" for field in fields}


def test_a_changed_frame_is_found_by_its_name(jobs, inputs, tmp_path):
    plan = inputs.plan.read()
    changed = store_frame(plan.assign(noise_seed=plan["noise_seed"] + 1), tmp_path / "plan.parquet")
    same = store_frame(plan, tmp_path / "same.parquet")
    assert differences(jobs("sampling", tmp_path), jobs("sampling", tmp_path, plan=changed)) == {"input.plan"}
    assert differences(jobs("sampling", tmp_path), jobs("sampling", tmp_path, plan=same)) == set()


def test_a_compensation_is_part_of_the_identity(jobs, inputs, tmp_path):
    with_it = jobs("sampling", tmp_path, compensation=inputs.recogniser)
    assert differences(jobs("sampling", tmp_path), with_it) == {"input.compensation"}


def test_a_job_is_finished_once_its_result_is_whole(jobs, tmp_path):
    job = jobs("reader", tmp_path)
    assert not is_finished(job, job.identity())
    (tmp_path / ".partial-result").mkdir()
    assert not is_finished(job, job.identity())
    assert launch(job) == result_of(job)
    assert is_finished(job, job.identity())
    other = jobs("reader", tmp_path, seed=9)
    assert not is_finished(other, other.identity())
    assert not (tmp_path / ".partial-result").exists()


def test_what_a_killed_run_left_behind_is_cleared(jobs, tmp_path):
    for name in (".partial-step-00000002", ".removed-step-00000001"):
        (tmp_path / name).mkdir()
    launch(jobs("reader", tmp_path))
    assert not [path.name for path in tmp_path.glob(".*") if path.is_dir()]


def test_a_lock_names_the_process_that_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr("onex_distill.engine.job.LOCK_TIMEOUT", 0.05)
    with locked(tmp_path / "run", "launcher"):
        with (
            pytest.raises(ValueError, match=r"run is being run by process \d+; wait for it, or give") as error,
            locked(tmp_path / "run", "launcher"),
        ):
            pass
        with locked(tmp_path / "run", "rank-0"):
            pass
    assert "\n" not in str(error.value)
    with locked(tmp_path / "run", "launcher"):
        pass
