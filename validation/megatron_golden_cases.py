#!/usr/bin/env python3
"""Make cases of the golden values of Megatron-LM's functional tests that no other case file holds.

    python3 validation/megatron_golden_cases.py CLONE-OF-MEGATRON-LM > cases.json

Each test of NVIDIA/Megatron-LM (tests/functional_tests/test_cases) keeps its arguments
(model_config.yaml) beside what its runs logged (golden_values_*.json): the bytes that PyTorch's
allocator had given out on the last rank. A recipe (tests/test_utils/recipes) says on how many GPUs
it runs. Left out: inference and reinforcement learning, a second run of the same job, runs of the
long-term container (its PyTorch is not the one that the arguments were last changed for), and BERT
and multimodal tests, whose training script is no argument. Needs PyYAML.
"""
import json
import pathlib
import re
import subprocess
import sys

import yaml

CASES = pathlib.Path(__file__).resolve().parent / "cases"
TESTS = "tests/functional_tests/test_cases"
MACHINES = {"dgx_a100": ("dgx-a100-80gb", "h100"), "dgx_h100": ("dgx-h100", "h100"),
            "dgx_gb200": ("gb200-nvl72-tray", "gb200")}
LEFT_OUT = ("inference", "grpo", "mimo", "multimodal", "bert")
# What the given cases leave out of the arguments: files, and what only says how to log.
NOT_IMPORTED = {"data-path", "vocab-file", "merge-file", "tokenizer-type", "tokenizer-model",
                "exit-interval", "log-device-memory-used"}
# The vocabularies that the tests' data come with: T5 reads bert-large-cased-vocab.txt.
TOKENS = {"t5": 28996}
GPT2_TOKENS = 50257


class Clone:
    def __init__(self, folder):
        self.folder = folder

    def git(self, *arguments):
        return subprocess.run(["git", "-C", self.folder, *arguments], capture_output=True,
                              text=True, check=False).stdout

    def files(self):
        return self.git("ls-tree", "-r", "--name-only", "HEAD").splitlines()

    def text(self, path):
        return self.git("show", f"HEAD:{path}")


def first(value):
    return value[0] if isinstance(value, list) else value


def recipes(clone):
    """(generation, test) -> (nodes, GPUs of one)"""
    sizes = {}
    for path in clone.files():
        match = re.match(r"tests/test_utils/recipes/(\w+)/.*\.yaml$", path)
        if not match:
            continue
        try:
            recipe = yaml.safe_load(clone.text(path))
        except yaml.YAMLError:
            continue
        spec = recipe.get("spec") or {}
        for product in recipe.get("products") or []:
            nodes, gpus = spec.get("nodes", 1), spec.get("gpus", 8)
            for variant in product.get("products") or []:
                nodes = first(variant.get("nodes", nodes))
                gpus = first(variant.get("gpus", gpus))
            for test in product.get("test_case") or []:
                sizes[match[1], test] = (nodes, gpus)
    return sizes


def logged(golden, key):
    value = golden.get(key)
    if isinstance(value, (int, float)):
        return [value]
    values = value.get("values") or {} if isinstance(value, dict) else {}
    return [number for number in values.values() if isinstance(number, (int, float))]


def case_of(clone, path, model, test, environment, size, revision):
    try:
        golden = json.loads(clone.text(path))
        config = yaml.safe_load(clone.text(f"{TESTS}/{model}/{test}/model_config.yaml"))
    except (json.JSONDecodeError, yaml.YAMLError):
        return None
    peak, steady = logged(golden, "mem-max-allocated-bytes"), logged(golden, "mem-allocated-bytes")
    if not peak or not config:
        return None
    arguments = {}
    for name, value in (config.get("MODEL_ARGS") or {}).items():
        name = name.lstrip("-")
        if name not in NOT_IMPORTED and not (isinstance(value, str) and "${" in value):
            arguments[name] = value
    name = f"mcore-golden-{model}-{test}-{environment}"
    job = {"name": name, "framework": "megatron", "import": {"megatron": arguments},
           "machine": {"name": MACHINES[environment[4:]][0], "nodes": size[0], "gpus": size[1]}}
    if "vocab-size" not in arguments:
        job["model"] = {"set": {"vocab-size": TOKENS.get(model, GPT2_TOKENS)}}
    measured = {"vram_peak_allocated": max(peak), "vram_rank": "last_stage", "fits": True}
    if steady:
        measured["vram_steady_allocated"] = steady[-1]
    return {"id": name, "job": job, "measured": measured, "confidence": "high",
            "assumptions": ["counters of the last rank; the peak is never reset",
                            "arguments and golden values as they stand in one revision; the values "
                            "may be older than the last change of the arguments"],
            "source": {"where": path,
                       "url": f"https://github.com/NVIDIA/Megatron-LM/blob/{revision}/{path}"}}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    clone = Clone(sys.argv[1])
    known = {case["id"] for file in CASES.glob("megatron_golden_*.json")
             if "unseen" not in file.name for case in json.loads(file.read_text())["cases"]}
    sizes, revision, cases = recipes(clone), clone.git("rev-parse", "HEAD").strip(), []
    for path in clone.files():
        match = re.match(TESTS + r"/([\w-]+)/([^/]+)/golden_values_(dev_(\w+?))\.json$", path)
        if not match or match[4] not in MACHINES or any(w in path for w in LEFT_OUT):
            continue
        size = sizes.get((MACHINES[match[4]][1], match[2]))
        if size and f"mcore-golden-{match[1]}-{match[2]}-{match[3]}" not in known:
            case = case_of(clone, path, match[1], match[2], match[3], size, revision)
            if case:
                cases.append(case)
    json.dump({"schema": "steelyard.cases/1", "source": {
        "title": "Megatron-LM functional tests that no rule was made with",
        "where": "NVIDIA/Megatron-LM, tests/functional_tests",
        "url": "https://github.com/NVIDIA/Megatron-LM"}, "cases": cases}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
