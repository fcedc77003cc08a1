"""The wire, pinned as literal bytes, and everything that may arrive on it."""

import random
import struct

import pytest

import message
from helpers import encode_pair
from message import (HEADER_SIZE, MAX_FRAME, MAX_PLAIN_FRAME, QUIT_TEXTS, SMALLEST_SEGMENT, Batch, FrameDecoder, Kind, Log, ProtocolError,
                     RecordDecoder, as_c_reads, encode_frame, join, encode_record, plain_texts, read_id)

HI = b"\x02\0\0\0\0\0\0\0al" b"\x02\0\0\0\0\0\0\0hi"


def pairs(*pieces):
    decoder = FrameDecoder()
    frames = [body for piece in pieces for body in bodies(decoder.feed(piece))]
    return list(zip(frames[::2], frames[1::2]))


def bodies(frames):
    return [frame[HEADER_SIZE:] for frame in frames]


def test_a_pair_is_two_frames_of_eight_byte_little_endian_lengths():
    assert encode_pair(b"al", b"hi") == HI


def test_decoder_yields_nothing_until_the_last_byte_arrives():
    assert pairs(HI[:-1]) == []
    assert pairs(HI[:-1], HI[-1:]) == [(b"al", b"hi")]


def test_decoder_gives_the_same_frames_at_every_split_of_the_stream():
    stream = HI + encode_pair(b"", b"") + encode_pair("zoë".encode(), b"x" * MAX_PLAIN_FRAME)
    whole = pairs(stream)
    assert whole == [(b"al", b"hi"), (b"", b""), ("zoë".encode(), b"x" * MAX_PLAIN_FRAME)]
    for at in range(len(stream)):
        assert pairs(stream[:at], stream[at:]) == whole
    assert pairs(*(stream[at:at + 1] for at in range(len(stream)))) == whole


def runs(decoder):
    return list(iter(decoder.next_pairs, None))


def test_pairs_are_the_same_at_every_split_of_the_stream_and_what_changes_their_meaning_comes_alone():
    said = [(b"al", b"one"), (b"al", b""), (b"al", b":q"), (b"bo", b"two"), (b"al", b"x\0y"), (b"", b"\xff"), (b"al", b"three"), (b"al", b"four")]
    stream = b"".join(encode_pair(*pair) for pair in said)
    assert runs(RecordDecoder().feed(stream)) == [(b"al", [b"one", b""]), (b"al", [b":q"]), (b"bo", [b"two"]), (b"al", [b"x\0y"]),
                                                  (b"", [b"\xff"]), (b"al", [b"three", b"four"])]
    for at in range(len(stream)):
        decoder = RecordDecoder()
        found = runs(decoder.feed(stream[:at])) + runs(decoder.feed(stream[at:]))
        assert [(name, text) for name, texts in found for text in texts] == said and not decoder._rest


@pytest.mark.parametrize("bad", [struct.pack("<Q", MAX_FRAME + 1), encode_frame(b"al") + struct.pack("<Q", MAX_FRAME + 1)])
def test_pairs_before_a_length_over_the_limit_come_first(bad):
    decoder = RecordDecoder()
    whole = encode_pair(b"al", b"hi")
    assert runs(decoder.feed(whole + bad[:-1])) == [(b"al", [b"hi"])]
    for decoder in decoder.feed(bad[-1:]), RecordDecoder().feed(bad + b"x" * (MAX_FRAME + 1) + whole):
        with pytest.raises(ProtocolError, match=f"{MAX_FRAME + 1} bytes"):
            decoder.next_pairs()


def test_a_batch_without_some_records_has_the_pieces_of_the_others():
    for seed in range(200):
        rng = random.Random(seed)
        numbers = sorted(rng.choices(range(100, 110), k=rng.randrange(1, 12)))
        pieces = [b"%d" % at * rng.randint(1, 3) for at in range(len(numbers))]
        known = set(rng.sample(range(98, 112), rng.randint(1, 6)))
        kept = [at for at, number in enumerate(numbers) if number not in known]
        assert join(pieces, numbers).without(known) == join([pieces[at] for at in kept], [numbers[at] for at in kept])
    assert Batch(b"", [], []).without({1}) == join([], [])


def test_a_frame_ends_at_a_nul_as_for_the_c_program():
    assert as_c_reads(b":q\0anything") == b":q" and as_c_reads(b"bob") == b"bob" and as_c_reads(b"\0") == b""


@pytest.mark.parametrize("length", [MAX_FRAME + 1, 2**31, 2**32, 2**63, 2**64 - 1])
def test_a_length_over_the_limit_is_refused_when_its_header_is_there_and_not_before(length):
    header = struct.pack("<Q", length)
    decoder = FrameDecoder()
    assert bodies(decoder.feed(HI + header[:-1])) == [b"al", b"hi"]
    with pytest.raises(ProtocolError, match=f"{length} bytes"):
        list(decoder.feed(header[-1:]))


def test_frames_before_a_bad_length_are_yielded_first():
    seen = []
    with pytest.raises(ProtocolError):
        for frame in FrameDecoder().feed(HI + b"\xff" * 8):
            seen.append(frame)
    assert bodies(seen) == [b"al", b"hi"]


def test_decoder_keeps_no_more_than_one_unfinished_frame():
    decoder = FrameDecoder()
    list(decoder.feed(b"\x00\x08" + b"\0" * 6 + b"x" * 2047))
    assert len(decoder._rest) == HEADER_SIZE + 2047
    assert bodies(decoder.feed(b"x")) == [b"x" * 2048] and decoder._rest == b""


def test_decoder_survives_random_bytes_in_random_pieces():
    for seed in range(300):
        rng = random.Random(seed)
        decoder = FrameDecoder()
        try:
            for _ in range(20):
                piece = bytes(rng.choice((0, 0, 0, 1, 2, 8, 65, 255)) for _ in range(rng.randrange(40)))
                assert all(len(frame) <= HEADER_SIZE + MAX_FRAME for frame in decoder.feed(piece))
        except ProtocolError:
            pass


def test_only_two_texts_say_goodbye():
    assert QUIT_TEXTS == (b":q", b":quit")


def test_a_name_or_text_over_the_limit_is_never_encoded():
    for name, text in ((b"n" * 2049, b""), (b"", b"t" * 2049)):
        with pytest.raises(ValueError):
            encode_pair(name, text)


def test_a_short_message_is_one_piece_and_a_long_one_is_cut_between_its_frames():
    long = b"x" * SMALLEST_SEGMENT
    assert message.encode_pair(b"al", b"hi") == (HI, [len(HI)], ())
    assert message.encode_pair(b"al", long).ends == [10, 10 + 8 + SMALLEST_SEGMENT]


WORDS = ["hello", "é", "世界", "👨‍👩‍👧", "e\u0301\u0302", ":q", ":quit", " ", "  ", "x" * 100, "한국어", "y" * 3000, "🇩🇪"]


@pytest.mark.parametrize("seed", range(60))
def test_splitting_loses_nothing_and_never_makes_a_bad_part(seed):
    rng = random.Random(seed)
    text = "".join(rng.choice(WORDS) + rng.choice((" ", "")) for _ in range(rng.randrange(400)))
    parts = plain_texts(text.encode())
    assert b"".join(parts).decode() == text
    for part in parts:
        assert len(part) <= MAX_PLAIN_FRAME
        part.decode("utf-8")  # never inside a character
        assert len(parts) == 1 or part not in QUIT_TEXTS
    for before, after in zip(parts, parts[1:]):
        assert len(before) >= MAX_PLAIN_FRAME // 2 - 4
        assert not before.endswith("\u200d".encode()) and after.decode()[0] not in "\u200d\u0301\u0302"


def test_a_split_falls_behind_a_space():
    parts = plain_texts(b"word " * 1000)
    assert len(parts) == 3 and all(part.endswith(b"word ") for part in parts)


@pytest.mark.parametrize("quit_text", [b":q", b":quit"])
@pytest.mark.parametrize("filler", [b"x" * 2047 + b" ", b"x" * 2048, "é".encode() * 1024])
def test_the_last_part_of_a_long_text_never_says_goodbye(filler, quit_text):
    parts = plain_texts(filler + quit_text)
    assert b"".join(parts) == filler + quit_text and len(parts) == 2
    assert parts[-1] not in QUIT_TEXTS
    parts[-1].decode("utf-8")


def test_a_text_that_says_goodbye_is_not_passed_on_as_one():
    """A record on a mesh link may say anything: ":q" in it would have cost us each C peer at our links."""
    for text in (b":q", b":quit", b":q\0x", b":q\n"):
        assert not {*QUIT_TEXTS} & {*plain_texts(text)}


def test_newlines_and_nuls_never_reach_a_plain_link():
    assert plain_texts(b"a\r\nb\nc\0d") == ["a b c\ufffdd".encode()]


def test_bytes_that_are_not_utf8_are_split_too():
    text = b"\x80" * 10_000
    parts = plain_texts(text)
    assert b"".join(parts) == text and all(0 < len(part) <= MAX_PLAIN_FRAME for part in parts)


# The log --------------------------------------------------------------------------------------------------------


def test_the_vector_names_whoever_is_in_the_log_the_last_speakers_first(monkeypatch):
    monkeypatch.setattr(message, "LOG_MESSAGES", 50)
    monkeypatch.setattr(message, "MAX_VECTOR", 12)
    rng, log, said = random.Random(4), Log(), dict.fromkeys(range(30), 0)
    for _ in range(500):
        origin, count = rng.randrange(30), rng.randint(1, 3)
        frames = [encode_record(Kind.SAY, origin, said[origin] + number, 0, b"al", b"hi") for number in range(1, count + 1)]
        said[origin] += count
        log.extend(origin, said[origin], frames, 0)
        kept = [read_id(frame)[0] for frame in log.read(log.start, log.end)]
        last_first = list(dict.fromkeys(reversed(kept)))[:12]
        assert list(log.vector().items()) == [(origin, said[origin]) for origin in last_first]
        assert [log.last] == log.read(log.end - 1, log.end)
