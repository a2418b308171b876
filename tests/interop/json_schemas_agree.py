"""What answers under JSON schemas are, the Python package jsonschema takes: by hand, where that is installed.

    json_schemas_agree.py --quern BINARY --model MODEL.gguf [--schemas FILE.jsonl] [--seeds N] [--tokens N]

Every schema, a line of the file each (default: tests/data/json_schemas.jsonl), is given to `quern run --json-schema`
with some seeds at a high temperature. An answer that ended by itself must be JSON that jsonschema (draft 2020-12, with
its checks of formats) takes; one that was cut short says nothing. Also, where the package llguidance is installed, the
same schemas are compiled there, and answers must be texts of its grammar too where it takes the schema.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import jsonschema


def llguidance_judge():
    """A function (schema, text) -> True, False or None where it cannot say; None where the package is absent."""
    try:
        import llguidance
    except ImportError:
        return None
    tokenizer = llguidance.LLTokenizer("byte")

    def judge(schema, text):
        # Spaces are free in JSON, and its default is to allow them.
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = llguidance.LLMatcher(tokenizer, grammar)
        if matcher.is_error():
            return None
        return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()

    return judge


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("--quern", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--schemas", default=os.path.join(here, "..", "data", "json_schemas.jsonl"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    judge = llguidance_judge()
    taken = cut = wrong = other = silent = 0
    with open(options.schemas, encoding="utf-8") as file:
        schemas = [json.loads(line) for line in file]
    for schema in schemas:
        validator = jsonschema.Draft202012Validator(
            schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as schema_file:
            json.dump(schema, schema_file)
            schema_file.flush()
            for seed in range(options.seeds):
                done = subprocess.run(
                    [options.quern, "run", options.model, "-p", "A value as JSON: ", "--json-schema", schema_file.name,
                     "-n", str(options.tokens), "--seed", str(seed), "--temp", "1.5", "--min-p", "0", "--top-p", "1",
                     "--json", "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                if done.returncode != 0:
                    sys.exit(f"{json.dumps(schema)}: exit {done.returncode}: {done.stderr.decode()}")
                answer = json.loads(done.stdout)
                if answer["finish_reason"] != "stop":
                    cut += 1
                    continue
                try:
                    validator.validate(json.loads(answer["text"]))
                    taken += 1
                except (ValueError, jsonschema.ValidationError) as error:
                    wrong += 1
                    print(f"{json.dumps(schema)}: {answer['text']!r}: {str(error).splitlines()[0]}")
                if judge is not None:
                    verdict = judge(schema, answer["text"])
                    silent += verdict is None
                    if verdict is False:
                        other += 1
                        print(f"llguidance refuses under {json.dumps(schema)}: {answer['text']!r}")
    print(f"{len(schemas)} schemas: {taken} answers taken, {cut} cut short, {wrong} refused by jsonschema")
    if judge is not None:
        print(f"llguidance: {other} refused, {silent} under schemas that it does not take")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
