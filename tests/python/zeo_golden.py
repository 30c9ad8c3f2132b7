"""Writes tests/zeo_golden/frames.txt: frames as ZEO 6.2 itself writes them.

    pip install ZEO==6.2 msgpack==1.2.4 zopeundo
    python tests/python/zeo_golden.py > tests/zeo_golden/frames.txt

Each line is a name, an encoding and the frame in hexadecimal; of a long frame, its first bytes, its length and its last
bytes. src/zeo/golden.rs has the same messages in Rust and compares the bytes. What a stock client makes of the error
replies is checked here, on the way.
"""
import base64
import sys

from persistent.timestamp import TimeStamp
from ZEO.asyncio import client
from ZEO.asyncio.marshal import decoder, encoder, reduce_exception, server_decoder
from ZODB.POSException import (
    ConflictError,
    MultipleUndoErrors,
    POSKeyError,
    ReadConflictError,
    ReadOnlyError,
    StorageTransactionError,
)
from ZopeUndo.Prefix import Prefix

OID, OID2 = b"\0" * 7 + b"\1", b"\0" * 6 + b"\1\2"
TID = bytes.fromhex("03f4a7b2c0000000")
TID2 = bytes.fromhex("03f4a7b340000000")
EXTENSION = {"a": 1, "b": [1.5, None, True, (b"x", "\u00e9")], "nested": {"k": -1}}

frames = []


class Reduced(dict):
    """As in ZODB.tests.IteratorStorage: pickled as a call of dict."""

    def __reduce__(self):
        return dict, (tuple(self.items()),)


def say(name, id, flag, method, args, encodings=("Z5", "M5"), server=True):
    for encoding in encodings:
        frame = encoder(encoding.encode(), server)(id, flag, method, args)
        frames.append((name, encoding, frame))


def reply(name, result, id=7):
    say("reply." + name, id, 0, ".reply", result)


def error(name, exc, rebuilt=True):
    say("error." + name, 7, 2, ".reply", reduce_exception(exc))
    for encoding, (_, _, frame) in zip((b"Z5", b"M5"), frames[-2:], strict=True):
        class_, data = decoder(encoding)(frame)[3]
        factory = client.exc_factories.get(class_)
        assert (factory is not None) == rebuilt, class_
        if rebuilt:
            again = factory(class_, data)
            assert type(again) is type(exc) and str(again) == str(exc), (again, exc)


def push(name, *args):
    say("push." + name, 0, True, name, args)


def call(name, method, *args, id=5, flag=False, encodings=("Z5", "M5")):
    say("call." + name, id, flag, method, args, encodings, server=False)
    for encoding in encodings:
        assert frames[-1][1] != encoding or server_decoder(encoding.encode())(frames[-1][2])


def change(name, method, *args, encodings=("Z5", "M5")):
    call(name, method, *args, id=0, flag=True, encodings=encodings)


def replies():
    reply("nothing", None)
    reply("tid", TID)
    for id in (0, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1,
               -1, -32, -33, -128, -129, -32768, -32769, -2**31, -2**31 - 1, -2**63):
        reply("id.%d" % id, None, id=id)
    reply("id.pair", None, id=(OID, TID))
    reply("info", {
        "length": 3, "size": 70000, "name": "main", "supportsUndo": True, "supports_record_iternext": True,
        "interfaces": (("ZODB.interfaces", "IStorageUndoable"), ("ZODB.interfaces", "IBlobStorage"))})
    for n in 0, 1, 2, 15, 16, 1000, 1001, 2000, 2001, 65536:
        reply("oids.%d" % n, [i.to_bytes(8, "big") for i in range(n)])
    reply("invalidations", (TID, [OID, OID2]))
    for n in 0, 255, 256, 65535, 65536:
        reply("loaded.%d" % n, (b"x" * n, TID, TID2), id=(OID, TID2))
    reply("loaded.current", (b"data", TID, None))
    reply("data", b"data")
    reply("conflicts", [{"oid": OID, "serials": (TID2, TID), "data": b"mine"}])
    time, time2 = TimeStamp(TID).timeTime(), TimeStamp(TID2).timeTime()
    reply("history", [
        dict(EXTENSION, time=time2, user_name=b"fred", description=b"what", tid=TID2, size=42),
        dict({"size": "mine"}, time=time, user_name=b"", description=b"", tid=TID) | {"size": 70000}])
    entry = {"id": base64.encodebytes(TID2).rstrip(), "time": time2, "user_name": b"fred", "size": 42,
             "description": b"what"}
    entry.update(EXTENSION)
    entry.update(size="mine")
    reply("undo_log", [entry])
    reply("record", (OID, TID, b"data", OID2))
    reply("record.last", (OID, TID, b"data", None))
    reply("status", {
        "connections": 1, "loads": 2, "stores": 3, "commits": 4, "aborts": 5, "active_txns": 6, "lock_time": None,
        "conflicts": 7, "conflicts_resolved": 8, "start": "Mon Jan  5 10:11:12 2026", "waiting": 9,
        "timeout-thread-is-alive": True, "last-transaction": TID.hex()})
    reply("iterator", 12)
    reply("transaction", (TID, " ", b"fred", b"what", EXTENSION))
    reply("transaction.plain", (TID, "p", b"", b"", {}))
    reply("iterated", (OID, TID, b"data", TID2))
    reply("iterated.absent", (OID, TID, None, None))


def errors():
    error("no_object", POSKeyError(OID))
    error("no_blob", POSKeyError("No blob file", OID, TID))
    error("conflict", ConflictError(oid=OID, serials=(TID2, TID)))
    error("read_conflict", ReadConflictError(oid=OID, serials=(TID2, TID)))
    error("read_only", ReadOnlyError())
    error("wrong_transaction", StorageTransactionError("no transaction"))
    error("undo", MultipleUndoErrors([(OID, "why"), (OID2, "that")]))
    error("not_undoable", MultipleUndoErrors([(None, "why")]))
    error("no_storage", ValueError("unknown storage: x"), rebuilt=False)
    error("bad_value", ValueError("why"), rebuilt=False)
    error("no_key", KeyError("why"))
    error("bad_type", TypeError("why"))
    error("not_served", NotImplementedError("why"), rebuilt=False)


def pushes():
    push("invalidateTransaction", TID, [OID, OID2])
    push("info", {"length": 3, "size": 70000})
    push("receiveBlobStart", OID, TID)
    push("receiveBlobChunk", OID, TID, b"c" * 59000)
    push("receiveBlobStop", OID, TID)


def calls():
    say("call.keep_alive", -1, 0, ".reply", None, server=False)
    call("register", "register", "1", False)
    call("get_info", "get_info")
    call("last_transaction", "lastTransaction")
    call("get_invalidations", "getInvalidations", TID)
    call("new_oids", "new_oids")
    say("call.load_before", (OID, TID), False, "loadBefore", (OID, TID), server=False)
    call("load_serial", "loadSerial", OID, TID)
    call("get_tid", "getTid", OID)
    call("history", "history", OID, 1)
    call("history.none", "history", OID, None)
    call("record_iternext", "record_iternext", None)
    call("record_iternext.next", "record_iternext", OID)
    call("undo_log", "undoLog", 0, -20)
    call("undo_info", "undoInfo", 0, -20, {"user_name": b"fred"})
    call("undo_info.none", "undoInfo", 0, -20, None)
    call("undo_info.prefix", "undoInfo", 0, -20, {"user_name": Prefix("/a/b")}, encodings=["Z5"])
    call("pack", "pack", 1789209015.5, True)
    call("ping", "ping")
    call("server_status", "server_status")
    call("vote", "vote", 140737488355327)
    call("tpc_finish", "tpc_finish", 2**64 - 8)
    call("tpc_abort", "tpc_abort", 1)
    call("send_blob", "sendBlob", OID, TID)
    call("iterator_start", "iterator_start", None, TID)
    call("iterator_next", "iterator_next", 3)
    call("iterator_record_start", "iterator_record_start", 3, TID)
    call("iterator_record_next", "iterator_record_next", 4)
    change("iterator_gc", "iterator_gc", [1, 2, 3])
    change("set_client_label", "set_client_label", "me")
    change("tpc_begin", "tpc_begin", 140737488355327, b"fred", b"what", EXTENSION, None, " ")
    change("tpc_begin.text", "tpc_begin", 1, "fr\u00e9d", "", {}, TID, "p")
    change("tpc_begin.reduced", "tpc_begin", 1, b"", b"", Reduced(foo=1), None, " ", encodings=["Z5"])
    change("tpc_begin.sets", "tpc_begin", 1, b"", b"", {"s": {1}, "f": frozenset([3])}, None, " ", encodings=["Z5"])
    change("tpc_begin.long", "tpc_begin", 1, b"", b"", {"n": 2**200, "m": -2**64}, None, " ", encodings=["Z5"])
    change("storea", "storea", OID, TID, b"d" * 300, 1)
    change("storea.none", "storea", OID, None, b"data", 1)
    change("storea.text", "storea", OID, "\0" * 8, b"data", 1)
    change("check", "checkCurrentSerialInTransaction", OID, TID, 1)
    change("delete", "deleteObject", OID, TID, 1)
    change("restorea", "restorea", OID, TID, b"data", TID2, 1)
    change("restorea.absent", "restorea", OID, TID, None, None, 1)
    change("undoa", "undoa", base64.encodebytes(TID).rstrip(), 1)
    change("blob_start", "storeBlobStart")
    change("blob_chunk", "storeBlobChunk", b"chunk")
    change("blob_end", "storeBlobEnd", OID, TID, b"data", 1)
    change("blob_shared", "storeBlobShared", OID, TID, b"data", "x.tmp", 1)


def shown(frame):
    if len(frame) <= 1000:
        return frame.hex()
    return "%s..%d..%s" % (frame[:80].hex(), len(frame), frame[-80:].hex())


for part in replies, errors, pushes, calls:
    part()
for name, encoding, frame in frames:
    sys.stdout.write(f"{name} {encoding} {shown(frame)}\n")
