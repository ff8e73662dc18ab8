"""Writes hugging_face_networks.json: names and shapes of the weights of small networks of transformers.

Needs torch and transformers. Run: python3 tests/model/oracle_networks.py
"""
import json
from pathlib import Path

import torch
import transformers

HERE = Path(__file__).parent
SMALL = [
    ("RegNet", {"model_type": "regnet", "embedding_size": 8, "hidden_sizes": [16, 24], "depths": [1, 3],
                "groups_width": 8, "num_labels": 5}),
    ("RegNet", {"model_type": "regnet", "embedding_size": 8, "hidden_sizes": [16, 16, 32], "depths": [2, 2, 1],
                "groups_width": 8, "layer_type": "x", "downsample_in_first_stage": False, "num_labels": 5}),
    ("EfficientNet", {"model_type": "efficientnet", "image_size": 64, "width_coefficient": 1.2,
                      "depth_coefficient": 1.4, "hidden_dim": 1536, "num_labels": 5}),
    ("MobileNetV1", {"model_type": "mobilenet_v1", "depth_multiplier": 0.75, "image_size": 64, "num_labels": 5}),
    ("MobileNetV2", {"model_type": "mobilenet_v2", "depth_multiplier": 0.35, "image_size": 64, "num_labels": 5}),
    ("MobileNetV2", {"model_type": "mobilenet_v2", "depth_multiplier": 1.4, "image_size": 64,
                     "first_layer_is_expansion": False, "finegrained_output": False, "output_stride": 8,
                     "num_labels": 5}),
]


def main():
    rows = []
    for name, config in SMALL:
        values = {key: value for key, value in config.items() if key != "model_type"}
        settings = getattr(transformers, name + "Config")(**values)
        with torch.device("meta"):
            model = getattr(transformers, name + "ForImageClassification")(settings)
        weights = {key: list(value.shape) for key, value in model.named_parameters()}
        rows.append({"config": config, "parameters": sum(p.numel() for p in model.parameters()), "weights": weights})
    source = f"transformers {transformers.__version__} on the meta device: the class ...ForImageClassification"
    lines = ",\n".join(json.dumps(row) for row in rows)
    (HERE / "hugging_face_networks.json").write_text(
        f'{{"source": {json.dumps(source)},\n"models": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
