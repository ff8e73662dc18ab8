#!/usr/bin/env python3
"""Take measured cases over into validation/cases/, without the sentences of their sources.

    python3 validation/import_cases.py FILE...      copies each FILE (schema steelyard.cases/1)
    python3 validation/import_cases.py --counts     writes the table of counts into README.md
    python3 validation/import_cases.py --check      whether cases/ carry every amendment; status 1 if not

Facts and figures go in with their source; `quote`, the row as printed, stays out. The files are
written with one key of a case per line, so that a change to a case is a change of one line.

amendments.toml adds what a source says of its runs and the file does not carry (the versions of the
software); each amendment names its source, which joins the case's assumptions.
"""
import fnmatch
import json
import pathlib
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
CASES = HERE / "cases"
SCHEMA = "steelyard.cases/1"
MARKS = ("<!-- counts: written by import_cases.py --counts -->", "<!-- end of counts -->")
COLUMNS = {
    "allocated": "vram_peak_allocated", "reserved": "vram_peak_reserved",
    "device": "vram_peak_device_used", "VRAM bracket": "vram_high",
    "steady": "vram_steady_allocated", "RAM process": "ram_process_peak", "RAM bracket": "ram_high",
    "step s": "step_seconds", "tokens/s": "tokens_per_second_per_gpu",
    "samples/s": "samples_per_second", "TFLOP/s": "tflops_per_gpu",
    "HFU TFLOP/s": "hfu_tflops_per_gpu", "MFU": "mfu", "HFU": "hfu", "fits": "fits",
    "fits RAM": "fits_ram",
}


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def case_text(case):
    lines = [f"{json.dumps(key)}: {compact(value)}" for key, value in case.items() if key != "quote"]
    return "    {" + ",\n     ".join(lines) + "}"


def file_text(data):
    head = [f"  {json.dumps(key)}: {compact(value)}" for key, value in data.items() if key != "cases"]
    cases = ",\n".join(case_text(case) for case in data["cases"])
    return "{\n" + ",\n".join(head) + ',\n  "cases": [\n' + cases + "\n  ]\n}\n"


def merged(table, over, corrects):
    """`over` laid over `table`; what the job says already stays unless `over` corrects it."""
    result = dict(table)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key, {}), dict):
            result[key] = merged(result.get(key, {}), value, corrects)
        elif corrects or key not in result:
            result[key] = value
    return result


def measured_by(amendment, case):
    """What was measured, by what an amendment says of all its cases and of this one (`measured_of`).

    `left_out` names figures that were printed but cannot be compared; the assumption tells why.
    """
    measured = merged(case["measured"], amendment.get("measured", {}), corrects=True)
    measured = merged(measured, amendment.get("measured_of", {}).get(case["id"], {}), corrects=True)
    return {key: value for key, value in measured.items() if key not in amendment.get("left_out", [])}


def amended(case, amendments):
    for amendment in amendments:
        if any(fnmatch.fnmatchcase(case["id"], pattern) for pattern in amendment["cases"]):
            job = merged(case["job"], amendment.get("job", {}), corrects=False)
            case = dict(case, job=merged(job, amendment.get("correct", {}), corrects=True),
                        measured=measured_by(amendment, case))
            case["assumptions"] = [*case.get("assumptions", []), amendment["assumption"]]
    return case


def amendments_of_file():
    return tomllib.loads((HERE / "amendments.toml").read_text(encoding="utf-8"))["amendments"]


def lacking():
    """What amendments.toml says and the files of cases/ do not: one line each."""
    cases = [case for path in sorted(CASES.glob("*.json"))
             for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]
    found = []
    for amendment in amendments_of_file():
        for pattern in amendment["cases"]:
            if not any(fnmatch.fnmatchcase(case["id"], pattern) for case in cases):
                found.append(f"{pattern}: no case has such an id")
        for case in cases:
            if not any(fnmatch.fnmatchcase(case["id"], pattern) for pattern in amendment["cases"]):
                continue
            corrected = merged(case["job"], amendment.get("correct", {}), corrects=True)
            measured = measured_by(amendment, case)
            jobs_differ = merged(corrected, amendment.get("job", {}), corrects=False) != case["job"]
            if jobs_differ or measured != case["measured"]:
                found.append(f"{case['id']}: import it again: {amendment['assumption']}")
    return found


def check():
    found = lacking()
    for line in found:
        print(line)
    return 1 if found else 0


def take_over(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("schema") != SCHEMA:
        sys.exit(f"{path}: schema is {data.get('schema')!r}, not {SCHEMA!r}")
    ids = [case["id"] for case in data["cases"]]
    doubled = sorted({name for name in ids if ids.count(name) > 1})
    if doubled:
        sys.exit(f"{path}: ids that occur twice: {', '.join(doubled)}")
    amendments = amendments_of_file()
    data["cases"] = [amended(case, amendments) for case in data["cases"]]
    target = CASES / path.name
    target.write_text(file_text(data), encoding="utf-8")
    print(f"{target.relative_to(HERE.parent)}: {len(ids)} cases")


def counts_row(name, cases):
    levels = [sum(case["confidence"] == level for case in cases) for level in ("high", "medium", "low")]
    cells = [sum(key in case["measured"] for case in cases) for key in COLUMNS.values()]
    return [name, len(cases), "/".join(map(str, levels))] + [n or "" for n in cells]


def counts_table():
    rows, every = [], []
    for path in sorted(CASES.glob("*.json")):
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        rows.append(counts_row(path.stem, cases))
        every += cases
    rows.append(counts_row("all", every))
    head = ["file", "cases", "high/medium/low", *COLUMNS]
    rule = ["---", "--:", "---"] + ["--:"] * len(COLUMNS)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, rule, *rows])


def write_counts():
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(f"{before}{MARKS[0]}\n{counts_table()}\n{MARKS[1]}{after}", encoding="utf-8")


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if arguments else 2
    if arguments == ["--counts"]:
        write_counts()
        return 0
    if arguments == ["--check"]:
        return check()
    for name in arguments:
        take_over(pathlib.Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
