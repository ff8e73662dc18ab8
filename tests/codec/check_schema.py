"""Checks JSON Schemas with the jsonschema package, as the draft they name and as draft 7.

Reads {"schema": ..., "valid": [...], "invalid": [...]} from the file named on the command
line; prints one line per disagreement and exits 1 when there is any.
"""
import json
import sys

import jsonschema

with open(sys.argv[1], encoding="utf-8") as file:
    task = json.load(file)

wrong = []
for draft in (jsonschema.Draft202012Validator, jsonschema.Draft7Validator):
    draft.check_schema(task["schema"])
    validator = draft(task["schema"])
    for number, instance in enumerate(task["valid"]):
        for error in validator.iter_errors(instance):
            where = f"{draft.__name__}: valid[{number}]{error.json_path[1:]}"
            wrong.append(f"{where} refused: {error.message[:200]}")
    for number, instance in enumerate(task["invalid"]):
        if validator.is_valid(instance):
            what = json.dumps(instance)[:200]
            wrong.append(f"{draft.__name__}: invalid[{number}] accepted: {what}")
print("\n".join(wrong))
sys.exit(1 if wrong else 0)
