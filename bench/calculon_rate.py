#!/usr/bin/env python3
"""How many layouts Calculon evaluates per second of processor time, on one core.

The same loops as its `llm-optimal-execution` (calculon/llm/optimal_execution.py), over every N-th
combination of pipeline and tensor ranks, so that it ends in a minute; what is counted is what it
counts as executions. Usage: bench/calculon_rate.py CALCULON_FOLDER [--model models/gpt3-175B.json]
[--system systems/h100_80g_nvl8.json] [--gpus 512] [--batch 1536] [--every 40] [--seconds 60]
"""

import argparse
import json
import sys
import time
import types


def combinations(calculon, app, gpus, batch):
    from calculon.llm.optimal_execution import OptimalExecution
    llm = calculon.llm.Llm
    for tensor in llm.get_all_tensor_parallelisms(gpus, app.hidden, app.attn_heads):
        for pipeline in llm.get_all_pipeline_parallelisms(gpus, tensor, app.num_blocks):
            data = llm.get_data_parallelism(gpus, tensor, pipeline)
            for chunks in llm.get_valid_pipeline_interleavings(app.num_blocks, pipeline):
                size = OptimalExecution.get_batch_size(data, batch)
                if size is None:
                    continue
                for recompute in ("full", "attn_only", "none"):
                    for sharded in ((True, False) if data > 1 else (False,)):
                        for sent in ("ar", "p2p_rs_ag", "rs_ag"):
                            yield (tensor, pipeline, data, chunks, size, recompute, sharded, sent)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--model", default="models/gpt3-175B.json")
    parser.add_argument("--system", default="systems/h100_80g_nvl8.json")
    parser.add_argument("--gpus", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1536)
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    sys.path.insert(0, given.folder)
    sys.modules.setdefault("pandas", types.ModuleType("pandas"))  # of another of its commands
    import calculon
    import calculon.llm
    from calculon.llm.optimal_execution import OptimalExecution
    from calculon.system import System
    app = calculon.llm.Llm.Application(json.load(open(f"{given.folder}/{given.model}")))
    system = System(json.load(open(f"{given.folder}/{given.system}")))
    every = list(combinations(calculon, app, given.gpus, given.batch))[::given.every]
    count = good = 0
    best = None
    begun = time.process_time()
    for (tensor, pipeline, data, chunks, size, recompute, sharded, sent) in every:
        found, tried, fitting, _, _, _ = OptimalExecution.search(
            False, 1, False, given.gpus, given.batch, "float16", app, system, tensor, pipeline, data,
            chunks, size, recompute, sharded, sent, [True], False, True, True)
        count, good = count + tried, good + fitting
        for rate, execution, _ in found:
            if best is None or rate > best[0]:
                best = (rate, execution)
        if time.process_time() - begun > given.seconds:
            break
    spent = time.process_time() - begun
    print(f"{count} executions ({good} fit) in {spent:.1f} s of processor time: "
          f"{count / spent:.0f} per second and core")
    if best:
        print(f"best seen: {best[0]:.1f} samples/s: {best[1]}")


if __name__ == "__main__":
    main()
