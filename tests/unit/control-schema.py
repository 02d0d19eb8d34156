#!/usr/bin/env python3
"""control-schema.py SCHEMA TEST-CONTROL [TABLE...]: what the control socket's test exchanges is as
data/hv-control.schema.json says, and the schema has every method of the tables in the source, and no
other. TAP. Uses jsonschema where it is installed; else the few keywords that the schema needs are
checked here."""
import json
import os
import re
import subprocess
import sys
import tempfile

TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
         "integer": int, "number": (int, float)}


def is_type(value, name):
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def faults(value, schema, root):
    """What is wrong with the value, as texts."""
    if "$ref" in schema:
        where = root
        for step in schema["$ref"].split("/")[1:]:
            where = where[step]
        yield from faults(value, where, root)
    if "const" in schema and value != schema["const"]:
        yield f"{value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{value!r} is none of {schema['enum']}"
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(is_type(value, name) for name in names):
        yield f"{value!r} is no {' or '.join(names)}"
        return
    if "oneOf" in schema and sum(not list(faults(value, s, root)) for s in schema["oneOf"]) != 1:
        yield f"{value!r} is not one of what it can be"
    if "anyOf" in schema and all(list(faults(value, s, root)) for s in schema["anyOf"]):
        yield f"{value!r} is none of what it can be"
    if isinstance(value, (int, float)):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            yield f"{value} is out of range"
    size = {dict: "Properties", list: "Items", str: "Length"}.get(type(value))
    if size and not schema.get("min" + size, 0) <= len(value) <= schema.get("max" + size, len(value)):
        yield f"{value!r} has a wrong length"
    for item in value if isinstance(value, list) and "items" in schema else []:
        yield from faults(item, schema["items"], root)
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                yield f"{name} is missing"
        known, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in known:
                yield from faults(item, known[name], root)
            elif more is False:
                yield f"{name} is unknown"
            elif more is not True:
                yield from faults(item, more, root)


def checker(root):
    try:
        import jsonschema
    except ImportError:
        return lambda value, schema: next(faults(value, schema, root), None)

    def check(value, schema):
        whole = {**schema, "$defs": root["$defs"]}
        mine = next(faults(value, schema, root), None)
        error = next(jsonschema.Draft202012Validator(whole).iter_errors(value), None)
        assert bool(mine) == bool(error), (mine, error)  # the two agree
        return error.message if error else None
    return check


def methods(requests):
    return {r["properties"]["method"]["const"] for r in requests["oneOf"]}


def main(schema, program, *tables):
    root = json.load(open(schema))
    defs = root["$defs"]
    check, results, number, failed = checker(root), defs["results"], 0, False

    def say(good, what, why=""):
        nonlocal number, failed
        number += 1
        failed |= not good
        print(f"{'ok' if good else 'not ok'} {number} - {what}" + (f"\n# {why}" if not good else ""))

    for table, kind in zip(tables, ("", "net-")):
        found = set(re.findall(r'^    \{ "([a-z.]+)", .*_[a-z]+ \},', open(table).read(), re.M))
        known = methods(defs[kind + "request"])
        say(found == known and found == set(defs[kind + "results"]), f"the methods of {table}",
            f"{found ^ known}")

    with tempfile.TemporaryDirectory() as folder:
        record = os.path.join(folder, "record")
        subprocess.run([program], env={**os.environ, "CONTROL_RECORD": record}, check=True,
                       stdout=subprocess.DEVNULL, timeout=100)
        lines = open(record, errors="replace").read().splitlines()
    used, wrong, seen = set(), [], set()
    for asked, got in zip(lines[::2], lines[1::2]):
        got = json.loads(got)
        if "method" in got:
            seen.add(got["method"])
            why = check(got, defs["event"])
        elif why := check(got, defs["answer"]):
            pass
        elif "result" in got:
            asked = json.loads(asked)
            used.add(asked["method"])
            why = check(asked, defs["request"]) or check(got["result"], results[asked["method"]])
        if why:
            wrong.append(f"{str(asked)[:200]} -> {str(got)[:300]}: {why}")
    say(not wrong, f"{len(lines) // 2} requests, answers and events", "\n# ".join(wrong[:5]))
    say(used == set(results), "each method was answered with a result", f"{set(results) - used}")
    events = methods(defs["event"])
    say(seen == events, "each event came", f"{seen ^ events}")
    for bad in ({"method": "stop", "params": {"hwo": "kill"}}, {"method": "reboot"}, {"id": 1},
                {"method": "send.key", "params": {"keys": []}}, {"method": "send.text"}):
        say(check(bad, defs["request"]), f"{bad} is refused")
    print(f"1..{number}")
    return failed


sys.exit(main(*sys.argv[1:]))
