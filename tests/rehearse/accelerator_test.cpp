#include "rehearse/accelerator.h"

#include <gtest/gtest.h>

#include <thread>

namespace steelyard::rehearse {
namespace {

// One accelerator whose batches come `every` so often, by the clock and not by the thread that
// makes them; it runs for `steps` steps.
double utilization_of(Nanoseconds step, Nanoseconds every, int steps) {
  Ledger ledger;
  auto batches = Batches::make(2, 1, 64, ledger);
  std::atomic<bool> stop{false};
  AcceleratorTime time;
  std::jthread accelerator([&] { run_accelerator(**batches, step, stop, time, [&] {}); });
  Nanoseconds due = now(), waited = 0;
  for (int i = 0; i < steps + 1; ++i, due += every) {
    const auto place = (*batches)->claim(waited);
    const timespec until{.tv_sec = due / 1'000'000'000, .tv_nsec = due % 1'000'000'000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr);
    (*batches)->written(*place);
  }
  while (time.steps() < steps) std::this_thread::yield();
  stop = true;
  (*batches)->close();
  accelerator.join();
  return utilization(time.summed()).value();
}

// The bounds are wide because the machine may be busy; docs/rehearse.md has the exact figures.
TEST(Accelerator, NeverShortIsFullyUsed) {
  EXPECT_GT(utilization_of(20'000'000, 0, 20), 0.9);
}

TEST(Accelerator, ShortByHalfIsHalfUsed) {
  EXPECT_NEAR(utilization_of(20'000'000, 40'000'000, 20), 0.5, 0.1);
}

TEST(Accelerator, TheFirstStepDoesNotCount) {
  AcceleratorTime time;
  time.step(1'000'000'000, 10);
  time.step(0, 10);
  time.step(0, 10);
  EXPECT_DOUBLE_EQ(utilization(time.summed()).value(), 1.0);
  time.waited_in_vain(20);
  EXPECT_DOUBLE_EQ(utilization(time.summed()).value(), 0.5);
  EXPECT_EQ(time.steps(), 3);
}

TEST(Batches, AreTakenInTheOrderAskedFor) {
  Ledger ledger;
  auto batches = Batches::make(3, 2, 64, ledger);
  Nanoseconds waited = 0;
  std::vector<Batches::Place> places;
  for (int i = 0; i < 6; ++i) places.push_back(*(*batches)->claim(waited));
  // The second batch is full first.
  for (const int i : {2, 3, 0, 1}) (*batches)->written(places[static_cast<std::size_t>(i)]);
  EXPECT_EQ((*batches)->take()->batch, places[2].batch);
  EXPECT_EQ((*batches)->take()->batch, places[0].batch);
  EXPECT_EQ(ledger.held(Kind::batches), Bytes(4096));
  (*batches)->close();
  EXPECT_FALSE((*batches)->take());
  EXPECT_FALSE((*batches)->claim(waited));
}

}  // namespace
}  // namespace steelyard::rehearse
