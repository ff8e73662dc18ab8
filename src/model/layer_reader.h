// Reads the layers of a block of a network described as data and writes them down as operators.
//
// A layer changes the current tensor: a picture [B,C,h,w], a picture with its channels last
// [B,h,w,C], tokens [B,S,H] or rows [B,F]. Layers may read it as variables: `in` (channels or
// width), `h` and `w` (of a picture), `tokens`; besides `batch`, `classes`, `index` (of a repeated
// block) and those of the description. docs/model/layers.md lists all kinds.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "model/block_builder.h"
#include "model/layer_arguments.h"

namespace steelyard::model {

// What all blocks of a network share.
struct LayerNetwork {
  const facts::Value* blocks = nullptr;  // named lists of layers
  std::vector<TensorRef> targets;        // what the loss compares with
};

class LayerReader {
 public:
  LayerReader(BlockBuilder& block, const LayerNetwork& network, Scope scope,
              std::optional<LayerFault>& fault)
      : block_(block), network_(network), scope_(std::move(scope)), fault_(fault) {}

  struct Current {
    TensorRef tensor;
    bool channels_last = false;  // of four dimensions
  };
  void start(Current current) { now_ = current; }
  [[nodiscard]] const Current& current() const { return now_; }

  void run(const facts::Array& layers);
  void run_layer(const facts::Object& layer);

 private:
  using Method = void (LayerReader::*)(LayerArguments&);
  struct Kind {
    const char* name;
    Method read;
  };
  static const std::vector<Kind>& kinds();

  // layer_reader.cpp: layers that hold layers, and names for tensors.
  void read_use(LayerArguments& layer);
  void read_residual(LayerArguments& layer);
  void read_gate(LayerArguments& layer);
  void read_branches(LayerArguments& layer);
  void read_save(LayerArguments& layer);
  void read_load(LayerArguments& layer);
  void read_add(LayerArguments& layer);
  void read_join(LayerArguments& layer);
  void read_loss(LayerArguments& layer);
  // layer_kinds.cpp: one operator each.
  void read_conv(LayerArguments& layer);
  void read_batch_norm(LayerArguments& layer);
  void read_frozen_norm(LayerArguments& layer);
  void read_group_norm(LayerArguments& layer);
  void read_layer_norm(LayerArguments& layer);
  void read_linear(LayerArguments& layer);
  void read_activation(LayerArguments& layer);
  void read_max_pool(LayerArguments& layer);
  void read_average_pool(LayerArguments& layer);
  void read_global_pool(LayerArguments& layer);
  void read_upsample(LayerArguments& layer);
  void read_match(LayerArguments& layer);
  void read_roi_align(LayerArguments& layer);
  void read_scale(LayerArguments& layer);
  void read_dropout(LayerArguments& layer);
  void read_drop_path(LayerArguments& layer);
  void read_add_weight(LayerArguments& layer);
  void read_widen(LayerArguments& layer);
  // layer_tokens.cpp: other shapes, and attention.
  void read_tokens(LayerArguments& layer);
  void read_channels_last(LayerArguments& layer);
  void read_channels_first(LayerArguments& layer);
  void read_transpose(LayerArguments& layer);
  void read_shape(LayerArguments& layer);
  void read_flatten(LayerArguments& layer);
  void read_fold(LayerArguments& layer);
  void read_class_token(LayerArguments& layer);
  void read_first_token(LayerArguments& layer);
  void read_attention(LayerArguments& layer);
  void read_windows(LayerArguments& layer);

  // The current tensor's shape; nothing, and a fault, where it has other dimensions.
  [[nodiscard]] const Shape* of_rank(LayerArguments& layer, std::size_t rank);
  [[nodiscard]] const Shape* picture(LayerArguments& layer);  // [B,C,h,w]
  void pool(LayerArguments& layer, bool largest);
  [[nodiscard]] std::optional<Current> saved(LayerArguments& layer, const std::string& name);
  void tell_sizes();
  void set(TensorRef tensor) { now_.tensor = tensor; }

  BlockBuilder& block_;
  const LayerNetwork& network_;
  Scope scope_;
  std::optional<LayerFault>& fault_;
  Current now_;
  std::map<std::string, Current> saved_;
  int depth_ = 0;
};

}  // namespace steelyard::model
