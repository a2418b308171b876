#!/usr/bin/env python3
"""The Python packages openai and anthropic against a running server: whole answers and streams, tools, structured
output, responses, embeddings, errors, streams that are broken off. By hand; needs both packages (tried: openai 3.57,
anthropic 2.14).

clients_agree.py PORT MODEL   MODEL: a name of the server's; tools are left out where its template has none.
"""
import json
import sys
import threading
import time
import urllib.request

import anthropic
import openai
from pydantic import BaseModel

port, model = sys.argv[1:]
ai = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", api_key="none", max_retries=0)
question = [{"role": "user", "content": "What is the capital of France?"}]
seed = {"seed": 1}
failed = []


class City(BaseModel):
    name: str
    country: str
    population: int


def part(run):
    """Runs it at once and goes on where it fails."""
    try:
        run()
        print("ok    ", run.__name__)
    except Exception as error:  # whatever a client throws
        failed.append(run.__name__)
        print("FAILED", run.__name__, type(error).__name__, str(error)[:500])


def expect(kind, call):
    try:
        call()
    except kind:
        return
    raise AssertionError(f"expected {kind.__name__}")


@part
def chat():
    def ask(**more):
        return ai.chat.completions.create(model=model, messages=question, seed=1, max_completion_tokens=30, **more)
    whole = ask()
    text, usage = "", None
    for chunk in ask(stream=True, stream_options={"include_usage": True}):
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content
    assert usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    with ai.chat.completions.stream(model=model, messages=question, seed=1) as stream:
        kinds = {event.type for event in stream}
    assert {"content.delta", "content.done"} <= kinds, kinds


@part
def structured_output():
    answer = ai.chat.completions.parse(model=model, messages=question, seed=1, response_format=City)
    assert isinstance(answer.choices[0].message.parsed, City)
    answer = ai.responses.parse(model=model, input="Describe Paris.", text_format=City, extra_body=seed)
    assert isinstance(answer.output_parsed, City)


@part
def responses():
    def ask(**more):
        return ai.responses.create(model=model, max_output_tokens=30, store=False, extra_body=seed, **more)
    whole = ask(input="What is the capital of France?")
    assert whole.output_text == ai.chat.completions.create(
        model=model, messages=question, seed=1, max_completion_tokens=30).choices[0].message.content
    text = ""
    for i, event in enumerate(ask(input="What is the capital of France?", stream=True)):
        assert event.sequence_number == i
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert text == whole.output_text
    with ai.responses.stream(model=model, input="What is the capital of France?", extra_body=seed) as stream:
        for event in stream:
            pass
        assert stream.get_final_response().status == "completed"
    further = ask(instructions="Be short.", input=[*question, *whole.output, {"role": "user", "content": "And?"}])
    assert further.usage.input_tokens > whole.usage.input_tokens


weather = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
           "additionalProperties": False}
function = {"name": "get_weather", "description": "The weather of a city", "parameters": weather, "strict": True}
asks_for_it = [{"role": "user", "content": "Weather in Rome?"}]


def tools():
    one = {"model": model, "tools": [{"type": "function", "function": function}], "tool_choice": "required",
           "parallel_tool_calls": False, "seed": 1}
    message = ai.chat.completions.create(messages=asks_for_it, **one).choices[0].message
    call = message.tool_calls[0]
    assert "city" in json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    ai.chat.completions.create(messages=[*asks_for_it, message, result], **{**one, "tool_choice": "none"})
    arguments = ""
    for chunk in ai.chat.completions.create(messages=asks_for_it, stream=True, **one):
        for delta in chunk.choices[0].delta.tool_calls or []:
            arguments += delta.function.arguments or ""
    assert arguments == call.function.arguments


def tools_of_responses():
    one = {"model": model, "tools": [{"type": "function", **function}], "parallel_tool_calls": False,
           "extra_body": seed}
    answer = ai.responses.create(input=asks_for_it, tool_choice="required", **one)
    call = next(item for item in answer.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    ai.responses.create(input=[*asks_for_it, *answer.output, result], tool_choice="none", **one)
    with ai.responses.stream(input=asks_for_it, tool_choice="required", **one) as stream:
        for event in stream:
            pass
        assert stream.get_final_response().output[0].arguments == call.arguments


def tools_of_messages():
    one = {"model": model, "max_tokens": 300,
           "tools": [{"name": "get_weather", "description": "d", "input_schema": weather}]}
    any_tool = {"type": "any", "disable_parallel_tool_use": True}
    answer = claude.messages.create(messages=asks_for_it, tool_choice=any_tool, **one)
    use = next(block for block in answer.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
    claude.messages.create(messages=[*asks_for_it, {"role": "assistant", "content": answer.content},
                                     {"role": "user", "content": [result]}], **one)
    with claude.messages.stream(messages=asks_for_it, tool_choice=any_tool, **one) as stream:
        assert stream.get_final_message().stop_reason == "tool_use"


try:
    ai.chat.completions.create(model=model, messages=question, max_completion_tokens=1,
                               tools=[{"type": "function", "function": function}])
    for run in (tools, tools_of_responses, tools_of_messages):
        part(run)
except openai.BadRequestError as error:
    print("left out: tools:", error)


@part
def embeddings():
    texts = ["The cat sits on the mat.", "A cat is sitting on a mat.", "Stock prices fell sharply on Monday."]
    packed = ai.embeddings.create(model=model, input=texts)  # base64, where nobody asks for anything else
    plain = ai.embeddings.create(model=model, input=texts, encoding_format="float")
    for a, b in zip(packed.data, plain.data):
        assert max(abs(x - y) for x, y in zip(a.embedding, b.embedding)) < 1e-7
    cosines = [sum(x * y for x, y in zip(plain.data[0].embedding, other.embedding)) for other in plain.data]
    assert abs(cosines[0] - 1) < 1e-5 and cosines[1] > cosines[2], cosines
    assert len(ai.embeddings.create(model=model, input="a", dimensions=16).data[0].embedding) == 16
    many = ai.embeddings.create(model=model, input=[f"Sentence number {i}." for i in range(300)])
    assert [one.index for one in many.data] == list(range(300))


@part
def messages():
    answer = claude.messages.create(model=model, max_tokens=20, messages=question, system="Be short.")
    assert answer.content[0].text and answer.usage.output_tokens
    with claude.messages.stream(model=model, max_tokens=20, messages=question) as stream:
        text = "".join(stream.text_stream)
        assert text == stream.get_final_message().content[0].text
    assert claude.messages.count_tokens(model=model, messages=question).input_tokens > 0


@part
def errors():
    expect(openai.NotFoundError, lambda: ai.chat.completions.create(model="gpt-9", messages=question))
    expect(openai.BadRequestError, lambda: ai.chat.completions.create(model=model, messages=[]))
    expect(openai.BadRequestError, lambda: ai.responses.create(model=model, input="a", previous_response_id="resp_1"))
    expect(openai.BadRequestError, lambda: ai.responses.create(model=model, input="a", tools=[{"type": "web_search"}]))
    expect(openai.NotFoundError, lambda: ai.responses.retrieve("resp_1"))
    expect(openai.BadRequestError, lambda: ai.embeddings.create(model=model, input=""))
    expect(anthropic.NotFoundError, lambda: claude.messages.create(model="claude", max_tokens=1, messages=question))
    expect(anthropic.BadRequestError, lambda: claude.messages.create(model=model, max_tokens=1, messages=[]))


@part
def streams_that_are_broken_off():
    endless = {"ignore_eos": True}
    for stream in (
            ai.chat.completions.create(model=model, messages=question, stream=True, extra_body=endless),
            ai.responses.create(model=model, input="Tell a story.", stream=True, extra_body=endless),
            claude.messages.create(model=model, messages=question, stream=True, max_tokens=2000, extra_body=endless)):
        for _, event in zip(range(6), stream):
            pass
        stream.close()
    for _ in range(100):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            if "\nquern_requests_running 0\n" in answer.read().decode():
                return
        time.sleep(0.1)
    raise AssertionError("still running")


@part
def many_at_a_time():
    answers = {}

    def ask(i):
        answers[i] = ai.chat.completions.create(model=model, messages=question, seed=i % 3, max_completion_tokens=20)
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers[i].choices[0].message.content == answers[i % 3].choices[0].message.content for i in answers)


sys.exit(bool(failed))
