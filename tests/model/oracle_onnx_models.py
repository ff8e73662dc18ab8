"""Further models that oracle_onnx.py exports: encoders with decoders, detectors, diffusion networks,
speech, pictures with text; the dynamo exporter, fixed batches, a batch of 1, inference exports.

rows(oracle): name -> (build, sample, dynamic axes, options) as in oracle_onnx.models().
"""
import torch

L = torch.nn
QUIET = dict(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)


class Picked(L.Module):
    """A model and what is taken of its call."""

    def __init__(self, model, pick):
        super().__init__()
        self.model, self.pick = model, pick

    def forward(self, *x):
        return self.pick(self.model, *x)


def unmasked(model):
    """Without dropout: its masks are not the same on a CPU."""
    for module in model.modules():
        if isinstance(module, (L.Dropout, L.Dropout2d)):
            module.p = 0.0
        if type(module).__name__ in ("StochasticDepth", "DropPath"):
            setattr(module, "p" if hasattr(module, "p") else "drop_prob", 0.0)
    return model


def t5():
    import transformers as t
    model = t.T5ForConditionalGeneration(t.T5Config(
        d_model=64, num_layers=2, num_heads=4, d_kv=16, d_ff=128, vocab_size=200,
        dropout_rate=0.0, use_cache=False))
    return Picked(model, lambda m, a, b: m(input_ids=a, decoder_input_ids=b).logits)


def bart():
    import transformers as t
    model = t.BartForConditionalGeneration(t.BartConfig(
        d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=200,
        max_position_embeddings=64, use_cache=False, attn_implementation="eager", **QUIET))
    return Picked(model, lambda m, a, b: m(input_ids=a, decoder_input_ids=b).logits)


def whisper():
    import transformers as t
    model = t.WhisperForConditionalGeneration(t.WhisperConfig(
        d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=200,
        num_mel_bins=16, max_source_positions=50, max_target_positions=32, use_cache=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        attn_implementation="eager", **QUIET))
    return Picked(model, lambda m, a, b: m(input_features=a, decoder_input_ids=b).logits)


def wav2vec2():
    import transformers as t
    model = t.Wav2Vec2ForCTC(t.Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        hidden_dropout=0.0, feat_proj_dropout=0.0, final_dropout=0.0, layerdrop=0.0,
        attention_dropout=0.0, activation_dropout=0.0, mask_time_prob=0.0, vocab_size=30,
        attn_implementation="eager"))
    return Picked(unmasked(model), lambda m, x: m(x).logits)


def clip():
    import transformers as t
    part = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    model = t.CLIPModel(t.CLIPConfig(
        text_config=dict(vocab_size=200, max_position_embeddings=16, eos_token_id=199, **part),
        vision_config=dict(image_size=32, patch_size=8, **part), projection_dim=32,
        attn_implementation="eager"))
    def pick(m, ids, pictures):
        out = m(input_ids=ids, pixel_values=pictures)
        return out.logits_per_image, out.logits_per_text
    return Picked(model, pick)


def detr():
    import timm, transformers as t
    class Backbone(L.Module):
        """DETR's parts with a small backbone: queries read a map."""
        def __init__(self):
            super().__init__()
            self.body = timm.create_model("resnet10t", features_only=True, out_indices=(4,))
            self.project = L.Conv2d(512, 64, 1)
            config = t.DetrConfig(d_model=64, encoder_layers=1, decoder_layers=1,
                                  encoder_attention_heads=4, decoder_attention_heads=4,
                                  encoder_ffn_dim=128, decoder_ffn_dim=128, dropout=0.0)
            from transformers.models.detr.modeling_detr import DetrDecoder, DetrEncoder
            self.encoder, self.decoder = DetrEncoder(config), DetrDecoder(config)
            self.places = L.Parameter(torch.randn(1, 4, 64))
            self.queries = L.Embedding(10, 64)
            self.classes, self.boxes = L.Linear(64, 5), L.Linear(64, 4)
        def forward(self, x):
            flat = self.project(self.body(x)[-1]).flatten(2).transpose(1, 2)
            states = self.encoder(inputs_embeds=flat, object_queries=self.places).last_hidden_state
            asked = self.queries.weight.unsqueeze(0).repeat(x.shape[0], 1, 1)
            out = self.decoder(inputs_embeds=torch.zeros_like(asked), query_position_embeddings=asked,
                               encoder_hidden_states=states, object_queries=self.places)
            hidden = out.last_hidden_state
            return self.classes(hidden), self.boxes(hidden).sigmoid()
    return Backbone()


def detector(name, heads=False):
    """torchvision's detector; `heads`: only what its loss in training reads."""
    import torchvision
    model = getattr(torchvision.models.detection, name)(weights=None, weights_backbone=None,
                                                        num_classes=4)
    if not heads:
        return model
    def pick(m, x):
        return tuple(m.head(list(m.backbone(x).values())).values())
    return Picked(unmasked(model), pick)


def conditioned_unet():
    import diffusers
    model = diffusers.UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32,
        attention_head_dim=8)
    return Picked(model, lambda m, x, t, e: m(x, t, e, return_dict=False)[0])


def denoising_unet():
    import diffusers
    model = diffusers.UNet2DModel(
        sample_size=32, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"))
    return Picked(model, lambda m, x, t: m(x, t, return_dict=False)[0])


def dit():
    import diffusers
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, in_channels=4, num_layers=2, sample_size=16,
        num_embeds_ada_norm=10)
    return Picked(model.eval(), lambda m, x, t, c: m(x, t, c, return_dict=False)[0])


def segmenter(kind, **keys):
    import segmentation_models_pytorch
    return getattr(segmentation_models_pytorch, kind)(encoder_name="resnet18",
                                                      encoder_weights=None, **keys)


def deeplab():
    from torchvision.models import mobilenet_v3_small, segmentation
    body = mobilenet_v3_small(weights=None, dilated=True).features
    body = torch.nn.Sequential(*list(body)[:9])
    head = segmentation.deeplabv3.DeepLabHead(48, 5)
    return L.Sequential(body, head)


class Speech(L.Module):
    """Deep Speech 2: convolutions over a spectrogram, then a recurrent network."""

    def __init__(self):
        super().__init__()
        self.conv = L.Sequential(
            L.Conv2d(1, 8, (41, 11), (2, 2), (20, 5)), L.BatchNorm2d(8), L.Hardtanh(0, 20),
            L.Conv2d(8, 8, (21, 11), (2, 1), (10, 5)), L.BatchNorm2d(8), L.Hardtanh(0, 20))
        self.rnn = L.GRU(8 * 41, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.out = L.Linear(128, 29)

    def forward(self, x):
        x = self.conv(x)
        b, c, f, t = x.shape
        return self.out(self.rnn(x.view(b, c * f, t).transpose(1, 2))[0])


class CrossDetector(L.Module):
    """YOLO-like: stages of cross-stage-partial bottlenecks, pooled pyramid, a neck, three heads."""

    class Cell(L.Sequential):
        def __init__(self, i, o, k=1, s=1):
            super().__init__(L.Conv2d(i, o, k, s, k // 2, bias=False), L.BatchNorm2d(o), L.SiLU())

    class Partial(L.Module):
        def __init__(self, i, o, n=1, adds=True):
            super().__init__()
            c = CrossDetector.Cell
            self.a, self.b, self.c = c(i, o // 2), c(i, o // 2), c(o, o)
            self.steps = L.ModuleList(L.Sequential(c(o // 2, o // 2), c(o // 2, o // 2, 3))
                                      for _ in range(n))
            self.adds = adds

        def forward(self, x):
            a = self.a(x)
            for step in self.steps:
                a = a + step(a) if self.adds else step(a)
            return self.c(torch.cat((a, self.b(x)), 1))

    def __init__(self):
        super().__init__()
        c, p = self.Cell, self.Partial
        self.stem, self.s2 = c(3, 16, 3, 2), L.Sequential(c(16, 32, 3, 2), p(32, 32))
        self.s3, self.s4 = L.Sequential(c(32, 48, 3, 2), p(48, 48)), L.Sequential(c(48, 64, 3, 2), p(64, 64))
        self.pre, self.post = c(64, 32), c(128, 64)
        self.up, self.mix3 = L.Upsample(scale_factor=2), p(112, 48, adds=False)
        self.down, self.mix4 = c(48, 48, 3, 2), p(112, 64, adds=False)
        self.heads = L.ModuleList(L.Conv2d(w, 3 * 9, 1) for w in (48, 64))

    def forward(self, x):
        three = self.s3(self.s2(self.stem(x)))
        four = self.pre(self.s4(three))
        pools = [four]
        for _ in range(3):
            pools.append(L.functional.max_pool2d(pools[-1], 5, 1, 2))
        four = self.post(torch.cat(pools, 1))
        three = self.mix3(torch.cat((self.up(four), three), 1))
        four = self.mix4(torch.cat((self.down(three), four), 1))
        out = []
        for head, map_ in zip(self.heads, (three, four)):
            y = head(map_)
            b, _, h, w = y.shape
            out.append(y.view(b, 3, 9, h, w).permute(0, 1, 3, 4, 2).contiguous())
        return tuple(out)


class DeepCross(L.Module):
    """DCN v2: cross layers over joined embeddings beside an MLP."""

    def __init__(self):
        super().__init__()
        self.tables = L.ModuleList(L.Embedding(n, 8) for n in (1000, 500, 200))
        self.crosses = L.ModuleList(L.Linear(37, 37) for _ in range(2))
        self.deep = L.Sequential(L.Linear(37, 64), L.ReLU(), L.Linear(64, 32), L.ReLU())
        self.out = L.Linear(69, 1)

    def forward(self, dense, sparse):
        x = first = torch.cat([dense] + [t(sparse[:, i]) for i, t in enumerate(self.tables)], 1)
        for cross in self.crosses:
            x = first * cross(x) + x
        return self.out(torch.cat([x, self.deep(first)], 1))


def tall(*names):
    return {name: {0: "batch"} for name in names}


def rows(o):
    """`o`: oracle_onnx, with its helpers."""
    tv, tm, hf = o.torchvision_model, o.timm_model, o.transformer
    ids, pictures, pic, text = o.ids, o.pictures, o.PICTURE, o.TEXT
    randn, whole = torch.randn, torch.randint
    two = {"a": {0: "batch", 1: "source"}, "b": {0: "batch", 1: "target"}}
    both = lambda: ids(200, 2, 16) + ids(200, 2, 16)
    small = dict(o.SMALL)
    rows = {
        "t5": (t5, both, two),
        "bart": (bart, both, two),
        "whisper": (whisper, lambda: (randn(2, 16, 100),) + ids(200, 2, 8), tall("a", "b")),
        "wav2vec2": (wav2vec2, lambda: (randn(2, 4000),), {"x": {0: "batch", 1: "samples"}},
                     {"train": False}),
        "deep_speech": (Speech, lambda: (randn(2, 1, 161, 40),), pic),
        "clip": (clip, lambda: (whole(0, 199, (2, 16)), randn(2, 3, 32, 32)), tall("a", "b"),
                 {"couples": True}),
        "detr": (detr, lambda: pictures(64), pic),
        "retinanet": (lambda: detector("retinanet_resnet50_fpn"), lambda: pictures(128), pic,
                      {"train": False, "fixed": True, "moves": False}),
        "ssdlite": (lambda: detector("ssdlite320_mobilenet_v3_large"), lambda: pictures(320), pic,
                    {"train": False, "fixed": True, "moves": False}),
        "ssd300": (lambda: detector("ssd300_vgg16"), lambda: pictures(300), pic,
                   {"train": False, "fixed": True, "moves": False}),
        "fcos": (lambda: detector("fcos_resnet50_fpn"), lambda: pictures(128), pic,
                 {"train": False, "fixed": True, "moves": False}),
        "ssdlite_heads": (lambda: detector("ssdlite320_mobilenet_v3_large", True),
                          lambda: pictures(320), pic),
        "ssd300_heads": (lambda: detector("ssd300_vgg16", True), lambda: pictures(300), pic),
        "retinanet_heads": (lambda: detector("retinanet_resnet50_fpn", True),
                            lambda: pictures(128), pic),
        "yolo_like": (CrossDetector, lambda: pictures(64), pic),
        "conditioned_unet": (conditioned_unet, lambda: (randn(2, 4, 16, 16), whole(0, 100, (2,)),
                                                        randn(2, 7, 32)), tall("x", "t", "e")),
        "denoising_unet": (denoising_unet, lambda: (randn(2, 3, 32, 32), whole(0, 100, (2,))),
                           tall("x", "t")),
        "dit": (dit, lambda: (randn(2, 4, 16, 16), whole(0, 100, (2,)), whole(0, 10, (2,))),
                tall("x", "t", "c"), {"train": False}),
        "unet_resnet18": (lambda: segmenter("Unet"), lambda: pictures(64), pic),
        "fpn_resnet18": (lambda: without_dropout(segmenter("FPN")), lambda: pictures(64), pic),
        "deeplab": (lambda: unmasked(deeplab()), lambda: pictures(64), pic),
        "resnet50": (lambda: tv("resnet50"), lambda: pictures(64), pic),
        "vgg11": (lambda: unmasked(tv("vgg11")), lambda: pictures(224), pic),
        "mixer": (lambda: tm("mixer_s32_224"), lambda: pictures(224), pic),
        "deep_cross": (DeepCross, lambda: (randn(2, 13), whole(0, 200, (2, 3))),
                       tall("dense", "sparse")),
        "electra": (lambda: hf("ElectraForMaskedLM", "ElectraConfig", embedding_size=32,
                               **small, **o.NO_DROPOUT), lambda: ids(200), text),
        "deberta": (lambda: hf("DebertaV2ForMaskedLM", "DebertaV2Config", relative_attention=True,
                               pos_att_type=["p2c", "c2p"], **small, **o.NO_DROPOUT),
                    lambda: ids(200), tall("x"), {"couples": True}),
        "opt": (lambda: hf("OPTForCausalLM", "OPTConfig", hidden_size=64, num_hidden_layers=2,
                           num_attention_heads=4, ffn_dim=128, vocab_size=200, dropout=0.0,
                           word_embed_proj_dim=64), lambda: ids(200), text),
        "llama_sdpa": (lambda: hf("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2,
                                  attn_implementation="sdpa", **small), lambda: ids(200), text),
        "vit_eval_batch1": (lambda: tm("vit_tiny_patch16_224", img_size=64, depth=2),
                            lambda: pictures(64, 1), pic, {"train": False, "fixed": True}),
    }
    base = o.base_models()
    for name in ("bert", "gpt2", "llama", "t5_encoder", "vit", "swin", "resnet18", "unet"):
        rows[name + "_batch1"] = base[name][:1] + (one(base[name][1]),) + base[name][2:3] + (
            {"fixed": True},)
    for name in ("bert", "llama", "gpt2", "vit", "convnext", "unet", "ranker"):
        rows[name + "_dynamo"] = base[name][:3] + ({"dynamo": True, "train": False},)
    rows["convnext_eval"] = base["convnext"][:3] + ({"train": False},)
    for name in ("bert", "llama", "resnet18", "unet"):
        rows[name + "_fixed"] = base[name][:3] + ({"fixed": True},)
    return rows


def without_dropout(model):
    """The exporter knows none of whole channels."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, L.Dropout2d):
                setattr(module, name, L.Identity())
    return model


def one(sample):
    """The first of a batch."""
    return lambda: tuple(x[:1].contiguous() for x in sample())
