"""Chat templates render conversations of every shape as jinja2 does: by hand, where the package jinja2 is installed.

    chat_templates_agree.py --quern BINARY --model SOURCE --templates FOLDER [--conversations FILE.json]

SOURCE is anything that `quern tokenize` reads; its vocabulary does not matter. Every *.jinja of the folder
(tests/data/golden/template_goldens.tar.xz has 70) renders every conversation below: empty and absent texts, lists of
parts, thoughts, calls of every spelling, roles out of order, variables that one family knows. Both must print the same
bytes, or both refuse.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "golden"))
from write_template_goldens import environment  # noqa: E402

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": 'Weather of a "city" <b>&</b>',
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "a\nb", "enum": ["Oslo", "S\u00e9"]},
        "days": {"type": "integer", "default": 1},
        "opts": {"type": "object", "properties": {
            "x": {"type": ["string", "null"]}, "y": {"type": "array", "items": {"type": "number"}}}}},
        "required": ["city"]}}}
NO_ARGUMENTS = {"type": "function", "function": {
    "name": "noargs", "description": "", "parameters": {"type": "object", "properties": {}}}}
BARE = {"type": "function", "function": {"name": "bare"}}


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def tool(content, call="abc123def", name="get_weather"):
    return {"role": "tool", "content": content, "tool_call_id": call, "name": name}


def call(arguments=None, name="get_weather", identity="abc123def"):
    arguments = {"city": "Oslo", "days": 2} if arguments is None else arguments
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


# Messages, and what else a template sees.
CONVERSATIONS = [
    ([], {}),
    ([user("")], {}),
    ([system("sys only")], {}),
    ([system(""), user("x")], {}),
    ([user("q"), assistant(None), user("r")], {}),
    ([user("q"), {"role": "assistant"}, user("r")], {}),
    ([assistant("hello"), user("x")], {}),
    ([user("x"), assistant("partial answer")], {}),
    ([system("s"), user("x"), assistant("  partial \n")], {"add_generation_prompt": False}),
    ([user("a"), user("b")], {}),
    ([user("a"), system("b"), user("c"), assistant("d"), user("e")], {}),
    ([system("Zw\u00f6lf \U0001F999"), user("\u65e5\u672c\u8a9e\u3000 \u00a0\u2028x\u0085y\ufeff"),
      assistant("\u0130stanbul \u00df \ufb01"), user("\u03a9 \U0001F469\u200d\U0001F4BB")], {}),
    ([user("  \n\t lead and trail \r\n\u00a0"), assistant("\n\n a \n\n"), user("\x1c\x1dx\x0b\x0c")], {}),
    ([user(parts("part one", "part two")), assistant(parts("ans")), user(parts("three"))], {}),
    ([user([{"type": "text", "text": "t1"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
            {"type": "image"}, {"type": "text", "text": "t2"}])], {}),
    ([user([]), assistant([]), user(parts(""))], {}),
    ([system(parts("sys a", "sys b")), user("x")], {}),
    ([user("q"), assistant("<think>\nhmm\n</think>\n\nanswer"), user("r"), assistant("<think>\n\n</think>\n\nb"),
      user("s")], {}),
    ([user("q"), assistant("<think>\nhmm\n</think>\n\nanswer")], {}),
    ([user("q"), assistant("answer", reasoning_content="because <x>"), user("r"),
      assistant("ans2", reasoning_content="  more\n"), user("s")], {}),
    ([user("q"), assistant("answer", reasoning="because", thinking="tt"), user("r")], {}),
    ([user("q"), assistant("", reasoning_content="why", tool_calls=[call()]), tool('{"t": 5}'),
      assistant("It is 5")], {"tools": [WEATHER]}),
    ([system("sys"), user("w?")], {"tools": [WEATHER, NO_ARGUMENTS, BARE]}),
    ([user("w?")], {"tools": []}),
    ([user("w?")], {"tools": None}),
    ([user("w?"), assistant(None, tool_calls=[call('{"city": "Oslo"}')]), tool("sunny")], {"tools": [WEATHER]}),
    ([user("w?"), assistant("I look.", tool_calls=[call(), call({}, "noargs", "xyz987uvw")]), tool("sunny"),
      tool('{"a": [1, 2.5, null, true]}', "xyz987uvw", "noargs"), assistant("done"), user("thx")],
     {"tools": [WEATHER, NO_ARGUMENTS]}),
    ([user("w?"), assistant("", tool_calls=[call({
        "city": "S\u00e9 \"x\" <&>'", "n": {"deep": [1, 2.0, 1e20, 1e-7, {"k": None}], "e": {}}, "b": True,
        "z": -0.0})]), tool("ok")], {"tools": [WEATHER]}),
    ([user("w?"), assistant("", tool_calls=[call()]), tool({"temp": 21.5, "ok": False, "s": "\u00e9<"}),
      user("and?")], {"tools": [WEATHER]}),
    ([user("w?"), assistant("", tool_calls=[{"name": "get_weather", "arguments": {"city": "A"}}]), tool("r"),
      user("x")], {"tools": [WEATHER]}),
    ([user("a"), assistant("b", tool_calls=[]), user("c")], {}),
    ([user("w?"), assistant("", tool_calls=[call()]), tool(parts("p1", "p2")), assistant("fine")], {}),
    ([user("w?"), assistant("", tool_calls=[call(identity=f"aaaaaaaa{i}") for i in range(3)]),
      *[tool(f"r{i}", f"aaaaaaaa{i}") for i in range(3)], assistant("fin"), user("again"),
      assistant("x", tool_calls=[call()]), tool("q"), user("z")], {"tools": [WEATHER]}),
    ([system("s"), {"role": "developer", "content": "dev text"}, user("x")], {"tools": [WEATHER]}),
    ([{"role": "critic", "content": "c"}, user("x")], {}),
    ([user("x"), assistant("y"), {"role": "ipython", "content": "out"}, {"role": "observation", "content": "o"}], {}),
    ([system("s"), user("x"), assistant("<think>a</think>b"), user("y")], {"enable_thinking": False}),
    ([system("s"), user("x"), assistant("b"), user("y")], {"thinking": True, "reasoning_effort": "high"}),
    ([user("x")], {"reasoning_effort": "low", "builtin_tools": ["browser", "python"], "model_identity": "You are M."}),
    ([user("x")], {"documents": [{"title": "T", "text": "body of it", "doc_id": 1}]}),
    ([user("x")], {"functions": [WEATHER["function"]], "date_string": "01 Jan 2020"}),
    ([user(5), assistant(True), user(2.5)], {}),
    ([user("{{ 7*7 }} {% raw %}"), assistant("%}"), user("<|im_end|></s><|eot_id|>")], {}),
    ([user("q"), assistant("a", reasoning_content="r1"), user("q2"),
      assistant("", reasoning_content="r2", tool_calls=[call()]), tool("res")],
     {"tools": [WEATHER], "clear_thinking": False, "preserve_thinking": True, "keep_past_thinking": True}),
]


def with_jinja2(compiled, variables):
    """The text; None where it raises."""
    try:
        return compiled.render(**variables)
    except Exception:  # whatever a template raises
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quern", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--conversations", help='JSON: [[MESSAGES, {"tools": ...}], ...], in place of these')
    options = parser.parse_args()
    conversations = CONVERSATIONS
    if options.conversations:
        with open(options.conversations, encoding="utf-8") as file:
            conversations = json.load(file)
    made = environment()
    equal = tried = 0
    for name in sorted(n for n in os.listdir(options.templates) if n.endswith(".jinja")):
        path = os.path.join(options.templates, name)
        with open(path, encoding="utf-8", newline="") as file:
            compiled = made.from_string(file.read())
        for index, (messages, more) in enumerate(conversations):
            document = {"messages": messages, "add_generation_prompt": True, **more}
            expected = with_jinja2(compiled, {"bos_token": "<BOS>", "eos_token": "<EOS>", **document})
            with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                done = subprocess.run(
                    [options.quern, "tokenize", options.model, "--chat", file.name, "--template", path, "--render",
                     "--bos-text", "<BOS>", "--eos-text", "<EOS>", "--now", "2026-11-29"], capture_output=True)
            got = done.stdout.decode("utf-8") if done.returncode == 0 else None
            tried += 1
            if got == expected and done.returncode in (0, 2):
                equal += 1
            else:
                print(f"{name}, conversation {index}: exit code {done.returncode}\n  expected {expected!r:.300}\n"
                      f"  found    {got!r:.300} {done.stderr.decode('utf-8', 'replace'):.200}")
    print(f"{equal} of {tried} equal")
    return 0 if equal == tried else 1


if __name__ == "__main__":
    sys.exit(main())
