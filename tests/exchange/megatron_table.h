// The table of arguments as the catalogue holds it, for the tests of this room.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>

#include "codec/codec.h"
#include "exchange/megatron_arguments.h"

namespace steelyard::exchange {

inline const facts::Value& megatron_table() {
  static const facts::Value table = [] {
    const auto read = codec::read_value(std::filesystem::path(STEELYARD_SOURCE_DIR) / "catalog" /
                                        "import" / "megatron.toml");
    EXPECT_TRUE(read) << (read ? "" : to_text(read.error()));
    return read.value_or(facts::Value());
  }();
  return table;
}

inline Result<MegatronArguments> arguments_of(const facts::Value& given) {
  return MegatronArguments::read(given, {}, megatron_table());
}

}  // namespace steelyard::exchange
