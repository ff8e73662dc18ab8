#include "catalog/mig.h"

#include <algorithm>

#include "catalog/settings.h"
#include "codec/codec.h"

namespace steelyard::catalog {
namespace {

constexpr double kGibi = 1024.0 * 1024.0 * 1024.0;
constexpr std::int64_t kComputeSlices = 7, kMostSlices = 16;

Error wrong(const std::filesystem::path& file, std::string subject, std::string accepted) {
  return {.code = ErrorCode::bad_input,
          .subject = std::move(subject),
          .accepted = std::move(accepted),
          .file = file.string()};
}

// A table without one of its keys, which is read by itself.
facts::Value without(facts::Value table, std::string_view key) {
  if (facts::Object* keys = table.as_object()) {
    std::erase_if(*keys, [key](const auto& member) { return member.first == key; });
  }
  return table;
}

const facts::Array* list_at(const facts::Value& table, std::string_view key) {
  const facts::Value* value = table.find(key);
  return value == nullptr ? nullptr : value->as_array();
}

Result<facts::MigProfile> profile_from(const facts::Value& table, const facts::MigTable& card,
                                       std::int64_t card_sms, Bytes memory,
                                       const std::filesystem::path& file) {
  const facts::Value head = without(table, "starts");
  Settings settings(head, file);
  facts::MigProfile profile;
  profile.name = settings.text("name");
  profile.compute = settings.whole("compute");
  profile.width = settings.whole("width");
  const auto share = [](std::int64_t part, std::int64_t whole) {
    return Ratio(static_cast<double>(part) / static_cast<double>(whole));
  };
  profile.memory_share = share(profile.width, card.memory_slices);
  profile.sm_share = settings.has("sms") ? share(settings.whole("sms"), card_sms)
                                         : share(profile.compute, card.compute_slices);
  profile.memory = settings.has("memory_gib")
                       ? Bytes(checked_round(settings.real("memory_gib") * kGibi))
                       : memory * profile.memory_share;
  STEELYARD_CHECK(settings.finish());
  const facts::Array* starts = list_at(table, "starts");
  for (const facts::Value& start : starts == nullptr ? facts::Array() : *starts) {
    if (start.as_whole() != nullptr) profile.starts.push_back(*start.as_whole());
  }
  const bool sane = profile.compute >= 1 && profile.width >= 1 &&
                    profile.width <= card.memory_slices && !profile.starts.empty();
  if (!sane)
    return fail(wrong(file, profile.name, "compute, width and starts of the card's slices"));
  return profile;
}

Result<facts::MigTable> card_from(const facts::Value& table, Bytes memory,
                                  const std::filesystem::path& file) {
  const facts::Value head = without(without(table, "profiles"), "gpus");
  Settings settings(head, file);
  facts::MigTable card;
  card.memory_slices = settings.whole("memory_slices");
  const std::int64_t card_sms = settings.whole("card_sms");
  card.source = settings.text("source");
  STEELYARD_CHECK(settings.finish());
  if (card.memory_slices < 1 || card.memory_slices > kMostSlices || card_sms < 1) {
    return fail(wrong(file, "memory_slices, card_sms", "whole numbers above 0"));
  }
  card.compute_slices = std::min(card.memory_slices, kComputeSlices);
  const facts::Array* profiles = list_at(table, "profiles");
  for (const facts::Value& profile : profiles == nullptr ? facts::Array() : *profiles) {
    STEELYARD_TRY(read, profile_from(profile, card, card_sms, memory, file));
    card.profiles.push_back(std::move(read));
  }
  if (card.profiles.empty()) return fail(wrong(file, "profiles", "at least one"));
  return card;
}

}  // namespace

Result<facts::MigTable> mig_table(const Catalog& catalog, const facts::Gpu& gpu) {
  const std::filesystem::path file = catalog.folder() / "mig.toml";
  STEELYARD_TRY(value, codec::read_value(file));
  const facts::Array* cards = list_at(value, "cards");
  for (const facts::Value& card : cards == nullptr ? facts::Array() : *cards) {
    const facts::Array* gpus = list_at(card, "gpus");
    if (gpus == nullptr) return fail(wrong(file, "cards.gpus", "a list of ids of gpus.json"));
    const bool is_this = std::ranges::any_of(*gpus, [&](const facts::Value& id) {
      return id.as_text() != nullptr && *id.as_text() == gpu.id;
    });
    if (is_this) return card_from(card, gpu.memory.value.value_or(Bytes()), file);
  }
  return fail({.code = ErrorCode::not_supported,
               .subject = "--mig",
               .found = gpu.id,
               .accepted = "a card that divides into MIG instances and is in catalog/mig.toml",
               .hint = "--time-slice lets jobs take turns on any card"});
}

}  // namespace steelyard::catalog
