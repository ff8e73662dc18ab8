#include "step/companion_passes.h"

#include <algorithm>
#include <string>
#include <utility>

#include "step/companions.h"
#include "step/merge.h"

namespace steelyard::step {

namespace {

using facts::DType;
using facts::VramCategory;
using model::Block;
using model::Operator;
using model::OperatorKind;

// Reads and writes of a norm and of the activation behind it.
constexpr std::int64_t kNormedPasses = 4;

// One of the products of a forward pass, in elements.
struct Product {
  const Operator* op = nullptr;
  std::int64_t in = 0, out = 0, weight = 0;
  std::int64_t rows = 0, columns = 0, depth = 0;
  Flops flops;
};

std::int64_t elements_of(model::TensorRef ref, const Block& block, const model::Graph& graph) {
  const auto& tensors = ref.shared ? graph.shared : block.tensors;
  return model::elements(tensors.at(static_cast<std::size_t>(ref.index)).shape);
}

std::vector<Product> products_of(const Block& block, const model::Graph& graph) {
  std::vector<Product> products;
  for (const Operator& op : block.operators) {
    const Flops flops = model::forward_flops(op, block, graph);
    if (!(flops > Flops()) || op.outputs.empty()) continue;
    Product product{.op = &op, .flops = flops};
    for (const model::TensorRef in : op.inputs) product.in += elements_of(in, block, graph);
    product.out = elements_of(op.outputs.front(), block, graph);
    for (const std::int32_t index : op.weights) {
      if (index < 0) continue;
      const model::Shape& shape = block.weights.at(static_cast<std::size_t>(index)).shape;
      product.weight += model::elements(shape);
      if (product.columns == 0) product.columns = std::max<std::int64_t>(1, shape.front());
    }
    product.columns = std::max<std::int64_t>(1, product.columns);
    product.rows = std::max<std::int64_t>(1, product.out / product.columns);
    product.depth = std::max<std::int64_t>(1, product.weight / product.columns);
    products.push_back(product);
  }
  return products;
}

bool is_window(const Operator& op) {
  return op.kind == OperatorKind::conv || op.kind == OperatorKind::normed_conv;
}

// A residual block holds its input, what the norm and the activation made of it, and the result.
std::int64_t held_by(const Product& product) {
  const std::int64_t copies = is_window(*product.op) ? 3 : 1;
  return checked_add(checked_multiply(copies, product.in), product.out);
}

class Passes {
 public:
  Passes(DType dtype, Program& program) : dtype_(dtype), program_(program) {}

  [[nodiscard]] Phase on_card(const Companion& companion);
  [[nodiscard]] Phase on_host(const Companion& companion);

 private:
  std::int32_t name(const std::string& text) {
    program_.names.push_back(text);
    return static_cast<std::int32_t>(program_.names.size()) - 1;
  }
  void add(Body& body, const Work& work) {
    program_.work.push_back(work);
    body.events.push_back({EventKind::work, static_cast<std::int32_t>(program_.work.size()) - 1});
  }
  std::int32_t allocate(Body& body, std::int64_t elements, std::int32_t named) {
    program_.slots.push_back({Bytes(checked_multiply(elements, facts::bytes_of(dtype_))),
                              VramCategory::temporaries, Stream::compute, named, false});
    const auto index = static_cast<std::int32_t>(program_.slots.size()) - 1;
    body.events.push_back({EventKind::allocate, index});
    return index;
  }
  void add_product(Body& body, const Product& product);
  void add_host_product(Body& body, const Product& product);
  [[nodiscard]] Bytes bytes(std::int64_t elements) const {
    return Bytes(checked_multiply(elements, facts::bytes_of(dtype_)));
  }

  DType dtype_;
  Program& program_;
};

void Passes::add_product(Body& body, const Product& product) {
  const std::int32_t named = name(product.op->name);
  const bool window = is_window(*product.op);
  std::vector<std::int32_t> held = {allocate(body, product.in, named)};
  if (window) {
    for (int copy = 0; copy < 2; ++copy) held.push_back(allocate(body, product.in, named));
  }
  Work passes;
  passes.kind = WorkKind::memory;
  passes.traffic = kNormedPasses * bytes(product.in);
  passes.name = named;
  add(body, passes);
  held.push_back(allocate(body, product.out, named));
  const bool attends = product.op->kind == OperatorKind::attention;
  Work work;
  work.kind = attends ? WorkKind::attention : WorkKind::gemm;
  work.dtype = dtype_;
  work.flops = product.flops;
  work.traffic = bytes(product.in + product.weight + product.out);
  work.m = product.rows;
  work.n = product.columns;
  work.k = product.depth;
  work.name = named;
  add(body, work);
  for (const std::int32_t index : held) body.events.push_back({EventKind::free, index});
}

Phase Passes::on_card(const Companion& companion) {
  Phase phase{PhaseKind::scoring, {}};
  for (const model::Segment& segment : companion.graph.segments) {
    Body body{.layer = companion.graph.name, .repeat = segment.repeat, .events = {}};
    for (const Block& block : segment.blocks) {
      for (const Product& product : products_of(block, companion.graph)) {
        add_product(body, product);
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  return phase;
}

void Passes::add_host_product(Body& body, const Product& product) {
  Work work;
  work.kind = WorkKind::host;
  work.dtype = dtype_;
  work.flops = product.flops;
  work.traffic =
      kNormedPasses * bytes(product.in) + bytes(product.in + product.weight + product.out);
  work.name = name(product.op->name);
  add(body, work);
}

Phase Passes::on_host(const Companion& companion) {
  Phase phase{PhaseKind::scoring, {}};
  for (const model::Segment& segment : companion.graph.segments) {
    Body body{.layer = companion.graph.name, .repeat = segment.repeat, .events = {}};
    for (const Block& block : segment.blocks) {
      for (const Product& product : products_of(block, companion.graph)) {
        add_host_product(body, product);
      }
    }
    if (!body.events.empty()) phase.bodies.push_back(std::move(body));
  }
  if (phase.bodies.empty()) return phase;
  Work copy;
  copy.kind = WorkKind::fetch;
  copy.dtype = dtype_;
  copy.traffic = bytes(companion.puts_out);
  copy.name = name("what the CPU made, to the GPU");
  Body last{.layer = companion.graph.name, .events = {}};
  add(last, copy);
  phase.bodies.push_back(std::move(last));
  return phase;
}

// In front of every forward pass of the model's first run of layers.
void put_in_front(const std::vector<Phase>& phases, Program& program) {
  for (Pass& pass : program.step) {
    const auto begins = [](const Phase& phase) {
      return phase.kind == PhaseKind::forward && phase.chunk == 0;
    };
    if (std::none_of(pass.phases.begin(), pass.phases.end(), begins)) continue;
    std::vector<std::int32_t> order = pass.order;
    for (std::size_t i = 0; pass.order.empty() && i < pass.phases.size(); ++i) {
      order.push_back(static_cast<std::int32_t>(i));
    }
    const auto first = static_cast<std::int32_t>(pass.phases.size());
    pass.phases.insert(pass.phases.end(), phases.begin(), phases.end());
    pass.order.clear();
    for (const std::int32_t index : order) {
      if (begins(pass.phases[static_cast<std::size_t>(index)])) {
        for (std::int32_t i = 0; i < std::ssize(phases); ++i) pass.order.push_back(first + i);
      }
      pass.order.push_back(index);
    }
  }
}

}  // namespace

HeldOnHost held_on_host(const Companion& companion, DType dtype) {
  const std::int64_t each = facts::bytes_of(type_of(companion, dtype));
  std::int64_t most = 0;
  for (const model::Segment& segment : companion.graph.segments) {
    for (const Block& block : segment.blocks) {
      for (const Product& product : products_of(block, companion.graph)) {
        most = std::max(most, held_by(product));
      }
    }
  }
  const std::int64_t parameters = model::parameter_count(companion.graph).value();
  return {Bytes(checked_multiply(parameters, each)), Bytes(checked_multiply(most, each))};
}

void add_companion_passes(const std::vector<Companion>& companions, DType dtype, Program& program) {
  std::vector<Phase> phases;
  for (const Companion& companion : companions) {
    if (companion.trainable || companion.held == facts::CompanionHeld::load) continue;
    Passes passes(type_of(companion, dtype), program);
    const bool on_host = companion.held == facts::CompanionHeld::cpu;
    Phase phase = on_host ? passes.on_host(companion) : passes.on_card(companion);
    phase.chunk = chunks_of(program);
    if (!phase.bodies.empty()) phases.push_back(std::move(phase));
  }
  if (!phases.empty()) put_in_front(phases, program);
}

}  // namespace steelyard::step
