#include "step/attention_backend.h"

#include <string_view>

namespace steelyard::step {

namespace {

// get_attention_backend (transformer_engine/pytorch/attention/dot_product_attention/utils.py):
// "Select FusedAttention for performance" from sm90 on.
constexpr double kPrefersCudnn = 9.0;

std::string_view word_of(const facts::FrameworkProfile& profile, const facts::Job& job) {
  constexpr std::string_view kKey = "attention_backend";
  if (job.megatron) {
    const auto own = job.megatron->operators.find(kKey);
    if (own != job.megatron->operators.end()) return own->second;
  }
  const auto entry = profile.operators.find(kKey);
  return entry == profile.operators.end() ? std::string_view("torch") : entry->second;
}

}  // namespace

bool runs_cudnn(const facts::FrameworkProfile& profile, const facts::Job& job,
                const facts::Gpu& gpu) {
  if (job.train.attention == facts::Attention::cudnn) return true;
  return job.train.attention == facts::Attention::flash && word_of(profile, job) == "engine" &&
         gpu.compute_capability && *gpu.compute_capability >= kPrefersCudnn;
}

Result<EngineCopies> engine_copies_of(const facts::FrameworkProfile& profile, const facts::Job& job,
                                      const facts::Gpu& gpu) {
  const std::string_view word = word_of(profile, job);
  if (word == "torch") return EngineCopies::none;
  if (word != "engine" && word != "engine_flash") {
    return fail({ErrorCode::bad_input,
                 "framework profile " + profile.name + ", operators.attention_backend",
                 std::string(word),
                 "torch, engine, engine_flash",
                 "correct the profile in catalog/frameworks",
                 "",
                 {}});
  }
  const bool flash =
      job.train.attention == facts::Attention::flash && !runs_cudnn(profile, job, gpu);
  return flash ? EngineCopies::samples : EngineCopies::pieces;
}

}  // namespace steelyard::step
