#include "plan/sample_bytes.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/latent_source.h"
#include "plan/objective.h"

namespace steelyard::plan {

namespace {

// What loaders hand over, and what of it crosses the link to a card.
struct Batch {
  model::Brought loaded, copied;
};

// An autoencoder makes latents of what was decoded: on the card, or on the host before the copy.
Batch batch_of(const Request& request, const facts::Job& job) {
  const facts::DataKind kind = job.data.kind.value_or(facts::DataKind::synthetic);
  if (kind != facts::DataKind::jpeg && kind != facts::DataKind::png &&
      kind != facts::DataKind::video) {
    return {};
  }
  bool pixels = false, latents = false, states = false;
  for (std::size_t i = 0; i < request.companions.size(); ++i) {
    const facts::Value* name = request.companions[i].config.find("_class_name");
    const std::string* text = name != nullptr ? name->as_text() : nullptr;
    const facts::CompanionHeld held = job.model.companions.at(i).held;
    const bool on_host = held == facts::CompanionHeld::cpu;
    if (text == nullptr || !model::is_autoencoder(*text)) {
      states |= on_host;
    } else if (held != facts::CompanionHeld::load) {
      pixels = true;
      latents |= on_host;
    }
  }
  if (!pixels) return {};
  return {.loaded = {.pixels = true, .tokens = true},
          .copied = {.pixels = !latents, .tokens = !states}};
}

}  // namespace

// One sample in host memory as the loader hands it over. Loaders of data.loader write pictures as
// pixels and everything else as it is stored, each with room for the largest: of n sizes that
// vary normally, about sqrt(2 ln n) deviations above the mean.
Bytes sample_bytes(const Request& request, const model::Graph& graph, const facts::Job& job) {
  if (const auto& loader = request.constants.host.loader) {
    const facts::DataKeys& data = job.data;
    const bool pictures = data.kind == facts::DataKind::jpeg || data.kind == facts::DataKind::png;
    if (pictures && job.train.image_size.size() == 2) {
      const double pixels = static_cast<double>(job.train.image_size[0]) *
                            static_cast<double>(job.train.image_size[1]);
      return Bytes(checked_round(pixels * 3.0 * loader->bytes_per_value));
    }
    if (data.bytes_per_sample) {
      const auto count = static_cast<double>(std::max<std::int64_t>(2, data.samples.value_or(2)));
      return Bytes(checked_round(*data.bytes_per_sample + data.bytes_deviation.value_or(0.0) *
                                                              std::sqrt(2.0 * std::log(count))));
    }
  }
  return ceil_divide(model::brought_bytes(graph, batch_of(request, job).loaded),
                     graph.batch / rows_of_sample(job));
}

std::optional<Bytes> copied_bytes(const Request& request, const model::Graph& graph,
                                  const facts::Job& job) {
  const auto [loaded, copied] = batch_of(request, job);
  if (loaded.pixels == copied.pixels && loaded.tokens == copied.tokens) return std::nullopt;
  return ceil_divide(model::brought_bytes(graph, copied), graph.batch / rows_of_sample(job));
}

}  // namespace steelyard::plan
