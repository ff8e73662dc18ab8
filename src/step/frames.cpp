#include "step/frames.h"

#include <algorithm>
#include <string>
#include <string_view>

namespace steelyard::step {

namespace {

// "self_attn" of "self_attn.q_proj", "layer.0" of "layer.0.SelfAttention.q" (T5).
std::string_view module_of(const model::Operator& op) {
  const std::string_view name = op.name;
  const std::size_t end = name.find('.');
  const bool numbered = end + 1 < name.size() && name[end + 1] >= '0' && name[end + 1] <= '9';
  return name.substr(0, end != std::string_view::npos && numbered ? name.find('.', end + 1) : end);
}

// The last operator of the run of operators of one module that `index` lies in.
std::size_t end_of_module(const model::Block& block, std::size_t index) {
  std::size_t last = index;
  while (last + 1 < block.operators.size() &&
         module_of(block.operators[last + 1]) == module_of(block.operators[index])) {
    ++last;
  }
  return last;
}

// In a network whose modules lie in modules ("up_blocks.1.attentions.0.transformer_blocks.0.attn1")
// an attention's variables end with its own forward(), not with that of the outermost.
bool lies_deep(const model::Operator& op) {
  const std::string_view name = op.name;
  std::size_t numbers = 0;
  for (std::size_t dot = name.find('.'); dot != std::string_view::npos;
       dot = name.find('.', dot + 1)) {
    if (dot + 1 < name.size() && name[dot + 1] >= '0' && name[dot + 1] <= '9') ++numbers;
  }
  return numbers > 1;
}

// The last of the operators behind `index` that are parts of the module of that name.
std::size_t end_of_own_module(const model::Block& block, std::size_t index) {
  const std::string within = block.operators[index].name + ".";
  std::size_t last = index;
  while (last + 1 < block.operators.size() && block.operators[last + 1].name.starts_with(within)) {
    ++last;
  }
  return last;
}

bool is_norm(const model::Operator& op) {
  return op.kind == model::OperatorKind::rms_norm || op.kind == model::OperatorKind::layer_norm;
}

std::size_t next_norm(const model::Block& block, std::size_t index) {
  std::size_t next = index + 1;
  while (next < block.operators.size() && !is_norm(block.operators[next])) ++next;
  return next;
}

bool has_language_loss(const model::Block& block) {
  return std::any_of(block.operators.begin(), block.operators.end(),
                     [](const auto& op) { return op.kind == model::OperatorKind::causal_lm_loss; });
}

class LastUses {
 public:
  LastUses(const model::Block& block, bool holds_input)
      : block_(block), last_(block.tensors.size(), 0), makers_(block.tensors.size(), nullptr) {
    for (std::size_t i = 0; i < block.operators.size(); ++i) {
      const model::Operator& op = block.operators[i];
      hold(op.inputs, i);
      for (model::TensorRef ref : op.outputs) {
        if (!ref.shared && ref.index >= 0) makers_[static_cast<std::size_t>(ref.index)] = &op;
      }
    }
    if (holds_input) hold({block.input}, block.operators.size());
    hold({block.output}, block.operators.size());
  }

  void hold(const std::vector<model::TensorRef>& tensors, std::size_t until) {
    for (model::TensorRef ref : tensors) {
      if (ref.shared || ref.index < 0) continue;
      std::size_t& last = last_[static_cast<std::size_t>(ref.index)];
      last = std::max(last, until);
    }
  }

  // What a module did not make itself is an argument of it.
  void hold_arguments(std::size_t index) {
    const model::Operator& op = block_.operators[index];
    for (model::TensorRef ref : op.inputs) {
      if (ref.shared || ref.index < 0) continue;
      const model::Operator* maker = makers_[static_cast<std::size_t>(ref.index)];
      const bool own = maker != nullptr && module_of(*maker) == module_of(op);
      if (!own) hold({ref}, end_of_module(block_, index));
    }
  }

  [[nodiscard]] std::vector<std::size_t> result() && { return std::move(last_); }

 private:
  const model::Block& block_;
  std::vector<std::size_t> last_;
  std::vector<const model::Operator*> makers_;
};

}  // namespace

std::vector<std::size_t> last_uses(const model::Block& block, Frames frames, bool loss_in_model) {
  const bool head = has_language_loss(block);
  LastUses uses(block, frames != Frames::modules || !head);
  if (frames == Frames::none) return std::move(uses).result();
  const bool modules = frames == Frames::modules;
  for (std::size_t i = 0; i < block.operators.size(); ++i) {
    const model::Operator& op = block.operators[i];
    if (modules) uses.hold_arguments(i);
    if (op.kind == model::OperatorKind::attention) {
      // Queries, keys, values and the result are variables; others are rebound or temporaries.
      const std::size_t until = !modules        ? block.operators.size()
                                : lies_deep(op) ? end_of_own_module(block, i)
                                                : end_of_module(block, i);
      uses.hold(op.inputs, until);
      uses.hold(op.outputs, until);
    }
    if (modules && head && loss_in_model && is_norm(op)) {
      uses.hold(op.outputs, block.operators.size());
    }
    if (modules) continue;
    const bool in_layer = !model::is_loss(block.operators.back().kind);
    if (op.kind == model::OperatorKind::rms_norm && in_layer) {  // LLaMA's h
      uses.hold(op.outputs, next_norm(block, i));
    }
    const bool first_embedding = op.kind == model::OperatorKind::embedding && block.input.index < 0;
    if (first_embedding || op.kind == model::OperatorKind::activation) {  // x; GPT-2's h
      uses.hold(op.outputs, block.operators.size());
    }
  }
  return std::move(uses).result();
}

}  // namespace steelyard::step
