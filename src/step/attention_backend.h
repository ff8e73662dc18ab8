// Which library's kernel "flash" stands for on a card, and what the code around it copies: the word
// `attention_backend` of a framework's profile.
//
//   torch         what PyTorch's operator chooses; q, k and v go to it as they are
//   engine        Transformer Engine: cuDNN's fused attention from Hopper on, else FlashAttention
//   engine_flash  the same, told to take FlashAttention (NVTE_FUSED_ATTN=0, --attention-backend)
#pragma once

#include "facts/constants.h"
#include "facts/job.h"
#include "facts/machine.h"
#include "step/variants.h"

namespace steelyard::step {

// With the words that the job's import lays over the profile's. Errors: a word that nobody knows.
[[nodiscard]] Result<EngineCopies> engine_copies_of(const facts::FrameworkProfile& profile,
                                                    const facts::Job& job, const facts::Gpu& gpu);

// Whether attention runs cuDNN's kernels; false for words that nobody knows.
[[nodiscard]] bool runs_cudnn(const facts::FrameworkProfile& profile, const facts::Job& job,
                              const facts::Gpu& gpu);

}  // namespace steelyard::step
