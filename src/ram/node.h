// What the rules of this room need to know of one node, read once from the request.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "ram/ram.h"

namespace steelyard::ram {

using Notes = std::vector<facts::RamRule>;
using facts::Provenance;

struct Node {
  const facts::Job& job;
  const facts::Machine& machine;
  const step::StateSizes& states;
  const facts::HostConstants& constants;

  std::int64_t ranks = 1;  // processes on this node: one per GPU used
  std::int64_t nodes = 1;
  std::int64_t model_parallel = 1;  // ranks that split one copy of the model: tensor x pipeline
  std::int64_t shards = 1;          // data-parallel ranks that split the sharded states
  std::int64_t workers = 0;         // loader processes per rank
  Bytes batch = Bytes();            // one micro-batch in host memory, ready for the GPU

  // Of the framework's profile; "" or nothing where it does not say.
  Provenance process_from = Provenance::catalogue;  // how `process` is known
  std::string process_source{};
  std::string_view loading{};  // "whole": each rank makes the whole model in host memory
  Bytes process{};             // a rank's own pages: interpreter, framework, CUDA host side
  Bytes libraries{};           // mapped programs and libraries, which the ranks share
  Bytes steps{};               // what the first steps add to a rank: kernels, threads
  Bytes worker{};              // a loader process's own pages, without its samples
  bool borrows_rules = false;  // no PyTorch: what nobody measured of it is taken to be PyTorch's
  bool threads = false;        // loaders are threads of the rank: one copy of everything
  Ratio load_copies = Ratio(1.0);  // of the state, in a rank that loads it by itself
  Ratio staging_copies{};          // of what a checkpoint's snapshot holds; 0: one, page-locked
  std::optional<facts::VramBytes> tensors{};  // of a rank, where they lie in host memory
};

// Errors: missing_value when a key that plan/resolve.h fills is absent.
[[nodiscard]] Result<Node> node_of(const Request& request);

// Tensor, pipeline and data-parallel sharding together: whether no rank holds the whole state.
[[nodiscard]] inline bool is_split(const Node& node) {
  return node.shards > 1 || node.model_parallel > 1;
}

// Whether ranks divide the parameters themselves: ZeRO-1 and -2 divide states and gradients alone.
[[nodiscard]] inline bool splits_parameters(const Node& node) {
  const facts::Sharding sharding = node.job.parallel.sharding;
  const bool states_alone =
      sharding == facts::Sharding::zero1 || sharding == facts::Sharding::zero2;
  return node.model_parallel > 1 || (node.shards > 1 && !states_alone);
}

// Ranks that each weight is divided among; stages of a pipeline have other weights.
[[nodiscard]] inline std::int64_t parts_of_a_weight(const Node& node) {
  return checked_multiply(std::max<std::int64_t>(1, node.job.parallel.tensor), node.shards);
}

// A rule that PyTorch's code or a recording of it gave; for other software it is an assumption.
[[nodiscard]] inline facts::RamRule of_pytorch(const Node& node, std::string sentence,
                                               Provenance from, std::string source) {
  if (!node.borrows_rules) return {std::move(sentence), from, std::move(source)};
  return {std::move(sentence), Provenance::assumed, "as PyTorch: " + source};
}

// "1 rank", "8 ranks".
[[nodiscard]] inline std::string ranks_text(std::int64_t ranks) {
  return ranks == 1 ? "1 rank" : std::to_string(ranks) + " ranks";
}

// Of every one: "the rank", "each of 8 ranks".
[[nodiscard]] inline std::string each_rank(std::int64_t ranks) {
  return ranks == 1 ? "the rank" : "each of " + ranks_text(ranks);
}

}  // namespace steelyard::ram
