// The pages of `steelyard model`: a table of operators, the tree of modules, two models side by
// side.
#include <fmt/format.h>

#include <algorithm>

#include "base/format.h"
#include "base/text.h"
#include "base/text_table.h"
#include "report/module_tree.h"
#include "report/paint.h"
#include "report/report.h"

namespace steelyard::report {
namespace {

using facts::ModelPart;
using facts::ModelTable;

std::string flops_words(Flops flops) {
  return flops.value() > 0.0 ? to_text(flops) : "";
}
std::string bytes_words(Bytes bytes) {
  return bytes > Bytes(0) ? to_text(bytes) : "";
}
std::string parameters_words(Parameters parameters) {
  return parameters > Parameters(0) ? grouped(parameters.value()) : "";
}

std::string sample_words(const ModelTable& model) {
  std::string words = model.batch == 1 ? "1 sample" : grouped(model.batch) + " samples";
  if (model.row_bytes > 0) {
    constexpr std::int64_t kColumn = 4;  // a label and a number of each feature
    return words +
           fmt::format(" of {} features and a label", grouped(model.row_bytes / kColumn - 1));
  }
  const std::string written =
      model.decoder_sequence > 0
          ? fmt::format(", {} tokens written", grouped(model.decoder_sequence))
          : "";
  if (model.audio_seconds > 0.0) {
    return words + fmt::format(" of {:.4g} s of sound", model.audio_seconds) + written;
  }
  if (model.frames > 0) words += fmt::format(" of {} frames", grouped(model.frames));
  if (model.image_height > 0 && model.sequence > 1) {
    return words + fmt::format(" of {} tokens, pictures of {} x {} pixels", grouped(model.sequence),
                               model.image_height, model.image_width);
  }
  if (model.image_height > 0) {
    return words + fmt::format(" of {} x {} pixels", model.image_height, model.image_width);
  }
  if (model.sequence == 1) return words;
  return words + " of " + grouped(model.sequence) + " tokens" + written;
}

std::string heading(const ModelTable& model, const Paint& paint) {
  const std::string dot(paint.signs().separator);
  std::string text = paint.ink(paint.outside(model.name), Ink::strong) + dot +
                     paint.outside(model.model_type) + dot +
                     fmt::format("{} parameters ({})", grouped(model.parameters.value()),
                                 to_text(model.parameters));
  if (model.active != model.parameters) text += dot + to_text(model.active) + " active per token";
  if (model.trainable != model.parameters) {
    text += dot + grouped(model.trainable.value()) + " train";
  }
  return text + "\n" + sample_words(model) + dot + "forward " + to_text(model.forward_flops) + dot +
         fmt::format("{} saved for backward ({}, {})\n", to_text(model.saved), model.framework,
                     model.precision);
}

// A network that is planned as one block has no embedding apart.
std::string part_name(const ModelPart& part, bool only, const Paint& paint) {
  std::string name = only ? "network" : paint.outside(part.name);
  if (part.layers > 1) name += fmt::format(" {} {}", paint.signs().times, part.layers);
  return name;
}

void add_part(TextTable& table, const ModelPart& part, bool only, const Paint& paint) {
  table.add({part_name(part, only, paint), part.layers > 1 ? "each" : "", "",
             parameters_words(part.parameters), flops_words(part.forward_flops),
             bytes_words(part.saved)});
  for (const facts::ModelOperator& op : part.operators) {
    table.add({"  " + paint.outside(op.name), op.kind,
               op.output.empty() ? "" : fmt::format("[{}]", fmt::join(op.output, ", ")),
               parameters_words(op.parameters), flops_words(op.forward_flops),
               bytes_words(op.saved)});
  }
}

std::string held_words(const ModelTable& model) {
  std::string text;
  for (const facts::HeldParameters& held : model.held) {
    text +=
        "held in " + (held.dtype.empty() ? std::string("quantized storage") : held.dtype) + ": ";
    if (held.parameters > Parameters(0)) {
      text += grouped(held.parameters.value()) + " parameters, ";
    }
    text += to_text(held.bytes) + "\n";
  }
  return text;
}

std::string ratio_words(double a, double b) {
  return a > 0.0 ? fmt::format("{:.3g}", b / a) : "";
}

class Comparison {
 public:
  Comparison(const ModelTable& a, const ModelTable& b, const Paint& paint)
      : table_({{""},
                {paint.outside(a.name), Align::right},
                {paint.outside(b.name), Align::right},
                {"ratio", Align::right}}) {}

  void say(const char* what, const std::string& a, const std::string& b) {
    table_.add({what, a, b});
  }
  void count(const char* what, std::int64_t a, std::int64_t b) {
    table_.add({what, grouped(a), grouped(b),
                ratio_words(static_cast<double>(a), static_cast<double>(b))});
  }
  template <class Quantity>
  void amount(const char* what, Quantity a, Quantity b) {
    table_.add({what, to_text(a), to_text(b),
                ratio_words(static_cast<double>(a.value()), static_cast<double>(b.value()))});
  }
  [[nodiscard]] std::string text() const { return table_.text(0, "-"); }

 private:
  TextTable table_;
};

// The keys of the configurations that differ, as text.
std::string different_keys(const ModelTable& a, const ModelTable& b, const Paint& paint,
                           const std::function<std::string(const facts::Value&)>& write) {
  const facts::Object* left = a.config.as_object();
  const facts::Object* right = b.config.as_object();
  if (left == nullptr || right == nullptr) return "";
  constexpr std::size_t kWidest = 32;
  TextTable table({{"key"}, {paint.outside(a.name)}, {paint.outside(b.name)}});
  const auto words = [&](const facts::Value* value) {
    return value == nullptr ? std::string() : shortened(paint.outside(write(*value)), kWidest);
  };
  for (const auto& [key, value] : *left) {
    const facts::Value* other = b.config.find(key);
    if (other != nullptr && *other == value) continue;
    table.add({paint.outside(key), words(&value), words(other)});
  }
  for (const auto& [key, value] : *right) {
    if (a.config.find(key) == nullptr) table.add({paint.outside(key), "", words(&value)});
  }
  return table.empty() ? "" : "\n" + table.text(0, "-");
}

}  // namespace

std::string model_text(const ModelTable& model, const Style& style) {
  const Paint paint(style);
  TextTable table({{"operator"},
                   {"kind"},
                   {"output"},
                   {"parameters", Align::right},
                   {"forward", Align::right},
                   {"saved", Align::right}});
  const bool only = model.parts.size() == 1;
  for (const ModelPart& part : model.parts) add_part(table, part, only, paint);
  Parameters all;  // adapters too
  for (const ModelPart& part : model.parts) all += part.parameters * part.layers;
  table.add({"whole model", "", "", parameters_words(all), flops_words(model.forward_flops),
             bytes_words(model.saved)});
  std::string text = heading(model, paint) + "\n" + table.text(0, "-");
  if (!model.held.empty()) text += "\n" + held_words(model);
  if (!model.source.empty()) text += "\nsource: " + paint.outside(model.source) + "\n";
  for (const std::string& remark : model.remarks) text += "\nnote: " + paint.outside(remark) + "\n";
  return text;
}

std::string model_tree_text(const ModelTable& model, const Style& style) {
  const Paint paint(style);
  return heading(model, paint) + "\n" + module_tree(model, paint);
}

std::string models_compared(const ModelTable& a, const ModelTable& b, const Style& style,
                            const std::function<std::string(const facts::Value&)>& write) {
  const Paint paint(style);
  Comparison rows(a, b, paint);
  rows.say("type", paint.outside(a.model_type), paint.outside(b.model_type));
  rows.count("parameters", a.parameters.value(), b.parameters.value());
  rows.count("active per token", a.active.value(), b.active.value());
  rows.count("trainable", a.trainable.value(), b.trainable.value());
  rows.count("layers", a.layers, b.layers);
  rows.count("hidden size", a.hidden, b.hidden);
  rows.count("vocabulary", a.vocabulary, b.vocabulary);
  rows.say("micro-batch", sample_words(a), sample_words(b));
  rows.amount("forward", a.forward_flops, b.forward_flops);
  rows.amount("saved for backward", a.saved, b.saved);
  Bytes held_a, held_b;
  for (const facts::HeldParameters& held : a.held) held_a += held.bytes;
  for (const facts::HeldParameters& held : b.held) held_b += held.bytes;
  rows.amount("held parameters", held_a, held_b);
  return rows.text() + different_keys(a, b, paint, write);
}

}  // namespace steelyard::report
