// The vocabulary of framework profiles against the engine that reads it.
#include <string>

#include "catalog/files.h"
#include "planning.h"
#include "step/adapters.h"
#include "step/variants.h"

namespace steelyard::plan {
namespace {

// Words that stand in catalog/framework_words.toml are words that the engine takes: what a profile
// is told to say is not refused later.
TEST(FrameworkWords, TheEngineTakesEveryWordOfTheVocabulary) {
  catalog::Files files(own_catalog().folder());
  const auto vocabulary = value_of(files.read("framework_words.toml"));
  const auto plain = value_of(own_catalog().constants("pytorch")).framework;
  std::size_t read = 0;
  for (const auto& [key, entry] : *vocabulary->as_object()) {
    EXPECT_NE(entry.find("about"), nullptr) << key;
    EXPECT_NE(entry.find("words") == nullptr, entry.find("takes") == nullptr) << key;
    if (entry.find("words") == nullptr) continue;
    for (const auto& [word, meaning] : *entry.find("words")->as_object()) {
      EXPECT_NE(meaning.as_text(), nullptr) << key << ' ' << word;
      facts::FrameworkProfile profile = plain;
      profile.operators.insert_or_assign(key, word);
      const auto variants = step::variants_of(profile, {}, {});
      EXPECT_TRUE(variants.has_value()) << (variants ? "" : to_text(variants.error()));
      const auto habits = step::adapter_habits_of(profile, "diffusers");
      EXPECT_TRUE(habits.has_value()) << (habits ? "" : to_text(habits.error()));
      ++read;
    }
  }
  EXPECT_GT(read, 100U);
}

}  // namespace
}  // namespace steelyard::plan
