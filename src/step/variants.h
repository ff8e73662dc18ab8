// Which variant of each composite operator runs: the framework profile's words, read once.
#pragma once

#include "base/error.h"
#include "facts/constants.h"
#include "facts/job.h"
#include "step/frames.h"
#include "step/tape.h"

namespace steelyard::step {

// fp32 copy, normalise, cast back, scale | the same, cast back last | one kernel | one that writes
// its gradient over the arriving one
enum class RmsNorm { upcast, scaled_wide, native, in_place };
// q*cos + rotate_half(q)*sin | pairs as complex numbers | a kernel that turns q and k where they
// lie | one that makes new ones and keeps its table alone
// q*cos + rotate_half(q)*sin | the same, always joined with the part that does not turn | ...
enum class Rotary { rotate_half, joined, complex, in_place, fused };
// logits.float() in the loss | in the model, then shifted into a copy | both in the loss, beside
// the model's logits | the logits' own type
enum class LossTypes { upcast, upcast_in_model, upcast_shift, upcast_shift_in_loss, native };
// F.cross_entropy | one kernel that keeps the logits themselves | one that writes the gradient into
// them | an fp32 copy that becomes the probabilities and then the gradient | the same compiled in
// parts, which makes one more copy | PyTorch's operators over a vocabulary spread over ranks
enum class CrossEntropy {
  eager,
  fused,
  in_place,
  vocab_parallel,
  vocab_parallel_compiled,
  sharded,
};
// All logits at once | projected in chunks, the loss of each apart (torchtune) | never whole
enum class HeadLoss { whole, chunked, fused };
// repeat_kv before attention | the kernel groups heads | as the family's own code did
enum class KeyValueRepeat { repeat, grouped, by_family };
// the model's own code | SDPA's math kernel | products around a softmax that scales and masks | the
// same with scores widened to fp32 for PyTorch's softmax
enum class MathAttention { eager, sdpa_math, fused_softmax, wide_softmax };
// What a product keeps of tokens gathered from a tensor-parallel group: all | this rank's part
enum class GatheredInput { whole, part };
// A loop that gathers each expert's tokens | tokens sorted by expert and multiplied in groups
enum class Experts { loop, dispatched };
enum class AttentionKernel { flash, efficient, math };
// q, k, v and what norms read go to the kernel as they are | what is a piece of another tensor is
// copied before any kernel | and all goes sample by sample to FlashAttention, its result back
enum class EngineCopies { none, pieces, samples };

// The loss shifts the labels into a copy | they come as the loss reads them
enum class Labels { shifted, given };
// The configuration's own | gelu_new and gelu_fast are F.gelu, not written out | the erf form is
// x * 0.5 * (1.0 + erf(x / 1.41421)) through TorchScript, which keeps three intermediates
enum class GeluCode { as_configured, fused, scripted_erf };
// Made where attention reads one | by the model's code whatever kernel runs
enum class CausalMask { when_read, always };

// torch.utils.checkpoint without reentrance, which ends where the last saved tensor is known | the
// same run to its end | CheckpointFunction, Megatron's and the older default: its frame holds
// result and gradient through the backward of what it computed again
enum class Checkpoint { early_stop, whole, reentrant };

// train.compile: the whole model with its loss | the model, without the loss that its caller
// computes | each layer by itself | the same, and a loss that works in chunks
enum class CompileScope { everything, model, layers, layers_and_chunked_loss };

struct Variants {
  RmsNorm rms_norm = RmsNorm::upcast;
  Rotary rotary = Rotary::rotate_half;
  GeluCode gelu = GeluCode::as_configured;
  // What scripted code (torch.jit) kept for backward lives until the next forward has returned.
  bool scripts_outlive_backward = false;
  bool fused_swiglu = false;  // silu(gate) * up as one kernel
  LossTypes loss = LossTypes::upcast;
  bool widens_logits = true;  // to fp32, where LossTypes does; train.upcast_logits
  CrossEntropy cross_entropy = CrossEntropy::eager;
  HeadLoss head = HeadLoss::whole;
  KeyValueRepeat key_value_repeat = KeyValueRepeat::repeat;
  MathAttention math_attention = MathAttention::eager;
  bool fused_activation = false;     // gate and up of experts through one kernel that saves them
  bool inner_probabilities = false;  // experts' weights go into that kernel, not into their results
  // Biases of experts' second products are added expert by expert, weighted.
  bool adds_expert_bias = false;
  bool adds_by_index = false;  // experts' results return by index_add, which saves them
  // A token goes once to each rank that has experts of it, whose kernels put it where it belongs
  // (DeepEP, HybridEP), not once for each expert.
  bool sends_once = false;
  bool sends_beside = false;      // exchanges run beside the pass of another micro-batch
  bool counts_on_host = false;    // how many tokens each expert got is read before they are sent
  bool fused_expert_mlp = false;  // activation and casts between experts' products are in these
  bool token_buffer = false;      // tokens of all expert ranks are gathered into one lasting buffer
  bool fused_latent_rotary = false;  // multi-latent attention's positions through one kernel
  bool sdpa_math_widens = true;      // to fp32, what scaled_dot_product_attention writes out
  bool score_buffer = false;  // products of scores write beside one buffer that lives for ever
  GatheredInput gathered_input = GatheredInput::whole;
  Experts experts = Experts::loop;
  AttentionKernel attention = AttentionKernel::flash;
  EngineCopies engine_copies = EngineCopies::none;
  ContextCode context = ContextCode::sdpa_all_gather;
  Checkpoint checkpoint = Checkpoint::early_stop;
  CompileScope compiles = CompileScope::everything;
  bool dropout = true;
  bool mean_saves_input = false;
  bool softmax_saves_input = false;
  bool product_saves_both = false;
  bool relu_saves_input = false;
  bool adds_bias = false;  // of a product of more than two dimensions, by a kernel of its own
  // ZeRO-3 and its like wait for what they gather and scatter, instead of doing it beside the work.
  bool sharding_waits = false;
  bool keeps_logits = false;
  // The balancing loss of a router stays on its module until the next forward pass has its own; of
  // a recomputed layer all that was computed before it stays with it.
  bool router_loss_stays = false;
  bool returns_cache = false;      // every decoder layer's keys and values go out with the logits
  bool widens_outputs = false;     // under autocast: accelerate's convert_outputs_to_fp32
  bool gathers_logits = false;     // tensor parallel: the head's parts are joined before the loss
  bool accumulates_whole = false;  // FSDP1 under no_sync(): whole gradients wait for the last pass
  bool accumulates_tensors_whole = false;  // FSDP2 under set_requires_gradient_sync(False): so too
  bool keeps_frozen_units = false;         // FSDP1: gathered until the backward pass of all ends
  enum class EndUnits { root, own, own_when_all_train } end_units = EndUnits::root;  // FSDP2
  bool reshards_root = false;    // FSDP2: the root too, which code may ask for
  bool limits_gathers = true;    // FSDP1: limit_all_gathers
  bool gathers_next = true;      // ... BACKWARD_PRE: backward gathers the next unit beside one
  bool saves_shards = true;      // ... keeps what of a gradient was copied to the host
  bool flattens_on_card = true;  // ZeRO-1/2 join the parameters beside themselves
  bool copies_layers = false;    // layers are copies of one, which is let go then
  bool loss_in_model = true;     // the model's forward() computes the loss, not its caller
  Labels labels = Labels::shifted;
  CausalMask causal_mask = CausalMask::when_read;
  Frames frames = Frames::modules;
  // As recorded with fake tensors: no kernel runs, so none has a workspace, and sums of gradients
  // are new tensors.
  bool fake_tensors = false;
  bool composite_silu_backward = false;  // TapeOptions
  bool master_gradients_last = false;    // fp32 gradients of master weights are zeroed, not freed
  bool functional_lamb = false;          // the step returns parameter and averages as new tensors
  bool flash_result_in_rows = false;     // sample by sample, however the queries lie
  bool foreach_denominator = false;      // foreach Adam: the root and the denominator, two copies
  bool drops_adapter_result = false;     // an adapter's dropout is of its result, not of its input
  bool scales_low_rank = false;          // an adapter's factor is applied between its products

  friend bool operator==(const Variants&, const Variants&) = default;
};

// The profile's words, and what the job's own keys put in their place: train.attention, train.loss,
// train.fused_kernels, parallel.context_method. Errors: a variant that the profile names and nobody
// knows.
[[nodiscard]] Result<Variants> variants_of(const facts::FrameworkProfile& profile,
                                           const facts::TrainKeys& train,
                                           const facts::ParallelKeys& parallel);

}  // namespace steelyard::step
