#!/usr/bin/env python3
"""Exports real models to ONNX and records the files without their weights: tests/model/onnx/*.json.

Each file holds
  packed      the ModelProto, deflated by zlib, in base64; a weight's data is said to lie in a file that is not there
              (external data), so what is left is names, shapes, nodes and small constants
  parameters  elements of the model's own parameters, as torch counts them; of an export for
              inference (training: false) without its batch norms those of its real initializers
  saved_bytes what autograd keeps of a call and its loss in fp32; 0: not recorded
  moves       false: the batch that the file fixes is cut apart in it
  couples     true: samples meet each other, or work is done once for all: it does not grow with
              the batch
  shapes      value -> its dimensions as onnx.shape_inference finds them for the exported sizes

    /path/to/venv/bin/python tests/model/oracle_onnx.py [NAME ...]

Needs torch, torchvision, timm, transformers and onnx (2.6, 0.21, 1.0, 4.49, 1.23 were used).
"""
import base64, io, json, os, sys, warnings, zlib
import numpy, onnx, torch
from onnx import numpy_helper, shape_inference

warnings.filterwarnings("ignore")
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "onnx")
MOST_SHAPES = 300   # that are recorded of a file
KEPT = 64  # elements of a tensor whose values stay in the file

torch.manual_seed(0)
L = torch.nn


def pictures(side, batch=2, channels=3):
    return (torch.randn(batch, channels, side, side),)


def ids(vocabulary, batch=2, tokens=16):
    return (torch.randint(0, vocabulary, (batch, tokens)),)


class Autoencoder(L.Module):
    """A small U-Net with a transposed convolution, joined skips and group norms."""

    def __init__(self):
        super().__init__()
        def stage(i, o):
            return L.Sequential(L.Conv2d(i, o, 3, padding=1), L.GroupNorm(8, o), L.SiLU(),
                                L.Conv2d(o, o, 3, padding=1), L.GroupNorm(8, o), L.SiLU())
        self.a, self.b, self.c = stage(3, 16), stage(16, 32), stage(32, 64)
        self.pool = L.AvgPool2d(2)
        self.up1, self.up2 = L.ConvTranspose2d(64, 32, 2, stride=2), L.Upsample(scale_factor=2)
        self.d, self.e, self.out = stage(64, 32), stage(48, 16), L.Conv2d(16, 1, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(self.pool(a))
        c = self.c(self.pool(b))
        d = self.d(torch.cat([self.up1(c), b], 1))
        return self.out(self.e(torch.cat([self.up2(d), a], 1)))


class Detector(L.Module):
    """SSD-like: heads over three maps of a backbone, reshaped and joined."""

    def __init__(self):
        super().__init__()
        def down(i, o):
            return L.Sequential(L.Conv2d(i, o, 3, stride=2, padding=1, bias=False),
                                L.BatchNorm2d(o), L.LeakyReLU(0.1))
        self.stem = L.Sequential(down(3, 16), down(16, 32), down(32, 64))
        self.p4, self.p5 = down(64, 96), down(96, 128)
        widths = [64, 96, 128]
        self.boxes = L.ModuleList(L.Conv2d(w, 4 * 4, 3, padding=1) for w in widths)
        self.scores = L.ModuleList(L.Conv2d(w, 4 * 21, 3, padding=1) for w in widths)

    def forward(self, x):
        maps = [self.stem(x)]
        maps.append(self.p4(maps[-1]))
        maps.append(self.p5(maps[-1]))
        def joined(heads, n):
            return torch.cat([h(m).permute(0, 2, 3, 1).reshape(m.shape[0], -1, n)
                              for h, m in zip(heads, maps)], 1)
        return joined(self.scores, 21).softmax(-1), joined(self.boxes, 4)


class Recurrent(L.Module):
    def __init__(self, kind, both):
        super().__init__()
        self.words = L.Embedding(100, 32)
        self.cell = kind(32, 48, num_layers=2, batch_first=True, bidirectional=both)
        self.out = L.Linear(96 if both else 48, 10)

    def forward(self, x):
        return self.out(self.cell(self.words(x))[0])


class WeightNormed(L.Module):
    """Convolutions with torch's weight norm, as the positions of wav2vec2 and HuBERT."""

    def __init__(self):
        super().__init__()
        norm = torch.nn.utils.parametrizations.weight_norm
        self.first = norm(L.Conv1d(8, 16, 5, padding=2))
        self.second = norm(L.Conv1d(16, 16, 8, padding=4, groups=4), dim=2)
        self.out = L.Conv1d(16, 4, 1)

    def forward(self, x):
        return self.out(torch.nn.functional.gelu(self.second(torch.relu(self.first(x)))))


class Standardized(L.Module):
    """timm's standardized convolutions: of BiT's ResNets, and of NFNets with a gain that trains."""

    def __init__(self):
        super().__init__()
        from timm.layers import ScaledStdConv2d, StdConv2d
        self.a, self.norm = StdConv2d(3, 16, 3, padding=1, bias=False), L.GroupNorm(4, 16)
        self.b = ScaledStdConv2d(16, 24, 3, stride=2, padding=1)
        self.out = L.Linear(24, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.a(x)))
        return self.out(torch.relu(self.b(x)).mean((2, 3)))


class Ranker(L.Module):
    """DLRM-like: embedding tables and dot products between them."""

    def __init__(self):
        super().__init__()
        self.tables = L.ModuleList(L.Embedding(n, 16) for n in (1000, 500, 200))
        self.bottom = L.Sequential(L.Linear(13, 64), L.ReLU(), L.Linear(64, 16), L.ReLU())
        self.top = L.Sequential(L.Linear(16 + 16, 64), L.ReLU(), L.Linear(64, 1), L.Sigmoid())

    def forward(self, dense, sparse):
        x = self.bottom(dense)
        parts = [x] + [t(sparse[:, i]) for i, t in enumerate(self.tables)]
        t = torch.stack(parts, 1)
        dots = torch.bmm(t, t.transpose(1, 2)).flatten(1)
        return self.top(torch.cat([x, dots], 1))


class Decoder(L.Module):
    """torch's own transformer, as a language model."""

    def __init__(self):
        super().__init__()
        self.words, self.places = L.Embedding(200, 64), L.Parameter(torch.randn(1, 16, 64))
        layer = L.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True,
                                          activation="gelu", norm_first=True)
        self.layers = L.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = L.Linear(64, 200)

    def forward(self, x):
        mask = L.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.out(self.layers(self.words(x) + self.places, mask=mask, is_causal=True))


class Logits(L.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        out = self.model(x)
        return out.logits if hasattr(out, "logits") else out.last_hidden_state


def transformer(kind, config_name, **keys):
    import transformers as t
    config = getattr(t, config_name)(use_cache=False, **keys)
    config._attn_implementation = keys.get("attn_implementation", "eager")
    model = getattr(t, kind)(config)
    return Logits(model)


def torchvision_model(name, **keys):
    import torchvision
    return getattr(torchvision.models, name)(weights=None, **keys)


def timm_model(name, **keys):
    import timm
    return timm.create_model(name, pretrained=False, **keys)


SMALL = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
             vocab_size=200, max_position_embeddings=64)
GPT = dict(n_embd=64, n_layer=2, n_head=4, vocab_size=200, n_positions=64)
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
NO_GPT_DROPOUT = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
TEXT = {"x": {0: "batch", 1: "sequence"}}
PICTURE = {"x": {0: "batch"}}


def base_models():
    tv, tm, hf = torchvision_model, timm_model, transformer
    rows = {
        "mlp": (lambda: L.Sequential(L.Linear(20, 64), L.Tanh(), L.Linear(64, 64), L.ELU(),
                                     L.LayerNorm(64), L.Dropout(0.1), L.Linear(64, 5)),
                lambda: (torch.randn(2, 20),), PICTURE),
        "resnet18": (lambda: tv("resnet18"), lambda: pictures(64), PICTURE),
        "mobilenet_v2": (lambda: tv("mobilenet_v2", width_mult=0.35), lambda: pictures(64), PICTURE),
        "mobilenet_v3_small": (lambda: tv("mobilenet_v3_small"), lambda: pictures(64), PICTURE),
        "efficientnet_b0": (lambda: tv("efficientnet_b0"), lambda: pictures(64), PICTURE),
        "densenet": (lambda: __import__("torchvision").models.DenseNet(
            growth_rate=8, block_config=(2, 3), num_init_features=16, num_classes=10),
            lambda: pictures(64), PICTURE),
        "squeezenet1_1": (lambda: tv("squeezenet1_1"), lambda: pictures(64), PICTURE),
        "shufflenet_v2": (lambda: tv("shufflenet_v2_x0_5"), lambda: pictures(64), PICTURE),
        "googlenet": (lambda: tv("googlenet", aux_logits=False, init_weights=False),
                      lambda: pictures(64), PICTURE),
        "vit": (lambda: tm("vit_tiny_patch16_224", img_size=64, depth=2), lambda: pictures(64),
                PICTURE),
        "swin": (lambda: tm("swin_tiny_patch4_window7_224", img_size=56, window_size=7, embed_dim=24,
                            depths=(2, 2), num_heads=(2, 4)), lambda: pictures(56), PICTURE),
        "convnext": (lambda: tm("convnext_atto"), lambda: pictures(64), PICTURE),
        "regnet": (lambda: tm("regnetx_002"), lambda: pictures(64), PICTURE),
        "unet": (Autoencoder, lambda: pictures(32), PICTURE),
        "detector": (Detector, lambda: pictures(64), PICTURE),
        "lstm": (lambda: Recurrent(L.LSTM, True), lambda: ids(100), TEXT),
        "gru": (lambda: Recurrent(L.GRU, False), lambda: ids(100), TEXT),
        "ranker": (Ranker, lambda: (torch.randn(2, 13), torch.randint(0, 200, (2, 3))),
                   {"dense": {0: "batch"}, "sparse": {0: "batch"}}),
        "weight_norm": (WeightNormed, lambda: (torch.randn(2, 8, 64),), {"x": {0: "batch"}}),
        "standardized": (Standardized, lambda: pictures(32), PICTURE),
        "decoder": (Decoder, lambda: ids(200), {"x": {0: "batch"}}),
        "bert": (lambda: hf("BertForMaskedLM", "BertConfig", **SMALL, **NO_DROPOUT), lambda: ids(200), TEXT),
        "distilbert": (lambda: hf("DistilBertModel", "DistilBertConfig", dim=64, n_layers=2,
                                  n_heads=4, hidden_dim=128, vocab_size=200,
                                  max_position_embeddings=64), lambda: ids(200), TEXT),
        "gpt2": (lambda: hf("GPT2LMHeadModel", "GPT2Config", **GPT, **NO_GPT_DROPOUT), lambda: ids(200), TEXT),
        "gpt2_sdpa": (lambda: hf("GPT2LMHeadModel", "GPT2Config", attn_implementation="sdpa", **GPT),
                      lambda: ids(200), TEXT),
        "llama": (lambda: hf("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, **SMALL),
                  lambda: ids(200), TEXT),
        "t5_encoder": (lambda: hf("T5EncoderModel", "T5Config", d_model=64, num_layers=2,
                                  num_heads=4, d_kv=16, d_ff=128, vocab_size=200),
                       lambda: ids(200), TEXT),
        "segformer": (lambda: hf("SegformerForSemanticSegmentation", "SegformerConfig",
                                 hidden_sizes=[16, 32, 48, 64], decoder_hidden_size=32,
                                 depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4],
                                 num_labels=5), lambda: pictures(64), PICTURE),
    }
    # The same as users export for inference: eval mode, constants folded, another operator set.
    rows["resnet18_eval"] = rows["resnet18"] + ({"opset": 13, "train": False},)
    rows["bert_opset14"] = rows["bert"] + ({"opset": 14, "train": False},)
    rows["vit_opset20"] = rows["vit"] + ({"opset": 20, "train": True},)
    return rows


def models():
    import oracle_onnx_models
    return {**base_models(), **oracle_onnx_models.rows(sys.modules[__name__])}


def open_dimensions(axes):
    """The same for the exporter by torch.export; equal names are one dimension."""
    dims = {}
    def one(name):
        most = 4096 if name == "batch" else 32
        return dims.setdefault(name, torch.export.Dim(name, min=2, max=most))
    return tuple({i: one(name) for i, name in axis.items()} for axis in axes.values())


def unlike(model):
    """No two vectors alike, as in a model that has been trained: exporters store equal ones once."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))


def exported(build, sample, axes, options):
    """By torch's exporters; `fixed`: no dimension is left open, `dynamo`: by way of torch.export."""
    torch.manual_seed(0)
    model = build()
    unlike(model)
    train = options.get("train", True)
    model.train(train)
    names = list(axes)
    if options.get("dynamo"):
        program = torch.onnx.export(model, sample(), dynamo=True, input_names=names,
                                    dynamic_shapes=open_dimensions(axes), external_data=False)
        return model, program.model_proto, sample()
    file = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if train else torch.onnx.TrainingMode.EVAL
    outputs = {} if options.get("fixed") else {"output_names": ["y"]}
    torch.onnx.export(model, sample(), file, input_names=names, training=mode,
                      dynamic_axes=None if options.get("fixed") else axes,
                      do_constant_folding=not train, opset_version=options.get("opset", 17),
                      dynamo=False, **outputs)
    return model, onnx.load_from_string(file.getvalue()), sample()


def tensors(graph):
    for tensor in graph.initializer:
        yield tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from tensors(attribute.g)


def saved_bytes(model, sample):
    """What autograd keeps of one call with its loss, each storage once; neither parameters, buffers
    nor what the batch holds. 0: random masks and recurrent kernels, which CUDA and CPU keep
    differently, an inference export whose batch norms are gone, outputs that are no tensors."""
    modules = list(model.modules())
    apart = (L.BatchNorm2d,) if not model.training else ()
    if any(isinstance(m, L.Dropout) and m.p > 0 or isinstance(m, (L.RNNBase, *apart))
           for m in modules):
        return 0
    model.train()
    known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    known |= {t.untyped_storage().data_ptr() for t in sample}
    saved, held = {}, []
    def pack(tensor):
        held.append(tensor)
        if tensor.dim() > 0:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model(*sample)
        outputs = list(out) if isinstance(out, (tuple, list)) else [out]
        first = outputs[0]
        if first.dim() in (2, 3) and first.shape[-1] > 1:
            rows = first.reshape(-1, first.shape[-1])
            labels = torch.zeros(rows.shape[0], dtype=torch.long)
            known.add(labels.untyped_storage().data_ptr())
            loss = L.functional.cross_entropy(rows, labels)
        else:
            loss = first.sum()
        for other in outputs[1:]:
            loss = loss + other.sum()
    loss.backward()
    return sum(size for key, size in saved.items() if key not in known)


def stored_parameters(graph):
    """Of an inference export, which folds batch norms and transposes and stores equal vectors once."""
    real = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    read = {i for n in graph.node for i in n.input}
    held = {t.name: t for t in graph.initializer}
    def numel(tensor):
        count = 1
        for size in tensor.dims:
            count *= size
        return count
    total = sum(numel(t) for t in held.values() if t.data_type in real and t.dims and t.name in read)
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in held:
            tensor = held[node.input[0]]
            total += numel(tensor) if len(tensor.dims) == 1 else 0
    return total


def diagonal_of(tensor):
    """Of a matrix of floats: equal ones are one weight that is stored twice, perhaps transposed."""
    if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2 or min(tensor.dims) < 8:
        return None
    values = numpy_helper.to_array(tensor)
    return values.diagonal().copy()


def without_weights(proto):
    diagonals = {}
    for tensor in tensors(proto.graph):
        diagonal = diagonal_of(tensor)
        if diagonal is not None:
            diagonals.setdefault(diagonal.tobytes(), []).append(tensor)
    twice = [tensor for alike in diagonals.values() if len(alike) > 1 for tensor in alike]
    for tensor in twice:  # these keep what says so
        values = numpy.zeros(tuple(tensor.dims), numpy.float32)
        numpy.fill_diagonal(values, diagonal_of(tensor))
        tensor.ClearField("float_data")
        tensor.raw_data = values.tobytes()
    at = 0
    for tensor in tensors(proto.graph):
        count = 1
        for size in tensor.dims:
            count *= size
        whole = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        if count <= KEPT and (whole or count <= 4) or any(tensor is other for other in twice):
            continue
        size = len(tensor.raw_data)
        for field in ("raw_data", "float_data", "int64_data", "int32_data", "double_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", at), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        at += size
    for node in proto.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    proto.graph.ClearField("value_info")


def graphs_of(graph):
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g)


def shorten(proto):
    """Values that the exporter named after their nodes get numbers: the nodes keep the names."""
    known, names = set(), {}
    for graph in graphs_of(proto.graph):
        known |= {v.name for v in list(graph.input) + list(graph.output)}
        known |= {t.name for t in graph.initializer}
    for graph in graphs_of(proto.graph):
        for node in graph.node:
            for out in node.output:
                if out and out not in known:
                    names.setdefault(out, f"v{len(names)}")
    for graph in graphs_of(proto.graph):
        for node in graph.node:
            for values in (node.input, node.output):
                for i, value in enumerate(values):
                    values[i] = names.get(value, value)


def fix_inputs(proto, sample):
    """The exported sizes, so that shape inference knows every dimension."""
    for value, tensor in zip(proto.graph.input, sample):
        for dim, size in zip(value.type.tensor_type.shape.dim, tensor.shape):
            dim.dim_value = size
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def shapes_of(proto, sample):
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    fix_inputs(copy, sample)
    copy.graph.ClearField("value_info")
    inferred = shape_inference.infer_shapes(copy, data_prop=True)
    shapes = {}
    for value in list(inferred.graph.value_info) + list(inferred.graph.output):
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = ",".join(str(d.dim_value) for d in dims)
    return shapes


def tensors_only(model, sample):
    with torch.no_grad():
        out = model(*sample)
    outputs = out if isinstance(out, (tuple, list)) else [out]
    return all(torch.is_tensor(output) for output in outputs)


def packed(proto):
    """Deflated by zlib, in base64."""
    return base64.b64encode(zlib.compress(proto.SerializeToString(), 9)).decode()


def some(shapes):
    """At most MOST_SHAPES of them, evenly chosen."""
    step = max(1, -(-len(shapes) // MOST_SHAPES))
    return dict(list(shapes.items())[::step])


def main():
    wanted = sys.argv[1:]
    os.makedirs(HERE, exist_ok=True)
    for name, row in models().items():
        if wanted and name not in wanted:
            continue
        options = row[3] if len(row) > 3 else {}
        try:
            model, proto, sample = exported(row[0], row[1], row[2], options)
        except Exception as problem:  # said, not hidden: the row is then missing
            print(f"{name}: {type(problem).__name__}: {str(problem)[:300]}")
            continue
        shorten(proto)
        shapes = shapes_of(proto, sample)
        for node in proto.graph.node:
            if node.op_type == "Constant":
                shapes.pop(node.output[0], None)
        proto.graph.ClearField("value_info")
        without_weights(proto)
        # What the file stores alike counts too: a single number is a constant there, a buffer (BART's
        # final_logits_bias) a weight.
        named = {t.name for t in proto.graph.initializer}
        parameters = sum(p.numel() for p in model.parameters() if p.dim() > 0)
        if not options.get("train", True):  # a weight norm is carried out: one tensor for two
            parameters -= sum(p.numel() for n, p in model.named_parameters()
                              if n.endswith("parametrizations.weight.original0"))
        parameters += sum(b.numel() for n, b in model.named_buffers()
                          if n in named and n.endswith("bias") and b.is_floating_point())
        normed = any(isinstance(m, L.BatchNorm2d) for m in model.modules())
        if not options.get("train", True) and normed:
            parameters = stored_parameters(proto.graph)
        torch.manual_seed(0)
        kept = saved_bytes(model, sample) if tensors_only(model, sample) else 0
        exporter = "torch.export" if options.get("dynamo") else f"opset {options.get('opset', 17)}"
        record = {"name": name,
                  "made_by": f"torch {torch.__version__}, {exporter}",
                  "training": options.get("train", True),
                  "batch": sample[0].shape[0],
                  "sequence": (sample[0].shape[1] if sample[0].dim() == 2
                               and 1 in next(iter(row[2].values())) else 0),
                  "parameters": parameters,
                  "saved_bytes": kept,
                  **{key: options[key] for key in ("moves", "couples") if key in options},
                  "packed": packed(proto),
                  "shapes": some(shapes)}
        with open(os.path.join(HERE, name + ".json"), "w") as out:
            json.dump(record, out, separators=(",", ":"))
            out.write("\n")
        kinds = sorted({n.op_type for n in proto.graph.node})
        print(name, parameters, len(proto.graph.node), len(shapes),
              os.path.getsize(out.name), " ".join(kinds))


if __name__ == "__main__":
    main()
