// Random jobs with a fixed seed, all of which can be planned.
#pragma once

#include <initializer_list>
#include <iterator>
#include <random>
#include <string>

#include "plan/planning.h"

namespace steelyard::plan {

class RandomJobs {
 public:
  explicit RandomJobs(std::uint64_t seed) : generator_(seed) {}

  facts::Job next() {
    SmallModel model;
    model.type = one_of<const char*>({"llama", "mistral", "gpt2"});
    model.hidden = one_of<std::int64_t>({128, 256, 512});
    model.layers = one_of<std::int64_t>({2, 3, 8});
    model.heads = one_of<std::int64_t>({2, 4, 8});
    model.vocabulary = one_of<std::int64_t>({1000, 32000});
    facts::Job job = job_on(one_of<const char*>({"dgx-h100", "dgx-a100-80gb"}),
                            one_of<std::int64_t>({1, 2, 4, 8}));
    job.model.config = config_of(model);
    job.framework = one_of<const char*>({"pytorch", "transformers", "deepspeed"});
    job.train.micro_batch = one_of<std::int64_t>({1, 2, 5});
    job.train.gradient_accumulation = one_of<std::int64_t>({1, 2, 4});
    job.train.sequence_length = one_of<std::int64_t>({64, 200, 1024});
    job.train.precision =
        one_of({facts::Precision::fp32, facts::Precision::tf32, facts::Precision::bf16_mixed,
                facts::Precision::fp16_mixed, facts::Precision::bf16, facts::Precision::fp16});
    job.train.optimizer.name =
        one_of({facts::OptimizerName::adamw, facts::OptimizerName::adamw8bit,
                facts::OptimizerName::adafactor, facts::OptimizerName::lion,
                facts::OptimizerName::sgd, facts::OptimizerName::sgd_momentum});
    job.train.attention =
        one_of({facts::Attention::flash, facts::Attention::efficient, facts::Attention::math});
    job.parallel.sharding =
        one_of({facts::Sharding::none, facts::Sharding::zero1, facts::Sharding::zero2,
                facts::Sharding::zero3, facts::Sharding::fsdp, facts::Sharding::fsdp1,
                facts::Sharding::hsdp, facts::Sharding::shard_grad_op});
    // DeepSpeed's reduce buckets are as large as they are, however small the model: here they are
    // smaller than every model, as they are in a job that somebody would shard.
    job.parallel.buckets = {1e5, 1e5};
    if (one_of({false, true})) job.train.recompute.mode = facts::RecomputeMode::full;
    return job;
  }

 private:
  template <class T>
  T one_of(std::initializer_list<T> choices) {
    std::uniform_int_distribution<std::size_t> index(0, choices.size() - 1);
    return *std::next(choices.begin(), static_cast<std::ptrdiff_t>(index(generator_)));
  }
  std::mt19937_64 generator_;
};

inline std::string words(const facts::Job& job) {
  const facts::Value& config = std::get<facts::Value>(job.model.config);
  std::string text = *config.find("model_type")->as_text();
  for (const char* key : {"hidden_size", "n_embd", "num_hidden_layers", "n_layer", "vocab_size"}) {
    if (const auto* value = config.find(key)) text += " " + std::to_string(*value->as_whole());
  }
  for (const std::string_view part :
       {std::string_view(job.framework), facts::name_of(job.train.precision),
        facts::name_of(job.train.optimizer.name), facts::name_of(job.parallel.sharding),
        facts::name_of(job.train.attention), facts::name_of(job.train.recompute.mode)}) {
    text += ", " + std::string(part);
  }
  return text + ", " + std::to_string(*job.machine.gpus) + " GPUs, " +
         std::to_string(*job.train.gradient_accumulation) + " x " +
         std::to_string(*job.train.micro_batch) + " x " +
         std::to_string(*job.train.sequence_length);
}

}  // namespace steelyard::plan
