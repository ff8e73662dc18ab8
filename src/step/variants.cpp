#include "step/variants.h"

#include <array>
#include <optional>
#include <string_view>
#include <utility>

namespace steelyard::step {

namespace {

template <class Enum>
using Words = std::initializer_list<std::pair<std::string_view, Enum>>;

template <class Enum>
Result<Enum> read(const facts::FrameworkProfile& profile, std::string_view composite,
                  Enum otherwise, Words<Enum> words) {
  const auto entry = profile.operators.find(composite);
  if (entry == profile.operators.end()) return otherwise;
  std::string accepted;
  for (const auto& [word, value] : words) {
    if (word == entry->second) return value;
    accepted += (accepted.empty() ? "" : ", ") + std::string(word);
  }
  return fail({ErrorCode::bad_input,
               "framework profile " + profile.name + ", operators." + std::string(composite),
               entry->second,
               accepted,
               "correct the profile in catalog/frameworks",
               "",
               {}});
}

struct LossWord {
  LossTypes types = LossTypes::upcast;
  CrossEntropy kernel = CrossEntropy::eager;
};

void apply(const facts::TrainKeys& train, Variants& v) {
  switch (train.attention) {
    case facts::Attention::flash:
    case facts::Attention::cudnn: v.attention = AttentionKernel::flash; break;
    case facts::Attention::efficient: v.attention = AttentionKernel::efficient; break;
    case facts::Attention::math: v.attention = AttentionKernel::math; break;
    case facts::Attention::sdpa_math:
      v.attention = AttentionKernel::math;
      v.math_attention = MathAttention::sdpa_math;
      break;
  }
  v.returns_cache = train.use_cache;
  v.widens_logits = train.upcast_logits.value_or(true);
  if (train.upcast_logits.value_or(false) && v.loss == LossTypes::native) {
    v.loss = LossTypes::upcast;
  }
  v.loss_in_model = train.loss_in_model.value_or(v.loss_in_model);
  switch (train.loss) {
    case facts::Loss::full: v.head = HeadLoss::whole; break;
    case facts::Loss::chunked: v.head = HeadLoss::chunked; break;
    case facts::Loss::fused: v.head = HeadLoss::fused; break;
  }
  for (const facts::FusedKernel kernel : train.fused_kernels) {
    switch (kernel) {
      case facts::FusedKernel::rmsnorm: v.rms_norm = RmsNorm::in_place; break;
      case facts::FusedKernel::rope: v.rotary = Rotary::in_place; break;
      case facts::FusedKernel::swiglu: v.fused_swiglu = true; break;
      case facts::FusedKernel::cross_entropy: v.cross_entropy = CrossEntropy::in_place; break;
      case facts::FusedKernel::lora:
      case facts::FusedKernel::moe: break;  // words of the profile (adapters.cpp, step.cpp)
    }
  }
}

// A loop's own loss is outside of what torch.compile(model) compiles.
Result<void> read_scope(const facts::FrameworkProfile& profile, const facts::TrainKeys& train,
                        Variants& v) {
  STEELYARD_TRY(
      compiles,
      read<CompileScope>(profile, "compile", v.compiles,
                         {{"everything", CompileScope::everything},
                          {"model", CompileScope::model},
                          {"layers", CompileScope::layers},
                          {"layers_and_chunked_loss", CompileScope::layers_and_chunked_loss}}));
  v.compiles = compiles;
  const bool own_loss = !train.loss_in_model.value_or(true) && !profile.always_compiled;
  if (own_loss && compiles == CompileScope::everything) v.compiles = CompileScope::model;
  return {};
}

// PyTorch rotates by all-gather, Transformer Engine by a ring, unless the job says otherwise.
Result<void> read_context(const facts::FrameworkProfile& profile,
                          const facts::ParallelKeys& parallel, Variants& v) {
  STEELYARD_TRY(engine, read<bool>(profile, "context", false, {{"sdpa", false}, {"engine", true}}));
  const facts::ContextMethod own =
      engine ? facts::ContextMethod::ring : facts::ContextMethod::all_gather;
  const bool ring = parallel.context_method.value_or(own) == facts::ContextMethod::ring;
  if (engine) {
    v.context = ring ? ContextCode::engine_ring : ContextCode::engine_all_gather;
  } else {
    v.context = ring ? ContextCode::sdpa_ring : ContextCode::sdpa_all_gather;
  }
  return {};
}

// A loss in chunks holds all of them until backward, or computes the gradients of each at once.
Result<void> read_chunks(const facts::FrameworkProfile& profile, const facts::TrainKeys& train,
                         Variants& v) {
  STEELYARD_TRY(at_once, read<bool>(profile, "chunked_loss", false,
                                    {{"until_backward", false}, {"gradients_at_once", true}}));
  if (train.loss == facts::Loss::chunked && at_once) v.head = HeadLoss::fused;
  return {};
}

// The loss of logits whose vocabulary is spread over tensor-parallel ranks.
Result<void> read_spread_loss(const facts::FrameworkProfile& profile,
                              const facts::ParallelKeys& parallel, Variants& v) {
  enum class Kind { as_it_is, sharded, gathered };
  STEELYARD_TRY(kind, read<Kind>(profile, "parallel_loss", Kind::as_it_is,
                                 {{"sharded", Kind::sharded},
                                  {"gathered", Kind::gathered},
                                  {"as_it_is", Kind::as_it_is}}));
  if (parallel.tensor == 1) return {};
  if (kind == Kind::sharded) v.cross_entropy = CrossEntropy::sharded;
  v.gathers_logits = kind == Kind::gathered;
  return {};
}

Result<void> read_sharding(const facts::FrameworkProfile& profile, Variants& v) {
  STEELYARD_TRY(whole, read<bool>(profile, "sharded_accumulation", v.accumulates_whole,
                                  {{"reduced", false}, {"whole", true}}));
  v.accumulates_whole = whole;
  STEELYARD_TRY(tensors, read<bool>(profile, "tensor_accumulation", v.accumulates_tensors_whole,
                                    {{"reduced", false}, {"whole", true}}));
  v.accumulates_tensors_whole = tensors;
  STEELYARD_TRY(on_card, read<bool>(profile, "zero_flattening", v.flattens_on_card,
                                    {{"on_card", true}, {"on_host", false}}));
  v.flattens_on_card = on_card;
  STEELYARD_TRY(stays, read<bool>(profile, "frozen_units", v.keeps_frozen_units,
                                  {{"resharded", false}, {"gathered", true}}));
  v.keeps_frozen_units = stays;
  using EndUnits = Variants::EndUnits;
  STEELYARD_TRY(ends, read<EndUnits>(profile, "end_units", v.end_units,
                                     {{"root", EndUnits::root},
                                      {"own", EndUnits::own},
                                      {"own_when_all_train", EndUnits::own_when_all_train}}));
  v.end_units = ends;
  STEELYARD_TRY(root, read<bool>(profile, "root_unit", v.reshards_root,
                                 {{"stays_gathered", false}, {"resharded", true}}));
  v.reshards_root = root;
  STEELYARD_TRY(limited, read<bool>(profile, "gathers_ahead", v.limits_gathers,
                                    {{"two_units", true}, {"unlimited", false}}));
  v.limits_gathers = limited;
  STEELYARD_TRY(next, read<bool>(profile, "backward_gathers", v.gathers_next,
                                 {{"ahead", true}, {"in_turn", false}}));
  v.gathers_next = next;
  STEELYARD_TRY(saved, read<bool>(profile, "offloaded_shards", v.saves_shards,
                                  {{"saved", true}, {"let_go", false}}));
  v.saves_shards = saved;
  STEELYARD_TRY(copies, read<bool>(profile, "building", v.copies_layers,
                                   {{"in_place", false}, {"copies", true}}));
  v.copies_layers = copies;
  STEELYARD_TRY(waits, read<bool>(profile, "sharding_time", v.sharding_waits,
                                  {{"waited_for", true}, {"beside_work", false}}));
  v.sharding_waits = waits;
  return {};
}

// Where the loss is computed, and what becomes of the outputs.
Result<void> read_outputs(const facts::FrameworkProfile& profile, Variants& v) {
  STEELYARD_TRY(in_model, read<bool>(profile, "loss_place", v.loss_in_model,
                                     {{"in_model", true}, {"outside", false}}));
  v.loss_in_model = in_model;
  STEELYARD_TRY(gelu, read<GeluCode>(profile, "gelu", v.gelu,
                                     {{"as_configured", GeluCode::as_configured},
                                      {"fused", GeluCode::fused},
                                      {"scripted_erf", GeluCode::scripted_erf}}));
  v.gelu = gelu;
  STEELYARD_TRY(widens, read<bool>(profile, "autocast_outputs", v.widens_outputs,
                                   {{"as_they_are", false}, {"fp32", true}}));
  v.widens_outputs = widens;
  return {};
}

// What operators save for backward that later versions do without.
Result<void> read_kept(const facts::FrameworkProfile& profile, Variants& v) {
  STEELYARD_TRY(mean, read<bool>(profile, "mean", v.mean_saves_input,
                                 {{"saves_input", true}, {"saves_nothing", false}}));
  STEELYARD_TRY(softmax, read<bool>(profile, "softmax", v.softmax_saves_input,
                                    {{"saves_input", true}, {"saves_result", false}}));
  STEELYARD_TRY(products, read<bool>(profile, "product", v.product_saves_both,
                                     {{"saves_both", true}, {"saves_needed", false}}));
  v.product_saves_both = products;
  STEELYARD_TRY(relu, read<bool>(profile, "relu", v.relu_saves_input,
                                 {{"saves_input", true}, {"saves_result", false}}));
  v.relu_saves_input = relu;
  STEELYARD_TRY(outlive, read<bool>(profile, "scripts", v.scripts_outlive_backward,
                                    {{"outlive_backward", true}, {"released", false}}));
  v.scripts_outlive_backward = outlive;
  STEELYARD_TRY(masters, read<bool>(profile, "master_gradients", v.master_gradients_last,
                                    {{"lasting", true}, {"of_the_step", false}}));
  v.master_gradients_last = masters;
  STEELYARD_TRY(lamb, read<bool>(profile, "lamb", v.functional_lamb,
                                 {{"functional", true}, {"in_place", false}}));
  v.functional_lamb = lamb;
  STEELYARD_TRY(denominator, read<bool>(profile, "foreach_adam", v.foreach_denominator,
                                        {{"two_copies", true}, {"one_copy", false}}));
  v.foreach_denominator = denominator;
  STEELYARD_TRY(dropped, read<bool>(profile, "lora_dropped", v.drops_adapter_result,
                                    {{"result", true}, {"input", false}}));
  v.drops_adapter_result = dropped;
  STEELYARD_TRY(scaled, read<bool>(profile, "lora_scaled", v.scales_low_rank,
                                   {{"low_rank", true}, {"result", false}}));
  v.scales_low_rank = scaled;
  STEELYARD_TRY(rows, read<bool>(profile, "flash_result", v.flash_result_in_rows,
                                 {{"in_rows", true}, {"as_queries", false}}));
  v.flash_result_in_rows = rows;
  STEELYARD_TRY(math, read<bool>(profile, "sdpa_math", v.sdpa_math_widens,
                                 {{"widened", true}, {"own_type", false}}));
  v.sdpa_math_widens = math;
  STEELYARD_TRY(router, read<bool>(profile, "router_loss", v.router_loss_stays,
                                   {{"on_module", true}, {"returned", false}}));
  v.router_loss_stays = router;
  STEELYARD_TRY(bias, read<bool>(profile, "linear_bias", v.adds_bias,
                                 {{"added", true}, {"in_product", false}}));
  v.adds_bias = bias;
  v.mean_saves_input = mean;
  v.softmax_saves_input = softmax;
  return {};
}

// What experts keep, and the buffers that attention and experts share.
Result<void> read_experts(const facts::FrameworkProfile& profile, Variants& v) {
  STEELYARD_TRY(fused_activation, read<bool>(profile, "expert_activation", v.fused_activation,
                                             {{"fused", true}, {"separate", false}}));
  STEELYARD_TRY(inner, read<bool>(profile, "expert_probabilities", v.inner_probabilities,
                                  {{"activation", true}, {"result", false}}));
  STEELYARD_TRY(adds_by_index, read<bool>(profile, "unpermute", v.adds_by_index,
                                          {{"index_add", true}, {"scatter_add", false}}));
  STEELYARD_TRY(token_buffer, read<bool>(profile, "gathered_tokens", v.token_buffer,
                                         {{"global_buffer", true}, {"own", false}}));
  STEELYARD_TRY(score_buffer, read<bool>(profile, "attention_scores", v.score_buffer,
                                         {{"global_buffer", true}, {"own", false}}));
  STEELYARD_TRY(latent_rotary, read<bool>(profile, "latent_rotary", v.fused_latent_rotary,
                                          {{"fused", true}, {"separate", false}}));
  STEELYARD_TRY(once, read<bool>(profile, "exchanges", v.sends_once,
                                 {{"by_rank", true}, {"by_expert", false}}));
  STEELYARD_TRY(beside, read<bool>(profile, "exchange_time", v.sends_beside,
                                   {{"beside_other_pass", true}, {"alone", false}}));
  STEELYARD_TRY(one_kernel, read<bool>(profile, "expert_mlp", v.fused_expert_mlp,
                                       {{"fused_products", true}, {"apart", false}}));
  STEELYARD_TRY(bias, read<bool>(profile, "expert_bias", v.adds_expert_bias,
                                 {{"added", true}, {"none", false}}));
  STEELYARD_TRY(counts, read<bool>(profile, "expert_counts", v.counts_on_host,
                                   {{"read_by_host", true}, {"on_card", false}}));
  v.adds_expert_bias = bias;
  v.counts_on_host = counts;
  v.sends_once = once;
  v.sends_beside = beside;
  v.fused_expert_mlp = one_kernel;
  v.fused_latent_rotary = latent_rotary;
  v.fused_activation = fused_activation;
  v.inner_probabilities = inner;
  v.adds_by_index = adds_by_index;
  v.token_buffer = token_buffer;
  v.score_buffer = score_buffer;
  return {};
}

}  // namespace

Result<Variants> variants_of(const facts::FrameworkProfile& profile, const facts::TrainKeys& train,
                             const facts::ParallelKeys& parallel) {
  Variants v;
  STEELYARD_TRY(rms_norm, read<RmsNorm>(profile, "rms_norm", v.rms_norm,
                                        {{"upcast", RmsNorm::upcast},
                                         {"scaled_wide", RmsNorm::scaled_wide},
                                         {"native", RmsNorm::native}}));
  STEELYARD_TRY(rotary, read<Rotary>(profile, "rotary", v.rotary,
                                     {{"rotate_half", Rotary::rotate_half},
                                      {"joined", Rotary::joined},
                                      {"complex", Rotary::complex},
                                      {"fused", Rotary::fused}}));
  STEELYARD_TRY(
      loss,
      read<LossWord>(
          profile, "loss", LossWord{},
          {{"upcast", {LossTypes::upcast, CrossEntropy::eager}},
           {"upcast_in_model", {LossTypes::upcast_in_model, CrossEntropy::eager}},
           {"upcast_shift", {LossTypes::upcast_shift, CrossEntropy::eager}},
           {"upcast_shift_in_loss", {LossTypes::upcast_shift_in_loss, CrossEntropy::eager}},
           {"native", {LossTypes::native, CrossEntropy::eager}},
           {"fused", {LossTypes::native, CrossEntropy::fused}},
           {"vocab_parallel", {LossTypes::native, CrossEntropy::vocab_parallel}},
           // Megatron-LM before core 0.8 subtracts the maximum into a copy of wide logits that its
           // caller holds: as many tensors as the compiled one has.
           {"vocab_parallel_copied", {LossTypes::native, CrossEntropy::vocab_parallel_compiled}},
           {"vocab_parallel_compiled", {LossTypes::native, CrossEntropy::vocab_parallel_compiled}},
           {"in_place", {LossTypes::native, CrossEntropy::in_place}}}));
  STEELYARD_TRY(repeat, read<KeyValueRepeat>(profile, "key_value_repeat", v.key_value_repeat,
                                             {{"repeat", KeyValueRepeat::repeat},
                                              {"grouped", KeyValueRepeat::grouped},
                                              {"by_family", KeyValueRepeat::by_family}}));
  STEELYARD_TRY(math, read<MathAttention>(profile, "math_attention", v.math_attention,
                                          {{"eager", MathAttention::eager},
                                           {"sdpa_math", MathAttention::sdpa_math},
                                           {"fused_softmax", MathAttention::fused_softmax},
                                           {"wide_softmax", MathAttention::wide_softmax}}));
  STEELYARD_TRY(checkpoint, read<Checkpoint>(profile, "checkpoint", v.checkpoint,
                                             {{"early_stop", Checkpoint::early_stop},
                                              {"whole", Checkpoint::whole},
                                              {"reentrant", Checkpoint::reentrant}}));
  STEELYARD_CHECK(read_experts(profile, v));
  STEELYARD_CHECK(read_kept(profile, v));
  STEELYARD_TRY(experts,
                read<Experts>(profile, "experts", v.experts,
                              {{"loop", Experts::loop}, {"dispatched", Experts::dispatched}}));
  v.experts = experts;
  STEELYARD_TRY(gathered, read<GatheredInput>(
                              profile, "gathered_input", v.gathered_input,
                              {{"whole", GatheredInput::whole}, {"part", GatheredInput::part}}));
  v.gathered_input = gathered;
  v.rms_norm = rms_norm;
  v.rotary = rotary;
  v.loss = loss.types;
  v.cross_entropy = loss.kernel;
  v.key_value_repeat = repeat;
  v.math_attention = math;
  v.checkpoint = checkpoint;
  v.dropout = profile.dropout;
  v.keeps_logits = train.keep_logits.value_or(profile.keeps_logits) ||
                   (profile.pipeline_returns_logits && parallel.pipeline > 1);
  STEELYARD_CHECK(read_outputs(profile, v));
  STEELYARD_CHECK(read_sharding(profile, v));
  STEELYARD_CHECK(read_context(profile, parallel, v));
  STEELYARD_CHECK(read_spread_loss(profile, parallel, v));
  apply(train, v);
  STEELYARD_CHECK(read_scope(profile, train, v));
  STEELYARD_CHECK(read_chunks(profile, train, v));
  return v;
}

}  // namespace steelyard::step
