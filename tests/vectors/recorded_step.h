// The training steps that measure_saved.py recorded, as programs of this project: the model from
// `model`, the step from `step`'s assembler, written out as the allocations and frees of each
// phase.
//
// A recorded run differs from a job in what its script does, not in how an operator runs: its own
// modules declare their parameters in another order, blocks are one function each, labels come
// unshifted, GPT-2 makes its causal mask whatever kernel runs, and fake tensors run no kernels and
// sum gradients into new tensors.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/model.h"
#include "step/adapters.h"
#include "step/assembler.h"
#include "step/expand.h"
#include "vectors/vector_rows.h"

namespace steelyard::testing {

inline facts::ModelSource recorded_model(const facts::Value& dims) {
  if (text(dims, "family") == "gpt2") {
    const double p = real(dims, "p");
    return {"gpt2",
            facts::Object{{"model_type", "gpt2"},
                          {"vocab_size", whole(dims, "V")},
                          {"n_layer", whole(dims, "L")},
                          {"n_embd", whole(dims, "H")},
                          {"n_head", whole(dims, "nh")},
                          {"n_positions", whole(dims, "S")},
                          {"activation_function",
                           text(dims, "act") == "py" ? "gelu_new" : "gelu_pytorch_tanh"},
                          {"resid_pdrop", p},
                          {"attn_pdrop", p},
                          {"embd_pdrop", p}},
            ""};
  }
  return {"llama",
          facts::Object{{"model_type", "llama"},
                        {"vocab_size", whole(dims, "V")},
                        {"num_hidden_layers", whole(dims, "L")},
                        {"hidden_size", whole(dims, "H")},
                        {"num_attention_heads", whole(dims, "nh")},
                        {"num_key_value_heads", whole(dims, "nkv")},
                        {"intermediate_size", whole(dims, "I")}},
          ""};
}

// The recorded blocks declare their norms before everything else.
inline void declare_norms_first(model::Block& block) {
  std::vector<std::int32_t> order;
  const auto is_norm = [](const std::string& name) {
    return name.starts_with("ln_") || name.find("norm") != std::string::npos;
  };
  for (const bool norms : {true, false}) {
    for (std::size_t i = 0; i < block.weights.size(); ++i) {
      if (is_norm(block.weights[i].name) == norms) order.push_back(static_cast<std::int32_t>(i));
    }
  }
  std::vector<model::Weight> weights;
  std::vector<std::int32_t> place(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) {
    weights.push_back(block.weights[static_cast<std::size_t>(order[i])]);
    place[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
  }
  block.weights = std::move(weights);
  for (model::Operator& op : block.operators) {
    for (std::int32_t& weight : op.weights) {
      if (weight >= 0) weight = place[static_cast<std::size_t>(weight)];
    }
  }
}

inline model::Graph recorded_graph(const facts::Value& row) {
  const facts::Value& dims = *row.find("dims");
  Result<model::Graph> graph =
      model::build(recorded_model(dims), {whole(dims, "B"), whole(dims, "S")});
  EXPECT_TRUE(graph) << (graph ? "" : to_text(graph.error()));
  if (!graph) return {};
  graph->segments.back().blocks.back().operators.back().widens_logits = true;
  // wpe(arange(S)): [S,H], not [1,S,H].
  model::Block& embed = graph->segments.front().blocks.front();
  for (const model::Operator& op : embed.operators) {
    if (op.kind != model::OperatorKind::position_embedding) continue;
    model::Shape& shape = embed.tensors[static_cast<std::size_t>(op.outputs[0].index)].shape;
    shape.erase(shape.begin());
  }
  for (std::size_t s = 1; s + 1 < graph->segments.size(); ++s) {
    for (model::Block& block : graph->segments[s].blocks) declare_norms_first(block);
  }
  return std::move(*graph);
}

inline facts::Job recorded_job(const facts::Value& row) {
  facts::Job job;
  const facts::Value& dims = *row.find("dims");
  const std::string& mode = text(row, "mode");
  const std::string& optimizer = text(row, "optimizer");
  job.train.micro_batch = whole(dims, "B");
  job.train.sequence_length = whole(dims, "S");
  job.train.precision = mode == "fp32"   ? facts::Precision::fp32
                        : mode == "bf16" ? facts::Precision::bf16
                                         : facts::Precision::bf16_mixed;
  job.train.attention =
      text(dims, "attn") == "flash" ? facts::Attention::flash : facts::Attention::math;
  if (*dims.find("ckpt")->as_bool()) job.train.recompute.mode = facts::RecomputeMode::full;
  facts::OptimizerKeys& keys = job.train.optimizer;
  keys.name = optimizer == "sgd"            ? facts::OptimizerName::sgd
              : optimizer == "sgd_momentum" ? facts::OptimizerName::sgd_momentum
                                            : facts::OptimizerName::adamw;
  keys.fused = optimizer == "adamw_fused";
  keys.foreach = optimizer != "adamw_fused" && optimizer != "adamw_loop";
  return job;
}

// The recorded GPT-2 makes an output projection of its own and then replaces it by the embedding.
inline void add_untied_head(step::Program& program, const model::Graph& graph) {
  step::Slot slot = program.slots[static_cast<std::size_t>(
      program.setup.front().phases.front().bodies.front().events.front().index)];  // the embedding
  program.slots.push_back(slot);
  const auto index = static_cast<std::int32_t>(program.slots.size()) - 1;
  EXPECT_EQ(graph.segments.front().blocks.front().weights.front().role,
            model::WeightRole::embedding);
  auto& events = program.setup.front().phases.back().bodies.back().events;
  events.push_back({step::EventKind::allocate, index});
  events.push_back({step::EventKind::free, index});
}

// The embedding's gradient meets the tied projection's: a sum in place, but of fake tensors a new
// tensor, which takes the kept one's place.
inline void sum_tied_gradients_anew(step::Program& program) {
  const auto name_of = [&](std::int32_t index) -> const std::string& {
    return program.names[static_cast<std::size_t>(index)];
  };
  for (step::Pass& pass : program.step) {
    for (step::Phase& phase : pass.phases) {
      std::int32_t kept = -1;
      for (step::Body& body : phase.bodies) {
        for (std::size_t i = 0; i < body.events.size(); ++i) {
          const step::Event event = body.events[i];
          const auto at = static_cast<std::size_t>(event.index);
          if (event.kind == step::EventKind::keep_gradient) {
            const step::Gradient& gradient = program.gradients[at];
            const step::Slot& fresh = program.slots[static_cast<std::size_t>(gradient.fresh)];
            if (name_of(fresh.name).starts_with("lm_head")) kept = gradient.kept;
          }
          if (event.kind != step::EventKind::work) continue;
          if (!name_of(program.work[at].name).ends_with("accumulate_gradient")) continue;
          step::Slot slot = program.slots[static_cast<std::size_t>(kept)];
          slot.outlives_micro_batch = false;
          program.slots.push_back(slot);
          const auto sum = static_cast<std::int32_t>(program.slots.size()) - 1;
          program.gradients.push_back({sum, kept});
          const auto moved = static_cast<std::int32_t>(program.gradients.size()) - 1;
          const std::vector<step::Event> added = {{step::EventKind::allocate, sum},
                                                  {step::EventKind::free, kept},
                                                  {step::EventKind::keep_gradient, moved}};
          body.events.insert(body.events.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                             added.begin(), added.end());
          return;
        }
      }
    }
  }
}

// The recorder's later checkpointed runs (and all rows of `checkpoint`) had grad mode on in the
// engine's thread: silu's derivative is then made of operations that could be differentiated again.
inline bool differentiates_silu(const facts::Value& row) {
  return text(row, "mode") == "bf16" && *row.find("dims")->find("ckpt")->as_bool();
}

inline step::Program recorded_program(const facts::Value& row) {
  facts::FrameworkProfile profile;
  profile.name = "recorded";
  const facts::Job job = recorded_job(row);
  auto variants = step::variants_of(profile, job.train, job.parallel);
  auto layout = step::layout_of(job);
  EXPECT_TRUE(variants && layout);
  if (!variants || !layout) return {};
  variants->key_value_repeat = step::KeyValueRepeat::grouped;
  variants->loss = step::LossTypes::upcast_shift;  // logits.float() in the model
  variants->labels = step::Labels::given;
  variants->causal_mask = text(*row.find("dims"), "family") == "gpt2" ? step::CausalMask::always
                                                                      : step::CausalMask::when_read;
  variants->frames = step::Frames::function;
  variants->fake_tensors = true;
  variants->composite_silu_backward = differentiates_silu(row);
  const step::Stage stage{0, recorded_graph(row), {0}, true};
  const step::AdapterHabits habits;
  step::Program program =
      step::Assembler(stage, job, profile, *variants, *layout, habits).assemble();
  if (text(*row.find("dims"), "family") == "gpt2") {
    add_untied_head(program, stage.graph);
    sum_tied_gradients_anew(program);
  }
  return program;
}

struct Happening {
  bool born = true;
  std::int64_t tensor = 0;  // numbered by birth
  Bytes bytes;              // of a birth, as requested
  std::string name;         // of a birth: the operation
};

struct RecordedPhase {
  std::string name;  // "setup", "forward0", "backward0", "clip0", ..., "zero_grad1"
  std::vector<Happening> happenings;
};

// Writes a program out. The first step makes the optimizer's states in its optimizer phase.
class WrittenOut {
 public:
  WrittenOut(const step::Program& program, int steps) : program_(program) {
    begin("setup");
    play(program.setup);
    for (int s = 0; s < steps; ++s) {
      progress_ = {};
      for (const step::Pass& pass : program.step) {
        const step::PhaseKind kind = pass.phases.front().kind;
        if (kind == step::PhaseKind::optimizer && s == 0) {
          begin("optimizer0");
          play(program.first_optimizer);
        }
        play({pass}, std::to_string(s));
      }
    }
  }
  [[nodiscard]] const std::vector<RecordedPhase>& phases() const { return phases_; }

 private:
  using Key = std::pair<std::int32_t, std::int64_t>;

  void begin(const std::string& name) {
    if (phases_.empty() || phases_.back().name != name) phases_.push_back({name, {}});
  }
  void play(const std::vector<step::Pass>& passes, const std::string& step = "") {
    for (const step::Pass& pass : passes) {
      for (std::int64_t r = 0; r < pass.repeat; ++r) {
        step::expand_once(
            program_, pass, progress_,
            [&](const step::Phase& phase, const step::Body& body, const step::Instance& instance) {
              if (!step.empty()) begin(step::name_of(phase.kind) + step);
              for (const step::Event& event : body.events) on(event, instance);
            });
      }
    }
  }
  [[nodiscard]] const step::Slot& slot(std::int32_t index) const {
    return program_.slots[static_cast<std::size_t>(index)];
  }
  void birth(Key key) {
    const Bytes bytes = slot(key.first).bytes;
    EXPECT_FALSE(alive_.contains(key))
        << program_.names[static_cast<std::size_t>(slot(key.first).name)];
    alive_[key] = next_;
    const std::string& name = program_.names[static_cast<std::size_t>(slot(key.first).name)];
    phases_.back().happenings.push_back({true, next_++, bytes, name});
  }
  void death(Key key) {
    const auto found = alive_.find(key);
    ASSERT_NE(found, alive_.end())
        << program_.names[static_cast<std::size_t>(slot(key.first).name)];
    phases_.back().happenings.push_back({false, found->second, {}, ""});
    alive_.erase(found);
  }
  void move(Key from, Key to) {
    const auto found = alive_.find(from);
    ASSERT_NE(found, alive_.end());
    const std::int64_t tensor = found->second;
    alive_.erase(found);
    alive_[to] = tensor;
  }
  void on(const step::Event& event, const step::Instance& instance) {
    using step::EventKind;
    if (event.kind == EventKind::work || event.kind == EventKind::communicate) return;
    if (event.kind == EventKind::keep_gradient) {
      const step::Gradient& gradient = program_.gradients[static_cast<std::size_t>(event.index)];
      const Key fresh{gradient.fresh, instance.of(slot(gradient.fresh))};
      const Key kept{gradient.kept, instance.of(slot(gradient.kept))};
      if (alive_.contains(kept)) {
        death(fresh);
      } else {
        move(fresh, kept);
      }
      return;
    }
    const Key key{event.index, instance.of(slot(event.index))};
    switch (event.kind) {
      case EventKind::allocate: birth(key); break;
      case EventKind::ensure:
        if (!alive_.contains(key)) birth(key);
        break;
      case EventKind::free: death(key); break;
      case EventKind::release_shared:
        if (instance.layer() == 0) death(key);
        break;
      case EventKind::carry: move(key, kCarried); break;
      case EventKind::adopt: move(kCarried, key); break;
      default: break;
    }
  }

  static constexpr Key kCarried{-1, 0};
  const step::Program& program_;
  step::Progress progress_;
  std::map<Key, std::int64_t> alive_;
  std::int64_t next_ = 0;
  std::vector<RecordedPhase> phases_;
};

}  // namespace steelyard::testing
