// Rows of saved_tensors.json, and the live bytes of a trace as the recorder of those rows counted
// them: each storage rounded up to 512.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codec/codec.h"
#include "step/block_trace.h"
#include "vectors/vectors_folder.h"

namespace steelyard::testing {

inline std::int64_t whole(const facts::Value& row, std::string_view key) {
  return *row.find(key)->as_whole();
}
inline const std::string& text(const facts::Value& row, std::string_view key) {
  return *row.find(key)->as_text();
}
inline double real(const facts::Value& row, std::string_view key) {
  const facts::Value* value = row.find(key);
  return value->as_real() != nullptr ? *value->as_real() : static_cast<double>(*value->as_whole());
}

inline std::vector<facts::Value> rows_of(std::string_view table) {
  const auto file = codec::read_value(vectors_folder() / "saved_tensors.json");
  EXPECT_TRUE(file) << (file ? "" : to_text(file.error()));
  if (!file) return {};
  const facts::Value* rows = file->find(table);
  return rows == nullptr ? std::vector<facts::Value>() : *rows->as_array();
}

inline std::string name_of_row(const facts::Value& row) {
  return codec::to_json(*row.find("dims"), -1);
}

// What fake tensors show: no kernels' workspaces, and sums of gradients are new tensors.
inline step::BlockOptions recorded_options(const std::string& mode) {
  step::BlockOptions options;
  options.tape.kernel_temporaries = false;
  options.tape.sum_in_place = false;
  options.tape.composite_silu_backward = true;
  options.frames = step::Frames::function;
  options.tape.arithmetic.compute = mode == "fp32" ? facts::DType::fp32 : facts::DType::bf16;
  options.tape.arithmetic.autocast = mode == "amp_bf16";
  options.weight_dtype = mode == "bf16" ? facts::DType::bf16 : facts::DType::fp32;
  options.variants.key_value_repeat = step::KeyValueRepeat::grouped;
  return options;
}

// A tensor that exists before and after.
inline step::Tensor outside(std::int64_t numel, facts::DType dtype) {
  step::Tensor tensor;
  tensor.storage = std::make_shared<step::Storage>();
  tensor.storage->external = true;
  tensor.storage->bytes = step::bytes_of(numel, dtype);
  tensor.numel = numel;
  tensor.dtype = dtype;
  return tensor;
}

class Tracker {
 public:
  explicit Tracker(const step::Program& program) : program_(program) {}

  // `instance`: the layer whose events these are.
  void play(const std::vector<step::Event>& events, std::int64_t instance) {
    for (const step::Event& event : events) {
      switch (event.kind) {
        case step::EventKind::allocate: on_allocate({event.index, instance}); break;
        case step::EventKind::free:
          live_ -= std::exchange(alive_[{event.index, instance}], Bytes());
          break;
        case step::EventKind::carry:
          carried_ = std::exchange(alive_[{event.index, instance}], Bytes());
          break;
        case step::EventKind::adopt:
          alive_[{event.index, instance}] = std::exchange(carried_, Bytes());
          break;
        default: break;
      }
    }
  }
  // What the last layer handed over stays with whoever called.
  void keep_carried() { carried_ = Bytes(); }
  void add_outside(Bytes bytes) {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
  }
  void reset_peak() { peak_ = live_; }
  [[nodiscard]] Bytes live() const { return live_; }
  [[nodiscard]] Bytes peak() const { return peak_; }

 private:
  using Allocation = std::pair<std::int32_t, std::int64_t>;
  void on_allocate(Allocation allocation) {
    const Bytes bytes = program_.slots[static_cast<std::size_t>(allocation.first)].bytes;
    alive_[allocation] = round_up(bytes, Bytes(512));
    add_outside(alive_[allocation]);
  }

  const step::Program& program_;
  std::map<Allocation, Bytes> alive_;
  Bytes carried_, live_, peak_;
};

}  // namespace steelyard::testing
