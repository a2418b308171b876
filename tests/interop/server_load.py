#!/usr/bin/env python3
"""A server under load and under attack, by hand: nothing crashes, memory stays flat, every valid request is answered.

    server_load.py --quern BINARY [--model FILE.gguf] [--requests 10000] [--streams 256] [--aborted 1000]
    server_load.py --quern BINARY --minutes 30

Without --model it converts tests/data/stories260k. Standard library alone. What it does, one after the other:
short requests over connections that stay open; as many streams at once; answers whose client goes away behind
the first event; bodies of 100 MB, announced and in chunks; what is no HTTP, and HTTP that is no request, while
valid requests go on. Each answer must be the one that its request got alone. Prints a line for each part, exits
with 1 if one of them was not as it should be.

With --minutes all of that goes on at once for so long, with objects that a schema asks for and prompts of several
blocks beside it: a soak, also of a binary with a sanitizer (ASAN_OPTIONS=quarantine_size_mb=16, so that memory can
be compared).
"""
import argparse, asyncio, json, os, pathlib, random, signal, struct, subprocess, sys, tempfile, time

KINDS = 24  # distinct requests
failures = []


def check(what, right, found=""):
    if not right:
        failures.append(what)
        print(f"  WRONG: {what} {found}", flush=True)


def body(kind, stream=False):
    words = ["Once upon a time", "The little dog", "Lily and Tom", "One day", "A big red ball", "Mom said"]
    return json.dumps({
        "prompt": words[kind % len(words)] + " " * (kind % 3), "max_tokens": 4 + kind % 8, "seed": kind,
        "temperature": 0 if kind % 4 == 0 else 0.9, "stream": stream}).encode()


def request(data, path="/v1/completions", more=""):
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


class Server:
    def __init__(self, quern, model, arguments):
        self.process = subprocess.Popen([quern, "serve", model, "--port", "0", *arguments], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("listening on "):
                self.port = int(line.rsplit(":", 1)[1])
                return
        sys.exit("the server did not start")

    def status(self, name):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1])

    def figures(self):
        descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return {"RSS MiB": round(self.status("VmRSS") / 1024, 1), "threads": self.status("Threads"), "descriptors": descriptors}

    def alive(self):
        return self.process.poll() is None


class Connection:
    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        return self

    def close(self):
        self.writer.close()

    def reset(self):  # as a client that was killed
        self.writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER
        self.writer.transport.abort()

    async def head(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if line)}
        return int(lines[0].split()[1]), headers

    async def answer(self):
        status, headers = await self.head()
        if headers.get("transfer-encoding") != "chunked":
            return status, await self.reader.readexactly(int(headers["content-length"]))
        parts = b""
        while True:
            n = int(await self.reader.readline(), 16)
            parts += await self.reader.readexactly(n)
            await self.reader.readexactly(2)
            if n == 0:
                return status, parts

    async def ask(self, data):
        self.writer.write(data)
        await self.writer.drain()
        return await self.answer()


def text_of(answer):
    choice = json.loads(answer)["choices"][0]
    return choice["text"], choice["finish_reason"]


def text_of_stream(events):
    text, reason = "", None
    lines = [line[6:] for line in events.decode().split("\n") if line.startswith("data: ")]
    if not lines or lines[-1] != "[DONE]":
        return None
    for line in lines[:-1]:
        choice = json.loads(line)["choices"][0]
        text += choice["text"]
        reason = choice["finish_reason"] or reason
    return text, reason


async def ask_many(port, wanted, n, at_once, chooser):
    """n requests over at_once connections that stay open; the number of right answers."""
    right = 0
    left = iter(range(n))

    async def client():
        nonlocal right
        connection = await Connection().open(port)
        for _ in left:
            kind = chooser.randrange(KINDS)
            status, answer = await connection.ask(request(body(kind)))
            right += status == 200 and text_of(answer) == wanted[kind]
        connection.close()

    await asyncio.gather(*(client() for _ in range(at_once)))
    return right


async def stream_once(port, kind):
    connection = await Connection().open(port)
    status, events = await connection.ask(request(body(kind, True)))
    connection.close()
    return status == 200 and text_of_stream(events)


async def abort_once(port, kind, chooser):
    connection = await Connection().open(port)
    data = json.loads(body(kind, True))
    data.update(max_tokens=400)
    connection.writer.write(request(json.dumps(data).encode()))
    if chooser.random() < 0.8:
        await connection.head()
        await connection.reader.readline()
    connection.reset() if chooser.random() < 0.5 else connection.close()


async def large_body(port, n, chunked):
    """The status, or None: the server closed the connection before it had read all."""
    connection = await Connection().open(port)
    try:
        how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {n}"
        connection.writer.write(
            f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{how}\r\n\r\n".encode())
        piece = b"x" * 65536
        status = asyncio.create_task(connection.head())
        status.add_done_callback(lambda task: task.cancelled() or task.exception())  # it is looked at
        sent = 0
        while sent < n and not status.done():
            connection.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            await connection.writer.drain()
            sent += len(piece)
        return (await status)[0]
    except (ConnectionError, asyncio.IncompleteReadError):
        return None
    finally:
        connection.close()


def garbage(chooser):
    whole = request(body(chooser.randrange(KINDS)))
    kind = chooser.randrange(12)
    if kind == 0:
        return chooser.randbytes(chooser.randrange(1, 4000))
    if kind == 1:  # TLS
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chooser.randbytes(500)
    if kind == 2:
        return whole[:chooser.randrange(1, len(whole))]
    if kind == 3:  # bits turned
        broken = bytearray(whole)
        for _ in range(chooser.randrange(1, 9)):
            broken[chooser.randrange(len(broken))] ^= 1 << chooser.randrange(8)
        return bytes(broken)
    if kind == 4:
        return b"GET /" + b"a" * chooser.randrange(1 << 20) + b" HTTP/1.1\r\n\r\n"
    if kind == 5:
        return b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(chooser.randrange(5000))) + b"\r\n"
    if kind == 6:
        return request(b"[" * chooser.randrange(1, 200000))
    if kind == 7:
        return request(b'{"prompt": "' + chooser.randbytes(200) + b'"}')
    if kind == 8:
        return request(body(0), more="Transfer-Encoding: chunked\r\n")
    if kind == 9:
        return request(body(0)).replace(b"Content-Length: ", b"Content-Length: -")
    if kind == 10:
        return request(b'{"prompt": "a", "max_tokens": %s}' % chooser.choice([b"1e400", b"-1" * 900, b"9" * 4000, b"null,null"]))
    return b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffffffffffffffff\r\n"


async def throw_garbage(port, n, chooser):
    """How many connections the server answered, or closed by itself or when the client had said all."""
    async def once(data):
        try:
            connection = await Connection().open(port)
            connection.writer.write(data)
            if connection.writer.can_write_eof():
                connection.writer.write_eof()
            await asyncio.wait_for(connection.reader.read(), 30)
            connection.close()
            return True
        except ConnectionError:
            return True
        except asyncio.TimeoutError:
            return False

    ended = 0
    for begin in range(0, n, 50):
        ended += sum(await asyncio.gather(*(once(garbage(chooser)) for _ in range(min(50, n - begin)))))
    return ended


async def metric(port, name):
    connection = await Connection().open(port)
    connection.writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    _, text = await connection.answer()
    connection.close()
    return next(int(float(line.split()[1])) for line in text.decode().split("\n") if line.startswith(f"quern_{name} "))


async def settle(server):
    """Until nothing runs; what the process has then."""
    for _ in range(100):
        if await metric(server.port, "requests_running") + await metric(server.port, "requests_waiting") == 0:
            break
        await asyncio.sleep(0.1)
    else:
        check("requests go on that nobody waits for", False)
    await asyncio.sleep(0.5)
    return server.figures()


def long_body(kind):
    """A prompt of several blocks of the prefix cache, or an object."""
    if kind % 2 == 0:
        return json.dumps({"prompt": f"Story {kind % 6}. " + "One day Tom and Lily went to the park. " * 30,
                           "max_tokens": 8, "seed": kind, "temperature": 0.8}).encode()
    return json.dumps({"prompt": f"Lily {kind}: ", "max_tokens": 60, "seed": kind, "temperature": 0.8, "response_format": {
        "type": "json_schema", "json_schema": {"name": "child", "schema": {
            "type": "object", "required": ["age", "kind"], "additionalProperties": False,
            "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["boy", "girl"]}}}}}}).encode()


async def soak(options, server, wanted):
    """Everything at once, round after round; memory is compared between the middle and the end."""
    port, chooser = server.port, random.Random(2)
    one = await Connection().open(port)
    wanted_long = [text_of((await one.ask(request(long_body(kind))))[1]) for kind in range(KINDS)]
    one.close()
    for kind in range(1, KINDS, 2):
        json.loads(wanted_long[kind][0])
    counts = dict.fromkeys(("short", "long", "streams", "aborted", "garbage", "large"), 0)

    async def long_ones(n):
        right = 0
        connection = await Connection().open(port)
        for _ in range(n):
            kind = chooser.randrange(KINDS)
            status, answer = await connection.ask(request(long_body(kind)))
            right += status == 200 and text_of(answer) == wanted_long[kind]
        connection.close()
        return right

    async def streams(n):
        kinds = [chooser.randrange(KINDS) for _ in range(n)]
        got = await asyncio.gather(*(stream_once(port, kind) for kind in kinds))
        return sum(text == wanted[kind] for text, kind in zip(got, kinds))

    async def aborted(n):
        await asyncio.gather(*(abort_once(port, chooser.randrange(KINDS), chooser) for _ in range(n)))
        return n

    async def large(n):
        return sum([await large_body(port, 20 << 20, i % 2 == 0) in (413, None) for i in range(n)])

    begin = time.monotonic()
    middle, next_line = None, begin
    while (now := time.monotonic()) < begin + 60 * options.minutes:
        sizes = {"short": 100, "long": 6, "streams": 24, "aborted": 20, "garbage": 20, "large": 1}
        got = await asyncio.gather(ask_many(port, wanted, 100, 8, chooser), long_ones(6), streams(24), aborted(20),
                                   throw_garbage(port, 20, chooser), large(1))
        for (name, n), found in zip(sizes.items(), got):
            check(name, found == n, f"{found} of {n}")
            counts[name] += found
        if now > next_line:
            next_line = now + 120
            print(f"{(now - begin) / 60:.0f} min: {counts}, {server.figures()}", flush=True)
        if middle is None and now > begin + 30 * options.minutes:
            middle = await settle(server)
    after = await settle(server)
    print(f"{options.minutes} min: {counts}; middle {middle}, end {after}; at most {server.status('VmHWM') / 1024:.1f} MiB")
    compare_figures(middle, after)


def compare_figures(before, after):
    check("memory is flat", after["RSS MiB"] <= before["RSS MiB"] * 1.05 + 8, f"{before} {after}")
    check("threads end", after["threads"] <= before["threads"] + 2)
    check("descriptors are closed", after["descriptors"] <= before["descriptors"] + 2)


async def run(options, server):
    port, chooser = server.port, random.Random(1)
    one = await Connection().open(port)
    wanted = [text_of((await one.ask(request(body(kind))))[1]) for kind in range(KINDS)]
    one.close()
    if options.minutes:
        return await soak(options, server, wanted)

    async def part(name, work, expected):
        begin = time.monotonic()
        found = await work
        figures = await settle(server)
        check(name, found == expected, f"{found}, expected {expected}")
        print(f"{name}: {found} of {expected}, {time.monotonic() - begin:.1f} s, then {figures}", flush=True)
        return figures

    # As many connections, threads and slots as there will be: what they leave is memory of the first time.
    await part("warm", ask_many(port, wanted, 2000, options.streams, chooser), 2000)
    before = await settle(server)
    await part("short requests", ask_many(port, wanted, options.requests, 64, chooser), options.requests)

    async def streams():
        kinds = [chooser.randrange(KINDS) for _ in range(options.streams)]
        got = await asyncio.gather(*(stream_once(port, kind) for kind in kinds))
        return sum(text == wanted[kind] for text, kind in zip(got, kinds))
    await part("streams at once", streams(), options.streams)

    async def aborted():
        for begin in range(0, options.aborted, 100):
            n = min(100, options.aborted - begin)
            await asyncio.gather(*(abort_once(port, chooser.randrange(KINDS), chooser) for _ in range(n)))
        return options.aborted
    await part("aborted", aborted(), options.aborted)

    async def large():
        statuses = [await large_body(port, 100 << 20, chunked) for chunked in (False, True) for _ in range(5)]
        statuses += await asyncio.gather(*(large_body(port, 100 << 20, i % 2 == 0) for i in range(20)))
        return sum(status in (413, None) for status in statuses)
    await part("bodies of 100 MB refused", large(), 30)

    async def attacked():
        got = await asyncio.gather(throw_garbage(port, options.garbage, chooser),
                                   ask_many(port, wanted, options.garbage, 8, chooser))
        return list(got)
    await part("garbage ended, valid requests beside it", attacked(), [options.garbage, options.garbage])

    after = await settle(server)
    print(f"before {before}, after {after}; at most {server.status('VmHWM') / 1024:.1f} MiB")
    compare_figures(before, after)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quern", required=True)
    parser.add_argument("--model")
    parser.add_argument("--minutes", type=float, help="a soak of so long")
    for name, n in (("requests", 10000), ("streams", 256), ("aborted", 1000), ("garbage", 2000)):
        parser.add_argument(f"--{name}", type=int, default=n)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model
        if model is None:
            data = pathlib.Path(__file__).resolve().parents[1] / "data" / "stories260k"
            model = f"{folder}/stories260k.gguf"
            subprocess.run([options.quern, "convert", "-q", str(data), "-o", model], check=True)
        server = Server(options.quern, model, ["--slots", "32", "--queue", "1024", "--connections", "512"])
        drain = subprocess.Popen(["cat"], stdin=server.process.stderr, stdout=subprocess.DEVNULL)
        try:
            asyncio.run(run(options, server))
        finally:
            check("the server is there", server.alive(), server.process.poll())
            server.process.send_signal(signal.SIGTERM)
            check("it ends when it is told", server.process.wait(60) == 0, server.process.returncode)
            drain.wait()
    sys.exit(1 if failures else 0)


main()
