// Jobs on the repository's own catalogue, planned; small models so that a test plans hundreds.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "catalog/catalog.h"
#include "plan/plan.h"

namespace steelyard::plan {

inline const catalog::Catalog& own_catalog() {
  static const catalog::Catalog catalog =
      catalog::Catalog::at(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog");
  return catalog;
}

template <class T>
T value_of(Result<T> result) {
  EXPECT_TRUE(result.has_value()) << (result ? "" : to_text(result.error()));
  return result ? std::move(*result) : T{};
}

// Everything of the request but the advice, which needs further plans.
inline Request request_for(const facts::Job& job) {
  Request request;
  request.job = job;
  request.model = value_of(own_catalog().model_of(job, {}));
  request.machine = value_of(own_catalog().machine_of(job, {}));
  request.constants = value_of(own_catalog().constants(job.framework, job.versions));
  request.advice = false;
  return request;
}

inline facts::Plan planned(const facts::Job& job) {
  return value_of(plan(request_for(job)));
}

inline facts::Job job_on(const char* machine, std::int64_t gpus) {
  facts::Job job;
  job.machine.name = machine;
  job.machine.gpus = gpus;
  return job;
}

// `gpus` cards of that kind and a host of 256 GiB.
inline facts::Job job_on_cards(const char* gpu, std::int64_t gpus) {
  facts::Job job;
  job.machine.gpu = gpu;
  job.machine.gpus = gpus;
  job.machine.ram_gib = 256;
  return job;
}

struct SmallModel {
  std::string type = "llama";  // llama, mistral or gpt2
  std::int64_t hidden = 256, layers = 4, heads = 4, vocabulary = 2000;
};

inline facts::Value config_of(const SmallModel& model) {
  if (model.type == "gpt2") {
    return facts::Object{{"model_type", "gpt2"},           {"n_embd", model.hidden},
                         {"n_layer", model.layers},        {"n_head", model.heads},
                         {"vocab_size", model.vocabulary}, {"n_positions", 4096}};
  }
  return facts::Object{{"model_type", model.type},
                       {"hidden_size", model.hidden},
                       {"num_hidden_layers", model.layers},
                       {"num_attention_heads", model.heads},
                       {"num_key_value_heads", model.heads / 2},
                       {"intermediate_size", 3 * model.hidden},
                       {"vocab_size", model.vocabulary},
                       {"max_position_embeddings", 4096}};
}

}  // namespace steelyard::plan
