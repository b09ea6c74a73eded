"""The parts of a replay that need no server: reading a trace, naming, counting."""

import gzip
from pathlib import Path

import pytest

from cli.replay import stage, trace
from cli.replay.bodies import Bodies
from cli.replay.labels import LENGTH_MAX, Labels, label
from cli.replay.tally import SAMPLES, Tally, percentile, reason_of
from cli.replay.trace import BadTrace, Machine, Request, Trace

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "traces" / "topology-c1"
HEADER = "time_s,action,vm,cpu_milli,gpu_milli"


def test_the_example_is_read_whole() -> None:
    read = trace.read(str(EXAMPLE), None)
    assert (read.name, len(read.requests), len(read.machines)) == ("topology-c1", 4998, 1031)
    first = read.requests[0]
    assert first == Request(
        0.0, "create", "vm-000000", {"cpu_milli": 8000, "memory_mib": 16384}, "fault_domain", "0", 1
    )
    assert {request.rule for request in read.requests} == {"", "affinity", "anti_affinity", "fault_domain"}


def test_a_trace_is_a_file_or_a_folder_plain_or_gzipped(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(f"{HEADER}\n0,create,a,1000,0\n2.5,delete,a,1000,0\n")
    with gzip.open(tmp_path / "other.csv.gz", "wt") as file:
        file.write("host,region,dc,rack,cpu_milli\nh1,n,d,r,4000\n")
    read = trace.read(str(tmp_path / "requests.csv"), str(tmp_path / "other.csv.gz"))
    assert [(request.time_s, request.action, request.resources) for request in read.requests] == [
        (0.0, "create", {"cpu_milli": 1000}),
        (2.5, "delete", {"cpu_milli": 1000}),
    ]
    assert read.machines == [Machine("h1", "n", "d", "r", {"cpu_milli": 4000})]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("0,make,a,1,0", "line 2: action is create or delete"),
        ("0,create,a,one,0", "line 2: cpu_milli is a whole number, not 'one'"),
        ("0,create,a,-1,0", "line 2: cpu_milli is a whole number"),
        ("0,create,a,1", "line 2: it has another number of fields"),
        ("5,create,a,1,0\n4,create,b,1,0", "line 3: time_s goes back"),
        ("nan,create,a,1,0", "line 2: time_s is a number"),
        ("0,create,,1,0", "line 2: vm has no name"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, lines: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(f"{HEADER}\n{lines}\n")
    with pytest.raises(BadTrace, match=said):
        list(trace.read_requests(tmp_path / "t.csv"))


def test_names_become_labels_and_two_things_never_share_one() -> None:
    assert label("Rack_07.A") == "rack-07-a"
    labels = Labels("run-")
    assert labels.of("n", "dc1", "r0") == "run-r0"
    assert labels.of("n", "dc2", "r0") == "run-n-dc2-r0"
    assert labels.of("n", "dc1", "r0") == "run-r0"
    assert labels.of("a_b") != labels.of("a-b") != labels.of("a.b")
    long = [labels.of("x" * 80 + str(number)) for number in range(5)]
    assert len(set(long)) == 5
    assert max(len(name) for name in long) <= LENGTH_MAX


def test_a_set_is_numbered_per_rule() -> None:
    bodies = Bodies(group="run", tenant="run")

    def rule(kind: str, domain: int = 0) -> dict[str, object]:
        return bodies.rule(Request(0, "create", "a", {}, kind, "0", domain))

    assert rule("affinity") == {"type": "affinity", "set": "affinity-0", "level": "host"}
    assert rule("anti_affinity") == {"type": "anti_affinity", "set": "anti-affinity-0", "level": "host"}
    domain = rule("fault_domain", 3)
    assert domain == {"type": "partition", "set": "fault-domain-0", "level": "rack", "partition": 3}


def test_the_stage_has_the_trace_s_racks_and_a_quota_that_is_never_reached() -> None:
    machines = [Machine(f"h{n}", "North", "dc1", f"r{n % 2}", {"cpu_milli": 1000}) for n in range(4)]
    requests = [
        Request(n, action, "a", {"cpu_milli": 3000}, "", "", 0) for n, action in enumerate(("create", "delete"))
    ]
    made = Trace("t", requests, machines)
    assert stage.rack_commands(made, "run") == [
        ("r0", {"command": "rack.create", "name": "run-r0", "region": "north", "dc": "dc1"}),
        ("r1", {"command": "rack.create", "name": "run-r1", "region": "north", "dc": "dc1"}),
    ]
    assert stage.ample_limits(made) == {"vms": 1, "cpu_milli": 3000}
    assert stage.total_capacity(made) == {"cpu_milli": 4000}


def test_the_tally_follows_what_is_placed_refused_and_deleted() -> None:
    tally = Tally({"cpu": 10, "gpu": 0}, requests=5)
    tally.place("a", {"cpu": 6}, 0)
    tally.place("b", {"cpu": 3}, 1)
    tally.refuse({"code": "no_capacity", "reasons": [{"reason": "insufficient:cpu", "hosts": 2}]}, 2)
    tally.delete("a", 3)
    tally.refuse({"code": "quota_exceeded"}, 4)
    assert (tally.placed, tally.refused, tally.deleted, tally.done) == (2, 2, 1, 5)
    assert tally.refused_by_reason == {"insufficient:cpu": 1, "quota_exceeded": 1}
    assert tally.at_first_refusal == {"cpu": 0.9}
    assert tally.utilisation() == {"cpu": 0.3}
    assert not tally.is_running("a")


def test_there_are_ten_samples_and_the_last_is_the_end() -> None:
    tally = Tally({"cpu": 1000}, requests=997)
    for number in range(997):
        tally.place(str(number), {"cpu": 1}, number)
    assert len(tally.samples) == SAMPLES
    assert tally.samples[-1] == (997, 996, {"cpu": 0.997})


def test_the_reason_of_a_refusal_is_what_dropped_most_hosts() -> None:
    reasons = [
        {"reason": "state", "hosts": 1},
        {"reason": "rule:affinity", "hosts": 7},
        {"reason": "place", "hosts": 7},
    ]
    assert reason_of({"code": "no_capacity", "reasons": reasons}) == "place"
    assert reason_of({"code": "no_capacity", "reasons": []}) == "no_capacity"
    assert reason_of({"status": 500}) == "500"


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 0.5) == 100
    assert percentile(values, 0.99) == 198
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None


def test_a_file_is_gzipped_if_it_begins_so_whatever_it_is_called(tmp_path: Path) -> None:
    text = f"\ufeff{HEADER}\r\n0,create,a,1000,0\r\n"
    (tmp_path / "plain.csv.gz").write_text(text, newline="")
    with gzip.open(tmp_path / "packed.csv", "wt", newline="") as file:
        file.write(text)
    for name in ("plain.csv.gz", "packed.csv"):
        assert [request.vm for request in trace.read_requests(tmp_path / name)] == ["a"], name


def test_a_broken_gzip_is_said_so(tmp_path: Path) -> None:
    whole = gzip.compress(f"{HEADER}\n0,create,a,1000,0\n".encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[:-12])
    (tmp_path / "bad.csv.gz").write_bytes(whole[:12] + b"\xff" * 20)
    for name in ("cut.csv.gz", "bad.csv.gz"):
        with pytest.raises(BadTrace, match="cannot read"):
            list(trace.read_requests(tmp_path / name))


def test_hosts_that_name_none_are_no_trace(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text(f"{HEADER}\n0,create,a,1000,0\n")
    (tmp_path / "hosts.csv").write_text("host,region,dc,rack,cpu_milli\n")
    with pytest.raises(BadTrace, match="names no host"):
        trace.read(str(tmp_path), None)


def test_an_ample_quota_is_one_that_the_api_takes() -> None:
    requests = [Request(n, "create", str(n), {"cpu_milli": 2**53 - 2}, "", "", 0) for n in range(3)]
    assert stage.ample_limits(Trace("t", requests, [])) == {"vms": 3, "cpu_milli": 2**53 - 1}
