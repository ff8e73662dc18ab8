#include "step/partial_recompute.h"

#include <utility>

namespace steelyard::step {

namespace {

using Gradients = std::vector<Tensor>;

struct Leaves {
  std::vector<Tensor> inputs;
  std::shared_ptr<Gradients> found = std::make_shared<Gradients>();
};

// The inputs once more, cut off from what made them; their gradients arrive in `found`.
Leaves leaves_of(Tape& tape, const std::vector<Tensor>& inputs) {
  Leaves leaves;
  leaves.inputs = inputs;
  leaves.found->resize(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Tensor& input = leaves.inputs[i];
    if (!input.requires_grad || input.leaf != kNoLeaf) continue;
    input.node =
        tape.make_node("input", {}, {}, [found = leaves.found, i](Tape&, const Gradients& g) {
          (*found)[i] = g[0];
          return Gradients();
        });
    input.output = 0;
  }
  return leaves;
}

Gradients run_again(Tape& tape, const Part& part, const std::vector<Tensor>& inputs,
                    bool stops_early) {
  const std::size_t start = tape.recorded();
  tape.set_recomputing(true);
  tape.set_backward(false);
  Gradients results = part(tape, inputs);
  if (stops_early) {
    for (Tensor& result : results) result.storage.reset();  // the nodes stay
    tape.clear_casts();
    tape.stop_early(start);
  }
  tape.clear_casts();
  tape.set_recomputing(false);
  tape.set_backward(true);
  return results;
}

Gradients run_without_graph(Tape& tape, const Part& part, const std::vector<Tensor>& inputs) {
  const bool enabled = tape.grad_enabled();
  tape.set_grad_enabled(false);
  Gradients results = part(tape, inputs);
  tape.set_grad_enabled(enabled);
  return results;
}

struct Connections {
  std::vector<Edge> edges;
  std::vector<StorageRef> saved;
  bool tracked = false;
};

Connections connections_of(const Tape& tape, const std::vector<Tensor>& inputs) {
  Connections all;
  for (const Tensor& input : inputs) {
    all.edges.push_back(Tape::edge_of(input));
    if (input) all.saved.push_back(input.storage);
    all.tracked |= tape.tracks({&input});
  }
  return all;
}

}  // namespace

Tensor recomputed(Tape& tape, std::vector<Tensor> inputs, const Part& part, PartOptions options) {
  Connections connections = connections_of(tape, inputs);
  Tensor result = std::move(run_without_graph(tape, part, inputs).front());
  if (!connections.tracked && !(options.trains && tape.grad_enabled())) return result;
  tape.begin_operation();
  tape.track(result, "recomputed", std::move(connections.edges), std::move(connections.saved),
             [inputs = std::move(inputs), part, options](Tape& t, const Gradients& gradients) {
               const Leaves leaves = leaves_of(t, inputs);
               const Gradients results = run_again(t, part, leaves.inputs, options.stops_early);
               t.run_backward(results.front(), gradients.front());
               return std::move(*leaves.found);
             });
  return result;
}

struct DiscardedPart::Again {
  Part part;
  std::vector<Tensor> inputs;
  std::vector<StorageRef> discarded;
  Leaves leaves;
  Gradients results;

  void run(Tape& tape) {
    leaves = leaves_of(tape, inputs);
    inputs.clear();
    results = run_again(tape, part, leaves.inputs, false);
    for (std::size_t i = 0; i < discarded.size(); ++i) {
      Tape::restore(discarded[i], results[i].storage);
    }
    discarded.clear();
  }

  Gradients run_backward(Tape& tape, const Gradients& gradients) {
    std::vector<std::pair<Tensor, Tensor>> roots;
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      if (gradients[i]) roots.emplace_back(results[i], gradients[i]);
    }
    tape.run_backward(std::move(roots));
    results.clear();
    leaves.inputs.clear();
    return std::move(*leaves.found);
  }
};

DiscardedPart::DiscardedPart(Tape& tape, std::vector<Tensor> inputs, Part part)
    : again_(std::make_shared<Again>()) {
  outputs_ = run_without_graph(tape, part, inputs);
  Connections connections = connections_of(tape, inputs);
  again_->part = std::move(part);
  if (!connections.tracked) return;
  again_->inputs = std::move(inputs);
  tape.begin_operation();
  const NodeRef node =
      tape.make_node("recomputed", std::move(connections.edges), std::move(connections.saved),
                     [again = again_](Tape& t, const Gradients& gradients) {
                       return again->run_backward(t, gradients);
                     });
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    outputs_[i].node = node;
    outputs_[i].output = static_cast<int>(i);
    outputs_[i].requires_grad = true;
    outputs_[i].leaf = kNoLeaf;
  }
}

void DiscardedPart::discard(Tape& tape, Tensor& hook) {
  std::vector<Tensor> outputs = std::exchange(outputs_, {});
  if (!tape.tracks({&hook})) return;
  for (const Tensor& output : outputs) {
    tape.discard(output.storage);
    again_->discarded.push_back(output.storage);
  }
  const Edge before = Tape::edge_of(hook);
  tape.track(hook, "recompute", {before}, {},
             [again = again_](Tape& t, const Gradients& gradients) {
               again->run(t);
               return Gradients{gradients[0]};
             });
}

}  // namespace steelyard::step
