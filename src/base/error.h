// What went wrong, in the words of the person who has to mend it, and Result<T> that carries it.
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <utility>

namespace steelyard {

enum class ErrorCode {
  bad_input,      // a file or argument is malformed or has a value out of range
  unknown_name,   // a name that no catalogue, key or command has
  not_supported,  // understood, but this version cannot do it: said, never ignored
  missing_value,  // a needed figure is unknown (null in the catalogue, not given in the job)
  impossible_combination,  // each value is legal, together they are not
  unreadable,              // a file cannot be opened or read
  too_large,               // an input exceeds a stated limit
  internal,                // our bug
};

struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string subject{};   // the thing: a key, file, name ("train.micro_batch")
  std::string found{};     // what was there ("-3")
  std::string accepted{};  // what would be accepted ("a whole number from 1 to 1,000,000")
  std::string hint{};      // the likely fix or the command to try; may be empty
  std::string file{};      // where: empty when not from a file
  std::optional<int> line{};
};

template <class T>
using Result = std::expected<T, Error>;

[[nodiscard]] inline std::unexpected<Error> fail(Error error) {
  return std::unexpected<Error>(std::move(error));
}

// "job.toml:12: train.micro_batch: found -3; accepted: a whole number from 1 to 1000000. hint"
[[nodiscard]] std::string to_text(const Error& error);

// The short name of a code, as printed in --json errors ("bad_input").
[[nodiscard]] const char* name_of(ErrorCode code);

}  // namespace steelyard

// Declares `name` from a Result-valued expression or returns its error from the enclosing function.
#define STEELYARD_TRY(name, expression)                                           \
  auto name##_result = (expression);                                              \
  if (!name##_result)                                                             \
    return std::unexpected<::steelyard::Error>(std::move(name##_result).error()); \
  auto& name = *name##_result

// The same for Result<void> and for results whose value is not needed.
#define STEELYARD_CHECK(expression)                                                  \
  do {                                                                               \
    if (auto checked_result = (expression); !checked_result)                         \
      return std::unexpected<::steelyard::Error>(std::move(checked_result).error()); \
  } while (false)
