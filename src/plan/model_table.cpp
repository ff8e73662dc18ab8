// A model's graph as a table. Sizes and arithmetic are the graph's; what is saved for backward is
// read off the program of the job's first rank: what a layer's forward pass allocated and the
// whole forward pass did not free.
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <set>
#include <utility>

#include "facts/stored_tensors.h"
#include "model/model.h"
#include "model/operator_names.h"
#include "plan/model_remarks.h"
#include "plan/objective.h"
#include "plan/plan.h"
#include "plan/ranks.h"
#include "plan/resolve.h"
#include "step/adapters.h"
#include "step/frozen_parts.h"
#include "step/fused_projection.h"

namespace steelyard::plan {
namespace {

using facts::ModelPart;
using facts::ModelTable;
using step::EventKind;

std::vector<std::int64_t> output_of(const model::Operator& op, const model::Block& block,
                                    const model::Graph& graph) {
  if (op.outputs.empty() || op.outputs.front().index < 0) return {};
  const model::TensorRef ref = op.outputs.front();
  const auto& tensors = ref.shared ? graph.shared : block.tensors;
  return tensors.at(static_cast<std::size_t>(ref.index)).shape;
}

// Weights that two operators read are the first one's; those that none reads get a row of their
// own.
ModelPart part_of(const model::Block& block, std::int64_t layers, const model::Graph& graph) {
  ModelPart part;
  part.name = block.name;
  part.layers = layers;
  std::vector<bool> counted(block.weights.size(), false);
  const auto count = [&](std::size_t index) {
    if (counted[index] || !block.weights[index].tied_to.empty()) return Parameters();
    counted[index] = true;
    return Parameters(model::elements(block.weights[index].shape));
  };
  for (const model::Operator& op : block.operators) {
    facts::ModelOperator row;
    row.name = op.name;
    row.kind = model::name_of(op.kind);
    row.output = output_of(op, block, graph);
    facts::ModelOperator adapter{.name = op.name + ".lora",
                                 .kind = "adapter",
                                 .output = {},
                                 .parameters = {},
                                 .forward_flops = {},
                                 .saved = {}};
    for (const std::int32_t weight : op.weights) {
      if (weight < 0) continue;
      const auto index = static_cast<std::size_t>(weight);
      (block.weights[index].adapter ? adapter : row).parameters += count(index);
    }
    row.forward_flops = model::forward_flops(op, block, graph);
    part.forward_flops += row.forward_flops;
    part.operators.push_back(std::move(row));
    if (adapter.parameters > Parameters(0)) part.operators.push_back(std::move(adapter));
  }
  for (std::size_t i = 0; i < block.weights.size(); ++i) {
    if (const Parameters left = count(i); left > Parameters(0)) {
      facts::ModelOperator row;
      row.name = block.weights[i].name;
      row.kind = "weight";
      row.output = block.weights[i].shape;
      row.parameters = left;
      part.operators.push_back(std::move(row));
    }
  }
  part.parameters = model::parameter_count(block);
  return part;
}

facts::ModelPartWeights weights_of(const model::Block& block, std::int64_t layers) {
  facts::ModelPartWeights part{.name = block.name, .layers = layers, .weights = {}};
  for (const model::Weight& weight : block.weights) {
    part.weights.push_back({.name = weight.name, .shape = weight.shape, .tied_to = weight.tied_to});
  }
  return part;
}

// "self_attn.q_proj: addmm" -> "self_attn.q_proj"
std::string_view maker(const step::Program& program, const step::Slot& slot) {
  const std::string_view name = program.names[static_cast<std::size_t>(slot.name)];
  return name.substr(0, name.find(": "));
}

// The operators of a segment's blocks in the order in which they run; tensors made one after the
// other are told apart by it where several blocks have operators of one name.
class Makers {
 public:
  Makers(std::vector<ModelPart>& parts, std::size_t first, std::size_t count) {
    for (std::size_t part = first; part < first + count; ++part) {
      for (std::size_t op = 0; op < parts[part].operators.size(); ++op) {
        rows_.push_back({&parts[part], &parts[part].operators[op]});
      }
    }
  }

  // What no operator bears the name of belongs to the one that ran last.
  void save(std::string_view name, Bytes bytes) {
    if (rows_.empty()) return;
    for (std::size_t step = 0; step < rows_.size(); ++step) {
      const std::size_t at = (now_ + step) % rows_.size();
      if (rows_[at].second->name != name) continue;
      now_ = at;
      break;
    }
    rows_[now_].first->saved += bytes;
    rows_[now_].second->saved += bytes;
  }

 private:
  std::vector<std::pair<ModelPart*, facts::ModelOperator*>> rows_;
  std::size_t now_ = 0;
};

const step::Phase* forward_of(const step::Program& program) {
  for (const step::Pass& pass : program.step) {
    for (const step::Phase& phase : pass.phases) {
      if (phase.kind == step::PhaseKind::forward) return &phase;
    }
  }
  return nullptr;
}

std::set<std::int32_t> freed_in(const step::Phase& forward) {
  std::set<std::int32_t> freed;
  for (const step::Body& body : forward.bodies) {
    for (const step::Event& event : body.events) {
      if (event.kind == EventKind::free) freed.insert(event.index);
    }
  }
  return freed;
}

// Layers of a segment that receive alike are one body; a first one that does not stands for itself
// (Assembler::add_chains), and the row is that of the others.
void add_saved(const model::Segment& segment, const step::Body& body, const step::Program& program,
               const std::set<std::int32_t>& freed, std::size_t first_part, ModelTable& table) {
  Makers makers(table.parts, first_part, segment.blocks.size());
  for (const step::Event& event : body.events) {
    if (event.kind != EventKind::allocate || freed.contains(event.index)) continue;
    const step::Slot& slot = program.slots[static_cast<std::size_t>(event.index)];
    makers.save(maker(program, slot), slot.bytes);
  }
}

// Segments and forward bodies come in the same order; bodies of no segment stand between them.
void add_saved(const model::Graph& graph, const step::Program& program, ModelTable& table) {
  const step::Phase* forward = forward_of(program);
  if (forward == nullptr) return;
  const std::set<std::int32_t> freed = freed_in(*forward);
  std::size_t segment = 0, first_part = 0;
  std::int64_t layers = 0;  // of the segment, in bodies so far
  const step::Body* usual = nullptr;
  for (const step::Body& body : forward->bodies) {
    if (segment == graph.segments.size()) break;
    const model::Segment& now = graph.segments[segment];
    if (body.layer != now.blocks.front().name || layers + body.repeat > now.repeat) continue;
    layers += body.repeat;
    if (usual == nullptr || body.repeat >= usual->repeat) usual = &body;
    if (layers < now.repeat) continue;
    add_saved(now, *usual, program, freed, first_part, table);
    usual = nullptr;
    layers = 0;
    first_part += now.blocks.size();
    ++segment;
  }
}

// Name of every weight, and whether it is held quantized.
std::map<std::string, bool, std::less<>> weight_names(const model::Graph& graph) {
  std::map<std::string, bool, std::less<>> names;
  for (const model::Segment& segment : graph.segments) {
    for (const model::Block& block : segment.blocks) {
      for (const model::Weight& weight : block.weights) names[weight.name] |= weight.quantized;
    }
  }
  return names;
}

// Elements that a byte of packed storage holds (step/weight_storage.h).
std::int64_t packed_in_byte(facts::BaseQuantization how) {
  return how == facts::BaseQuantization::int8 ? 1 : 2;
}

class Holdings {
 public:
  Holdings(const model::Graph& graph, const step::Program& program, facts::BaseQuantization how)
      : program_(program), names_(weight_names(graph)), how_(how) {}

  void add(const step::Body& body) {
    std::map<std::string_view, Bytes> packed;  // the largest tensor of a quantized weight
    for_slots(body, [&](const step::Slot& slot, std::string_view name, bool quantized) {
      if (quantized) packed[name] = std::max(packed[name], slot.bytes);
    });
    for_slots(body, [&](const step::Slot& slot, std::string_view name, bool quantized) {
      const std::string type = quantized    ? std::string(facts::name_of(how_))
                               : slot.dtype ? std::string(facts::name_of(*slot.dtype))
                                            : "";
      facts::HeldParameters& row = held_[type];
      row.dtype = type;
      row.bytes += slot.bytes * body.repeat;
      std::int64_t count = 0;
      if (!quantized && slot.dtype) count = slot.bytes.value() / facts::bytes_of(*slot.dtype);
      // Statistics of the quantization are no parameters.
      if (quantized && slot.bytes == packed[name]) {
        count = checked_multiply(slot.bytes.value(), packed_in_byte(how_));
      }
      row.parameters += Parameters(checked_multiply(count, body.repeat));
    });
  }

  [[nodiscard]] std::vector<facts::HeldParameters> rows() const {
    std::vector<facts::HeldParameters> rows;
    for (const auto& [type, row] : held_) rows.push_back(row);
    return rows;
  }

 private:
  template <class Visit>
  void for_slots(const step::Body& body, const Visit& visit) const {
    for (const step::Event& event : body.events) {
      if (event.kind != EventKind::allocate) continue;
      const step::Slot& slot = program_.slots[static_cast<std::size_t>(event.index)];
      if (slot.category != facts::VramCategory::parameters) continue;
      const std::string& name = program_.names[static_cast<std::size_t>(slot.name)];
      const auto known = names_.find(name);
      if (known != names_.end()) visit(slot, name, known->second);
    }
  }

  const step::Program& program_;
  std::map<std::string, bool, std::less<>> names_;
  facts::BaseQuantization how_;
  std::map<std::string, facts::HeldParameters> held_;
};

std::vector<facts::HeldParameters> held_by(const model::Graph& graph, const step::Program& program,
                                           facts::BaseQuantization how) {
  Holdings holdings(graph, program, how);
  for (const step::Pass& pass : program.setup) {
    for (const step::Phase& phase : pass.phases) {
      for (const step::Body& body : phase.bodies) holdings.add(body);
    }
  }
  return holdings.rows();
}

// With its adapters, as the program holds it (step::programs_of).
Result<model::Graph> with_adapters(const model::Graph& graph, const facts::Job& job,
                                   const facts::FrameworkProfile& profile) {
  if (job.train.method == facts::Method::full) return graph;
  STEELYARD_TRY(habits, step::adapter_habits_of(profile, graph.library));
  STEELYARD_TRY(projected, step::with_own_projections(graph, profile));
  STEELYARD_TRY(open, step::with_frozen_parts(projected, job));
  return step::with_method(open, job, habits);
}

// Types of the weights in the files that were read: "F8_E4M3 x 61, BF16 x 4".
std::string stored_types(const facts::ModelSource& source) {
  if (source.stored == nullptr) return "";
  std::map<std::string, std::int64_t> count;
  for (const facts::StoredTensor& tensor : source.stored->tensors) ++count[tensor.dtype];
  std::string text =
      fmt::format("{}: {} tensors (", source.stored->file, std::ssize(source.stored->tensors));
  bool first = true;
  for (const auto& [type, tensors] : count) {
    text += fmt::format("{}{} {}", first ? "" : ", ", tensors, type);
    first = false;
  }
  return text + ")";
}

std::string sources_of(const facts::ModelSource& source) {
  std::string text = source.source;
  const std::string types = stored_types(source);
  if (!types.empty()) text += (text.empty() ? "" : "; ") + types;
  return text;
}

}  // namespace

Result<ModelTable> model_table(const Request& request) {
  STEELYARD_TRY(ranks, ranks_of(request));
  STEELYARD_TRY(graph, trained_graph(request.model, ranks.job,
                                     sample_shape(ranks.job, *ranks.job.train.micro_batch)));
  const step::Program& program = ranks.programs.front().program;
  const facts::FrameworkProfile& profile = request.constants.framework;
  STEELYARD_TRY(adapted, with_adapters(graph, ranks.job, profile));
  ModelTable table{.name = request.model.name,
                   .model_type = graph.model_type,
                   .source = sources_of(request.model),
                   .remarks = model_remarks(request.model, graph, ranks.job, profile),
                   .framework = ranks.job.framework,
                   .precision = std::string(facts::name_of(ranks.job.train.precision)),
                   .batch = graph.batch,
                   .sequence = graph.sequence,
                   .image_height = graph.image_height,
                   .image_width = graph.image_width,
                   .decoder_sequence = graph.decoder_sequence,
                   .frames = graph.frames,
                   .audio_seconds = static_cast<double>(graph.audio_samples) /
                                    static_cast<double>(model::kSamplingRate),
                   .row_bytes = graph.row_bytes,
                   .layers = graph.layers,
                   .hidden = graph.hidden,
                   .vocabulary = graph.vocabulary,
                   .parameters = model::parameter_count(graph),
                   .trainable = program.states.trainable,
                   .active = model::active_parameter_count(graph),
                   .forward_flops = model::forward_flops(graph),
                   .saved = {},
                   .held = held_by(adapted, program, ranks.job.train.base_quantization),
                   .parts = {},
                   .weights = {},
                   .config = request.model.config};
  for (const model::Segment& segment : adapted.segments) {
    for (const model::Block& block : segment.blocks) {
      table.parts.push_back(part_of(block, segment.repeat, adapted));
      table.weights.push_back(weights_of(block, segment.repeat));
    }
  }
  add_saved(adapted, program, table);
  for (const ModelPart& part : table.parts) table.saved += part.saved * part.layers;
  return table;
}

}  // namespace steelyard::plan
