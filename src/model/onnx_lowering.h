// One ONNX graph on its way to a block of operators: the values by name, and what the lowering of
// single operators needs. The operators are in onnx_*_operators.cpp, one function each.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "facts/onnx.h"
#include "model/graph.h"
#include "model/model.h"
#include "model/onnx.h"
#include "model/onnx_value.h"

namespace steelyard::model {

class OnnxLowering;

// One node with its inputs; the function of its operator fills `out`.
struct OnnxCall {
  OnnxLowering& lowering;
  const facts::OnnxNode& node;
  std::vector<const OnnxValue*> in;  // null: an optional input that is not there
  std::vector<OnnxValue> out;        // one per output of the node
  std::int64_t version = 0;          // of the operator set

  [[nodiscard]] bool has(std::size_t i) const { return i < in.size() && in[i] != nullptr; }
  // The input, which `lower` has made sure of (OnnxOperator::inputs).
  [[nodiscard]] const OnnxValue& at(std::size_t i) const { return *in[i]; }
  [[nodiscard]] const facts::OnnxAttribute* attribute(std::string_view name) const;
  [[nodiscard]] std::int64_t whole(std::string_view name, std::int64_t fallback) const;
  [[nodiscard]] double real(std::string_view name, double fallback) const;
  [[nodiscard]] std::string text(std::string_view name, std::string_view fallback) const;
  [[nodiscard]] std::vector<std::int64_t> wholes(std::string_view name) const;
  // Whole numbers of an input whose values must be known: shapes, axes. Refuses otherwise.
  [[nodiscard]] std::vector<std::int64_t> known(std::size_t i, const char* what) const;
  // An axis from -rank to rank-1, as 0 to rank-1. Refuses others.
  [[nodiscard]] std::int64_t axis(std::int64_t given, std::int64_t rank) const;

  // Node and inputs in the words of a message.
  void refuse(std::string found, std::string accepted, std::string hint = "") const;
  [[nodiscard]] bool well() const;
};

// A value of that shape whose elements are not followed.
[[nodiscard]] inline OnnxValue constant_like(const Shape& shape, ElementKind kind) {
  OnnxValue value;
  value.shape = shape;
  value.kind = kind;
  return value;
}

struct OnnxOperator {
  void (*lower)(OnnxCall&);  // null: the result's size depends on data (OnnxLowering::cut)
  std::size_t inputs = 1;    // at least, all of them given
};
using OnnxOperators = std::map<std::string_view, OnnxOperator>;
[[nodiscard]] const OnnxOperators& onnx_arithmetic_operators();
[[nodiscard]] const OnnxOperators& onnx_reduction_operators();
[[nodiscard]] const OnnxOperators& onnx_shape_operators();
[[nodiscard]] const OnnxOperators& onnx_index_operators();
[[nodiscard]] const OnnxOperators& onnx_network_operators();
[[nodiscard]] const OnnxOperators& onnx_matrix_operators();
[[nodiscard]] const OnnxOperators& onnx_sequence_operators();
[[nodiscard]] const OnnxOperators& onnx_quantized_operators();

// Which dimensions of operands have to be alike.
struct OnnxMeeting {
  bool broadcasts = false;                            // or 1
  std::optional<std::size_t> but_for = std::nullopt;  // one
  std::size_t but_for_last = 0;                       // the last ones
};

class OnnxLowering {
 public:
  OnnxLowering(const facts::OnnxModel& model, std::string name, const SampleShape& sample,
               OnnxShapes* shapes);

  [[nodiscard]] Result<Graph> run();

  // --- For the operators ---

  void refuse(Error error) {
    if (!error_) error_ = std::move(error);
  }
  [[nodiscard]] bool well() const { return !error_.has_value(); }
  [[nodiscard]] const std::string& name() const { return name_; }

  // Appends an operator; its outputs are added by `result`.
  Operator& append(OperatorKind kind, const OnnxCall& call, std::vector<TensorRef> inputs);
  // A further output of the operator just appended.
  [[nodiscard]] OnnxValue result(const OnnxCall& call, Shape shape,
                                 ElementKind kind = ElementKind::real);
  // Both.
  [[nodiscard]] OnnxValue emit(OperatorKind kind, const OnnxCall& call,
                               const std::vector<const OnnxValue*>& inputs, Shape shape,
                               ElementKind of = ElementKind::real);
  [[nodiscard]] Operator& last() { return block_.operators.back(); }
  [[nodiscard]] Operator& made_by(const OnnxValue& value) {
    return block_.operators.at(static_cast<std::size_t>(value.producer));
  }
  // As an operand: weights become parameters, constants are made anew.
  [[nodiscard]] TensorRef operand(const OnnxCall& call, const OnnxValue& value);
  // The weight that an initializer is, for a weight's place in an operator.
  [[nodiscard]] std::int32_t weight(const OnnxValue& value, WeightRole role);
  // Whether weights lie in nodes (Constant, ConstantOfShape): the file stores none apart.
  [[nodiscard]] bool weights_in_nodes() const { return weights_in_nodes_; }
  // Such a weight: its place in the file bears no name of a tensor.
  void add_weight(OnnxValue& value, const std::string& name);
  void add_buffer(const OnnxValue& value);
  // The same tensor under a name of its own.
  [[nodiscard]] const facts::OnnxTensor* renamed(const facts::OnnxTensor& tensor,
                                                 const std::string& name);
  // The same elements under another shape; copied first where their order does not allow it.
  [[nodiscard]] OnnxValue viewed(const OnnxCall& call, const OnnxValue& value, const Shape& shape,
                                 std::optional<BatchPlaces> places = std::nullopt);
  [[nodiscard]] OnnxValue ordered(const OnnxCall& call, const OnnxValue& value);

  // --- A batch that is a number in the file ---

  // Whether the job wants another batch than the one that the file fixes.
  [[nodiscard]] bool moves_batch() const { return fixed_batch > 0 && fixed_batch != graph.batch; }
  // The shape with the job's batch; strides are always of that.
  [[nodiscard]] Shape sized(const Shape& shape, const BatchPlaces& places) const {
    return moves_batch() ? with_batch(shape, places, graph.batch) : shape;
  }
  // Says where the batch lies in a fresh result, which lies in order.
  void place(OnnxValue& value, BatchPlaces places);
  // Operands that have to have the same sizes: what is as large as the batch beside a dimension
  // of the batch is made of it too, though a number in the file hides that.
  void meet(const OnnxCall& call, std::vector<OnnxValue>& operands, const OnnxMeeting& meeting);
  void refuse_batch(const OnnxCall& call, const std::string& what);

  // Whether this is the only reader of the value.
  [[nodiscard]] bool read_once(const OnnxValue& value) const;
  // Inlines the branch of an If, or a function; outputs in order.
  void inline_graph(OnnxCall& call, const facts::OnnxGraph& graph);

  Graph graph;
  std::int64_t fixed_batch = 0;  // what the file says where its batch is no symbol; 0: a symbol
  std::string batch_input;       // the input that says so

 private:
  using Values = std::unordered_map<std::string, OnnxValue>;
  // Names seen from a graph: its own, then those around it (not for functions).
  struct Scope {
    Values values;
    const Scope* outer = nullptr;
    const facts::OnnxNode* called = nullptr;  // of a function: where its attributes come from
    const facts::OnnxFunction* function = nullptr;
  };

  void start(Scope& scope);
  void add_initializers(const std::vector<facts::OnnxTensor>& tensors, Scope& scope);
  void lower_nodes(const std::vector<facts::OnnxNode>& nodes, Scope& scope);
  void lower_node(const facts::OnnxNode& node, Scope& scope);
  void refuse_operator(const facts::OnnxNode& node);
  void lower_function(const facts::OnnxFunction& function, OnnxCall& call);
  void adopt_weights(OnnxCall& call);
  void cut(OnnxCall& call, const Scope& scope);
  void cut_at(const OnnxCall& call, const OnnxValue& value);
  void cut_inside(const OnnxCall& call, const facts::OnnxGraph& inner, const Scope& scope);
  [[nodiscard]] const OnnxValue* find(const std::string& name, const Scope& scope) const;
  [[nodiscard]] const facts::OnnxFunction* function_of(const facts::OnnxNode& node) const;
  [[nodiscard]] std::int64_t version_of(const std::string& domain) const;
  void count_uses(const std::vector<facts::OnnxNode>& nodes);
  [[nodiscard]] OnnxValue with_place(const OnnxCall& call, const OnnxValue& value,
                                     const BatchPlaces& places);
  // The tensor of equal values, perhaps transposed, that was met before; else itself.
  [[nodiscard]] const facts::OnnxTensor* first_of(const facts::OnnxTensor& tensor);
  void check_batch(const OnnxCall& call);
  void move_batch();
  void finish(const Scope& scope);

  const facts::OnnxModel& model_;
  std::string name_;
  SampleShape sample_;
  OnnxShapes* shapes_;
  Block block_;
  std::vector<BatchPlaces> places_, shared_places_;  // of the block's and the shared tensors
  std::optional<Error> error_;
  std::unordered_map<const facts::OnnxTensor*, std::int32_t> weights_;
  bool weights_in_nodes_ = false;
  std::deque<facts::OnnxTensor> renamed_;
  std::map<std::string, OnnxValue> adopted_;  // weights that lie in nodes, by the value's name
  std::map<std::vector<std::uint64_t>, const facts::OnnxTensor*> matrices_;  // by diagonal
  std::unordered_map<std::string, std::int64_t> uses_;
  std::string cut_behind_;           // the first node whose result has no size of its own
  std::vector<OnnxValue> cut_here_;  // what a gradient comes from that such nodes read
  const Scope* scope_ = nullptr;     // of the node being lowered
  std::int64_t depth_ = 0;
  std::int64_t lowered_ = 0;
};

// Clip of known numbers (paddings that an exporter computed): its first output, made already.
void fold_onnx_clip(OnnxCall& call);

// The graph's inputs for this sample: batch, sequence and picture put in where the file has
// symbols. Fills `graph`'s shared tensors and sizes; one value per input.
[[nodiscard]] std::vector<OnnxValue> onnx_inputs(OnnxLowering& lowering,
                                                 const facts::OnnxGraph& graph,
                                                 const SampleShape& sample);

// The nodes in an order in which each comes behind what it reads. Errors: names made twice, cycles.
[[nodiscard]] Result<std::vector<facts::OnnxNode>> ordered_nodes(
    const std::vector<facts::OnnxNode>& nodes, const std::string& name);

// Operators that an exporter wrote out, put together again: GELU, SiLU, layer and group norm.
void fuse_onnx_nodes(std::vector<facts::OnnxNode>& nodes, const facts::OnnxGraph& graph);

[[nodiscard]] ElementKind kind_of_onnx(facts::OnnxElement element);

}  // namespace steelyard::model
