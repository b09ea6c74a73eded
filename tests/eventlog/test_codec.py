import msgspec
import pytest

from domain.kind import Former
from domain.recorded import LogOpened, Recorded
from domain.vm import VmActivated
from eventlog import codec
from eventlog.codec import Row, UnknownTopic
from tests.eventlog import golden

WRITE_ONE = "write its golden row with `python -m tests.eventlog.golden`, and never change it afterwards"


def test_every_topic_has_a_golden_row() -> None:
    missing = sorted((codec.TOPICS.keys() | codec.FORMER.keys()) - golden.load().keys())
    assert not missing, f"{missing}: {WRITE_ONE}"


def test_a_topic_that_was_ever_written_stays_readable() -> None:
    gone = sorted(golden.load().keys() - codec.TOPICS.keys() - codec.FORMER.keys())
    assert not gone, f"{gone} can't be read any more: declare each as `former` in its kind"


@pytest.mark.parametrize("row", golden.load().values(), ids=lambda row: row.topic)
def test_a_golden_row_is_read_and_written_again_in_the_same_bytes(row: Row) -> None:
    event = codec.decode(row)
    if row.topic in codec.TOPICS:
        assert codec.encode(event) == row, f"{row.topic} has changed: give the new form a new topic"


def test_an_unknown_topic_is_never_skipped() -> None:
    row = Row("vm/acme/web-1", 7, 7, "vm.levitated", b'{"at":1,"actor":"ann","command":"c","data":{}}')
    with pytest.raises(UnknownTopic, match=r"position 7 has the topic 'vm\.levitated'"):
        codec.decode(row)


def test_bytes_that_are_not_what_their_topic_says_are_refused() -> None:
    row = Row("log", 1, 1, "log.opened", b'{"at":1,"actor":"berth","command":"","data":{"log":5}}')
    with pytest.raises(msgspec.ValidationError):
        codec.decode(row)


class VmActivatedAtFirst(msgspec.Struct, frozen=True):
    address: str


def test_a_former_topic_is_read_as_the_event_of_today() -> None:
    former = Former(VmActivatedAtFirst, lambda written: VmActivated(addresses=(written.event.address,)))
    decode = codec.decoder({"vm.activated.2": VmActivated}, {"vm.activated": former})
    row = Row(
        "vm/acme/web-1", 9, 9, "vm.activated", b'{"at":1,"actor":"vm","command":"c","data":{"address":"10.0.0.7"}}'
    )
    assert decode(row) == Recorded("vm/acme/web-1", 9, 9, 1, "vm", "c", VmActivated(addresses=("10.0.0.7",)))


def test_one_topic_of_two_kinds_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"log\.opened"):
        codec.merged(codec.TOPICS, {"log.opened": LogOpened})


def test_a_time_is_known_without_knowing_the_topic() -> None:
    assert codec.time_of(Row("x/y", 1, 1, "x.unheard_of", b'{"at":42,"actor":"","command":"","data":[1]}')) == 42
