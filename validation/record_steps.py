"""Training steps that record_vram.py measures: models, batches, loops and memory meters.

Everything that needs torch is here. A job is what a job file says (design: one table per part); the loop is the
plain one that the profile `pytorch` (of timm's models: `timm`) describes, written the way people write it, because
what a loop's variables keep alive is part of what is measured.
"""
import contextlib
import gc
import weakref

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

TEXT, MASKED, PICTURES, NOISE = "text", "masked", "pictures", "noise"
KINDS = {
    "bert": MASKED, "roberta": MASKED, "distilbert": MASKED,
    "vit": PICTURES, "deit": PICTURES, "resnet": PICTURES, "timm_vision_transformer": PICTURES,
    "timm_resnet": PICTURES, "torchvision_resnet": PICTURES, "unet": NOISE,
}
SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}


class CannotRun(Exception):
    """The job needs a library or a device that is not here; the message says which."""


def kind_of(config):
    if config.get("_class_name") == "UNet2DConditionModel":
        return NOISE
    return KINDS.get(config["model_type"], TEXT)


# ------------------------------------------------------------------------------------------------ models
def _transformers_model(config, train):
    import transformers

    options = dict(config)
    name = options.pop("model_type")
    options.pop("architectures", None)
    resolved = transformers.AutoConfig.for_model(name, **options)
    resolved.use_cache = False  # else `outputs` keeps every layer's keys and values
    attention = "eager" if train.get("attention", "flash") == "math" else "sdpa"
    classes = {TEXT: transformers.AutoModelForCausalLM, MASKED: transformers.AutoModelForMaskedLM,
               PICTURES: transformers.AutoModelForImageClassification}
    kind = KINDS.get(name, TEXT)
    if name == "deit":  # the automatic class cannot tell it from the one with a teacher
        return transformers.DeiTForImageClassification._from_config(resolved, attn_implementation=attention)
    if name == "resnet":
        return classes[kind].from_config(resolved)
    return classes[kind].from_config(resolved, attn_implementation=attention)


def _picture_model(config):
    options = {k: v for k, v in config.items() if k != "model_type"}
    name = config["model_type"]
    if name == "timm_vision_transformer":
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(**options)
    if name == "timm_resnet":
        from timm.models.resnet import BasicBlock, Bottleneck, ResNet
    else:
        from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
    block = BasicBlock if options.pop("block", "bottleneck") == "basic" else Bottleneck
    return ResNet(block, **options)


def build_model(job):
    """The model of a job with random weights, on the default device."""
    config, train = job["model"]["config"], job["train"]
    try:
        if kind_of(config) == NOISE:
            from diffusers import UNet2DConditionModel

            return UNet2DConditionModel.from_config(config)
        if config["model_type"].startswith(("timm_", "torchvision_")):
            return _picture_model(config)
        return _transformers_model(config, train)
    except ImportError as missing:
        raise CannotRun(f"{missing.name} is not installed") from missing


def add_adapters(model, train):
    try:
        import peft
    except ImportError as missing:
        raise CannotRun("peft is not installed") from missing
    lora = train.get("lora", {})
    return peft.get_peft_model(model, peft.LoraConfig(
        r=lora.get("rank", 8), target_modules=list(lora["targets"]), lora_dropout=lora.get("dropout", 0.0)),
        autocast_adapter_dtype=False)


def quantize(model, train, device):
    """Linears other than the head held in 4 or 8 bits (bitsandbytes quantizes on the way to a GPU)."""
    if device != "cuda":
        raise CannotRun("bitsandbytes quantizes on a GPU")
    try:
        import bitsandbytes as bnb
    except ImportError as missing:
        raise CannotRun("bitsandbytes is not installed") from missing
    how = train["base_quantization"]
    for name, module in list(model.named_modules()):
        if not isinstance(module, torch.nn.Linear) or name.endswith("lm_head"):
            continue
        if how == "int8":
            small = bnb.nn.Linear8bitLt(module.in_features, module.out_features, module.bias is not None,
                                        has_fp16_weights=False)
        else:
            small = bnb.nn.Linear4bit(module.in_features, module.out_features, module.bias is not None,
                                      compute_dtype=torch.bfloat16, quant_type=how.split("-")[0],
                                      compress_statistics=how.endswith("-dq"))
        small.load_state_dict(module.state_dict(), strict=False)
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, small)
    return model


def prepare(job, device):
    """The model as it trains: placed, typed, with recomputation, adapters, compiled."""
    train = job["train"]
    precision = train.get("precision", "bf16-mixed")
    method = train.get("method", "full")
    # fake tensors are born where they live: a copy to the device would be counted as a second birth
    with torch.device("cuda") if device == "fake" else contextlib.nullcontext():
        torch.set_default_dtype(SHORT.get(precision, torch.float32))
        try:
            model = build_model(job)
        finally:
            torch.set_default_dtype(torch.float32)
        model.train()
        if method != "full":
            model.requires_grad_(False)
        if method == "qlora":
            model = quantize(model, train, device)
        if device == "cuda":
            model = model.to("cuda")
        if train.get("memory_format") == "channels_last":
            model = model.to(memory_format=torch.channels_last)
        if train.get("recompute", "none") == "full":
            turn_on_recomputation(model)
        if method != "full":
            model = add_adapters(model, train)
            if precision in SHORT:
                model = model.to(SHORT[precision]) if method == "lora" else model
            if device == "cuda":
                model = model.to("cuda")
    if train.get("compile"):
        if device == "fake":
            raise CannotRun("compiled code has no fake tensors")
        model = torch.compile(model)
    return model


def turn_on_recomputation(model):
    if hasattr(model, "gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(model, "set_grad_checkpointing"):
        model.set_grad_checkpointing(True)
    else:
        raise CannotRun("this model does not recompute")


def make_optimizer(model, train, device):
    keys = train.get("optimizer", "adamw")
    keys = {"name": keys} if isinstance(keys, str) else dict(keys)
    params = [p for p in model.parameters() if p.requires_grad]
    how = {k: keys[k] for k in ("fused", "foreach") if k in keys}
    if device != "cpu" and not how:
        how = {"foreach": True}
    if device == "cpu":
        how.pop("fused", None)
    name = keys["name"]
    if name == "adamw":
        return torch.optim.AdamW(params, lr=1e-4, **how)
    if name == "adam":
        return torch.optim.Adam(params, lr=1e-4, **how)
    if name in ("sgd", "sgd-momentum"):
        return torch.optim.SGD(params, lr=1e-4, momentum=0.9 if name == "sgd-momentum" else 0.0, **how)
    if name == "adafactor":
        return torch.optim.Adafactor(params, lr=1e-4)
    if name == "rmsprop":
        return torch.optim.RMSprop(params, lr=1e-4, **how)
    if device != "cuda":
        raise CannotRun("bitsandbytes steps on a GPU")
    try:
        import bitsandbytes as bnb
    except ImportError as missing:
        raise CannotRun("bitsandbytes is not installed") from missing
    made = {"adamw8bit": bnb.optim.AdamW8bit, "paged-adamw": bnb.optim.PagedAdamW32bit,
            "paged-adamw8bit": bnb.optim.PagedAdamW8bit, "lion": bnb.optim.Lion32bit}
    return made[name](params, lr=1e-4)


# ------------------------------------------------------------------------------------------------ batches, losses
def draw_batch(job, device):
    config, train = job["model"]["config"], job["train"]
    count = train["micro_batch"]
    to = {"device": "cuda" if device == "fake" else device}
    dtype = SHORT.get(train.get("precision", "bf16-mixed"), torch.float32)

    def numbers(below, *shape):
        return torch.zeros(*shape, dtype=torch.long, **to) if device == "fake" else torch.randint(below, shape, **to)

    def reals(*shape):
        return torch.empty(*shape, dtype=dtype, **to) if device == "fake" else torch.randn(*shape, dtype=dtype, **to)

    kind = kind_of(config)
    if kind in (TEXT, MASKED):
        shape = (count, train["sequence_length"])
        batch = {"input_ids": numbers(config["vocab_size"], *shape)}
        if kind == MASKED:  # what a tokenizer brings
            batch["attention_mask"] = torch.ones(shape, dtype=torch.long, **to)
            if config["model_type"] != "distilbert":
                batch["token_type_ids"] = torch.zeros(shape, dtype=torch.long, **to)
        return {**batch, "labels": numbers(config["vocab_size"], *shape)}
    height, width = train["image_size"]
    if kind == PICTURES:
        classes = config.get("num_labels", config.get("num_classes", 2))
        return {"pixel_values": reals(count, 3, height, width), "labels": numbers(classes, count)}
    latent = (count, 4, height // 8, width // 8)
    return {"sample": reals(*latent), "timestep": numbers(1000, count),
            "encoder_hidden_states": reals(count, 77, config["cross_attention_dim"]), "target": reals(*latent)}


def forward(model, batch):
    """What the loop keeps of a forward pass: outputs and the loss."""
    if "sample" in batch:
        outputs = model(batch["sample"], batch["timestep"], batch["encoder_hidden_states"]).sample
        return outputs, F.mse_loss(outputs.float(), batch["target"].float())
    if not hasattr(model, "config"):
        outputs = model(batch["pixel_values"])
        return outputs, F.cross_entropy(outputs, batch["labels"])
    outputs = model(**batch)
    return outputs, outputs.loss


# ------------------------------------------------------------------------------------------------ meters
class StorageMeter(TorchDispatchMode):
    """Live bytes of storages, each rounded up to 512, counted at the operators: for the CPU and for fake tensors."""

    def __init__(self, device):
        super().__init__()
        self.fake = device == "fake"
        self.device = "cuda" if self.fake else device
        self.live, self.allocated, self.peak, self.peak_at = {}, 0, 0, "start"

    def _gone(self, key):
        self.allocated -= self.live.pop(key, 0)

    def see(self, tensor, at):
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = (int(storage.nbytes()) + 511) // 512 * 512
        self.allocated += self.live[key]
        weakref.finalize(storage, self._gone, key)
        if self.allocated > self.peak:
            self.peak, self.peak_at = self.allocated, at

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.fake and func is torch.ops.aten._local_scalar_dense.default:
            # a fake tensor has no value: masks on the card are all true, everything else is nought or one
            if args[0].dtype is torch.bool:
                return args[0].device.type == self.device
            return 1.0 if args[0].is_floating_point() and args[0].device.type == "cpu" else 0
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            self.see(tensor, str(func))
        return out

    def read(self):
        if self.device == "cpu":
            gc.collect()
        figures = {"allocated": self.allocated, "allocated_peak": self.peak, "peak_at": self.peak_at}
        self.peak, self.peak_at = self.allocated, "start"
        return figures


class CudaMeter(contextlib.nullcontext):
    """The caching allocator's counters, and what NVML says of the whole card."""

    def __init__(self):
        super().__init__()
        try:
            import pynvml

            pynvml.nvmlInit()
            self.nvml, self.card = pynvml, pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
            self.before = pynvml.nvmlDeviceGetMemoryInfo(self.card).used
        except ImportError:
            self.nvml = None

    def read(self):
        torch.cuda.synchronize()
        figures = {"allocated": torch.cuda.memory_allocated(), "allocated_peak": torch.cuda.max_memory_allocated(),
                   "reserved": torch.cuda.memory_reserved(), "reserved_peak": torch.cuda.max_memory_reserved()}
        if self.nvml is not None:
            # less what other processes held before this one made its context
            figures["device_used"] = self.nvml.nvmlDeviceGetMemoryInfo(self.card).used - self.before
        torch.cuda.reset_peak_memory_stats()
        return figures


# ------------------------------------------------------------------------------------------------ the step
def attention_backend(train, device):
    if device != "cuda" or train.get("attention", "flash") == "math":
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel({"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
                        "cudnn": SDPBackend.CUDNN_ATTENTION}[train.get("attention", "flash")])


def record(job, device, steps):
    """Phases of `steps` optimizer steps: [{"step", "phase", "allocated", "allocated_peak", ...}]."""
    train = job["train"]
    mixed = train.get("precision", "bf16-mixed").endswith("-mixed")
    short = torch.float16 if train.get("precision", "").startswith("fp16") else torch.bfloat16
    meter = CudaMeter() if device == "cuda" else StorageMeter(device)
    phases = []

    def mark(step, phase):
        phases.append({"step": step, "phase": phase, **meter.read()})

    kind = "cuda" if device == "fake" else device
    accumulation = train.get("gradient_accumulation", 1)

    def optimizer_step(step):
        for _ in range(accumulation):
            with torch.autocast(kind, dtype=short, enabled=mixed):
                outputs, loss = forward(model, batch)
            mark(step, "forward")
            scaled = loss / accumulation if accumulation > 1 else loss
            (scaler.scale(scaled) if scaler else scaled).backward()
            mark(step, "backward")
        if train.get("gradient_clipping", True):
            if scaler:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            mark(step, "clip")
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        mark(step, "optimizer")
        optimizer.zero_grad(set_to_none=True)
        return outputs  # until here the loop's variables hold them

    with meter, attention_backend(train, device):
        model = prepare(job, device)
        optimizer = make_optimizer(model, train, device)
        scaler = torch.amp.GradScaler("cuda") if device == "cuda" and mixed and short is torch.float16 else None
        batch = draw_batch(job, device)
        mark(-1, "setup")
        for step in range(steps):
            optimizer_step(step)
            mark(step, "zero_grad")
    return phases


# ------------------------------------------------------------------------------------------------ fake tensors
def fake_attention(kernel):
    """scaled_dot_product_attention without the choice of a kernel, which asks for a real card."""
    ops = torch.ops.aten

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        if torch.is_autocast_enabled("cuda"):
            q, k, v = (t.to(torch.get_autocast_dtype("cuda")) for t in (q, k, v))
        if kernel == "flash" and attn_mask is None:
            return ops._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, False, scale=scale)[0]
        return ops._scaled_dot_product_efficient_attention(
            q, k, v, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale)[0]

    return attention


def record_fake(job, steps, guard):
    """The same loop over FakeTensorMode's CUDA tensors: CUDA's dispatch at full size, no data, no GPU. `guard` is a
    library that registers a device guard for CUDA (a torch built for CUDA finds no card otherwise)."""
    import ctypes

    from torch._subclasses.fake_tensor import FakeTensorMode

    ctypes.CDLL(guard, mode=ctypes.RTLD_GLOBAL)
    for module in ("adam", "adamw"):
        vars(__import__("torch.optim." + module, fromlist=["x"]))["_get_value"] = lambda x: 1.0
    torch.backends.cudnn.enabled = False  # its choice of a kernel asks for a real card
    torch.cuda.is_bf16_supported = lambda *a, **k: True
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    with contextlib.suppress(ImportError):  # which asks for the values of position ids
        from transformers import masking_utils

        masking_utils.find_packed_sequence_indices = lambda position_ids: None
    F.scaled_dot_product_attention = fake_attention(job["train"].get("attention", "flash"))
    with FakeTensorMode():
        return record(job, "fake", steps)
