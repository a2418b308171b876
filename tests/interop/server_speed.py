#!/usr/bin/env python3
"""How fast `quern serve` is beside llama-server: the same file, threads and requests, run in turns.

    server_speed.py MODEL.gguf --quern BINARY --llama-server BINARY [--clients 1,2,4,8] [--pairs 3] [-t 2]

Each pair starts one server after the other and asks it with 1, 2, 4, 8 clients at once. A client streams answers of
TOKENS tokens behind prompts of about WORDS words, one after the other; no two prompts of a run begin alike. Prints
for each number of clients, medians over the pairs and the ratios' lowest and highest: tokens a second of all clients
together, seconds until the first token, and milliseconds between tokens. Standard library alone. By hand; --text
takes another text than tests/data's.
"""
import argparse, asyncio, json, os, pathlib, signal, statistics, subprocess, sys, time

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
SLOTS, CONTEXT = 8, 1024


async def ready(port, process):
    for _ in range(600):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status = await reader.readline()
            writer.close()
            if b" 200 " in status:
                return
        except OSError:
            pass
        await asyncio.sleep(0.1)
    sys.exit(f"{process.args[0]} does not answer")


async def ask(port, prompt, n_tokens):
    """(seconds until the first token, seconds from it to the last, tokens) of one streamed answer."""
    data = json.dumps({"prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "stream": True, "ignore_eos": True,
                       "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    begin = time.monotonic()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    first = last = None
    usage = None
    async for line in reader:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if event.get("usage"):
            usage = event["usage"]
        if event.get("choices") and event["choices"][0].get("text"):
            last = time.monotonic()
            first = first or last
    writer.close()
    if usage is None or usage["completion_tokens"] != n_tokens:
        sys.exit(f"an answer had {usage}, not {n_tokens} tokens")
    return first - begin, last - first, n_tokens


async def measure(port, prompts, n_clients, n_each, n_tokens):
    answers = []

    async def client():
        for _ in range(n_each):
            answers.append(await ask(port, next(prompts), n_tokens))

    begin = time.monotonic()
    await asyncio.gather(*(client() for _ in range(n_clients)))
    seconds = time.monotonic() - begin
    return {"tokens/s": sum(n for _, _, n in answers) / seconds,
            "first, s": statistics.median(first for first, _, _ in answers),
            "between, ms": statistics.median(1e3 * rest / (n - 1) for _, rest, n in answers)}


async def run(command, port, prompts, options):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await ready(port, process)
        await ask(port, next(prompts), options.tokens)  # warms it up
        return {n: await measure(port, prompts, n, options.each, options.tokens) for n in options.clients}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--quern", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--clients", default="1,2,4,8", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--each", type=int, default=2, help="answers a client asks for")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=80)
    parser.add_argument("-t", "--threads", default="2")
    parser.add_argument("--text", default=str(DATA / "tiny-mistral/test.txt"))
    parser.add_argument("--quern-args", default="")
    options = parser.parse_args()
    words = pathlib.Path(options.text).read_text(encoding="utf-8", errors="ignore").split()
    n_prompts = 1 + options.each * sum(options.clients)
    stride = len(words) // n_prompts
    if stride < options.words // 4:
        sys.exit(f"--text: {len(words)} words are too few for {n_prompts} prompts")
    texts = [" ".join(words[i * stride:i * stride + options.words]) for i in range(n_prompts)]
    commands = {
        "quern": [options.quern, "serve", options.model, "--port", "8091", "--slots", str(SLOTS), "-c", str(CONTEXT),
                  "-t", options.threads, *options.quern_args.split()],
        "llama-server": [options.llama_server, "-m", options.model, "--port", "8092", "-np", str(SLOTS), "-c",
                         str(SLOTS * CONTEXT), "-t", options.threads]}
    results = {name: [] for name in commands}
    for pair in range(options.pairs):
        for port, (name, command) in zip((8091, 8092), commands.items()):
            results[name].append(asyncio.run(run(command, port, iter(texts), options)))
            print(f"pair {pair + 1}: {name}: {json.dumps(results[name][-1])}", file=sys.stderr, flush=True)
    for n in options.clients:
        for what in ("tokens/s", "first, s", "between, ms"):
            ours, theirs = ([run[n][what] for run in results[name]] for name in ("quern", "llama-server"))
            ratios = [a / b for a, b in zip(ours, theirs)]
            print(f"{n:3} clients {what:12} llama-server {statistics.median(theirs):8.2f}  quern {statistics.median(ours):8.2f}"
                  f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    main()
