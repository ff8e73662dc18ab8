#!/usr/bin/env python3
"""Counts the parameters of the catalogue's cross networks with the libraries that build them, on the
meta device, and what autograd keeps of small ones: rows of published_parameters.json, and
recommenders_saved.json.

    /path/to/venv/bin/python tests/model/oracle_recommenders.py

Needs torch, torchrec and fbgemm_gpu, deepctr_torch (2.6, 1.1, 1.1 and 0.3 were used).
"""
import json
import pathlib
import sys
from unittest import mock

import torch

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE.parent.parent / "catalog" / "models"
NAMES = ("dlrm-dcnv2-criteo", "dcn-criteo-kaggle", "dcn-v2-criteo-kaggle",
         "wide-deep-criteo-kaggle")


def stacked(c, device):
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
    from torchrec.models.dlrm import DLRM_DCN
    tables = [EmbeddingBagConfig(name=f"t{i}", embedding_dim=c["embedding_dim"], num_embeddings=n,
                                 feature_names=[f"f{i}"])
              for i, n in enumerate(c["num_embeddings_per_feature"])]
    return DLRM_DCN(EmbeddingBagCollection(device=device, tables=tables), c["dense_features"],
                    c["bottom_mlp"], c["deep_mlp"] + [1], c["cross_layers"], c["cross_rank"],
                    dense_device=device)


def beside(c, device):
    # What it needs for fit() only.
    for name in ("sklearn", "sklearn.metrics", "tensorflow", "tensorflow.python",
                 "tensorflow.python.keras", "tensorflow.python.keras.callbacks"):
        sys.modules.setdefault(name, mock.MagicMock())
    from deepctr_torch.inputs import DenseFeat, SparseFeat
    from deepctr_torch.models import DCN, WDL
    columns = [SparseFeat(f"C{i}", n, embedding_dim=c["embedding_dim"])
               for i, n in enumerate(c["num_embeddings_per_feature"])]
    columns += [DenseFeat(f"I{i}", 1) for i in range(c["dense_features"])]
    keys = dict(dnn_hidden_units=tuple(c["deep_mlp"]), device=str(device))
    if c["model_type"] == "wide_deep":
        return WDL(columns, columns, **keys)
    return DCN(columns, columns, cross_num=c["cross_layers"], cross_parameterization=c["cross"],
               **keys)


def built(config, device):
    with torch.device(device):
        return (stacked if config.get("structure") == "stacked" else beside)(config, device)


def saved_bytes(config, batch):
    """Of the part behind the tables: deepctr's regularization and torchrec's tables stay out."""
    model = built(config, torch.device("cpu"))
    kept, known = {}, {p.untyped_storage().data_ptr() for p in model.parameters()}
    dense = torch.randn(batch, config["dense_features"])
    rows = config["num_embeddings_per_feature"]
    ids = torch.stack([torch.randint(0, n, (batch,)) for n in rows], 1)
    labels = torch.rand(batch)
    known |= {t.untyped_storage().data_ptr() for t in (dense, ids, labels)}
    def pack(tensor):
        if tensor.dim() > 0:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        if config.get("structure") == "stacked":
            from torchrec import KeyedJaggedTensor
            features = KeyedJaggedTensor.from_lengths_sync(
                [f"f{i}" for i in range(len(rows))], ids.t().reshape(-1),
                torch.ones(ids.numel(), dtype=torch.int32))
            logits = model(dense, features).squeeze()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
        else:
            row = torch.cat([ids.float(), dense], 1)
            known.add(row.untyped_storage().data_ptr())
            loss = torch.nn.functional.binary_cross_entropy(model(row).squeeze(), labels)
    return sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in known)


def main():
    for name in NAMES:
        config = json.loads((MODELS / f"{name}.json").read_text())["config"]
        print(name, sum(p.numel() for p in built(config, torch.device("meta")).parameters()))
        small = {**config, "num_embeddings_per_feature": [50, 40, 30], "embedding_dim": 8,
                 "deep_mlp": [32, 16]}
        if "bottom_mlp" in small:
            small |= {"bottom_mlp": [16, 8], "cross_rank": 6}
        print(json.dumps(small), saved_bytes(small, 64))


if __name__ == "__main__":
    main()
