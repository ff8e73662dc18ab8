#include "sense/tree.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace steelyard::sense {
namespace {

class TreeTest : public testing::Test {
 protected:
  TreeTest()
      : root_(std::filesystem::temp_directory_path() / ("tree." + std::to_string(getpid()))) {
    std::filesystem::create_directories(root_ / "sys/node");
    std::ofstream(root_ / "sys/node/size") << "4096\n";
    std::ofstream(root_ / "sys/node/list") << "0-3,8 \n";
  }
  ~TreeTest() override { std::filesystem::remove_all(root_); }
  TreeTest(const TreeTest&) = delete;
  TreeTest& operator=(const TreeTest&) = delete;

  std::filesystem::path root_;
};

TEST_F(TreeTest, ReadsBelowItsRoot) {
  const Tree tree(root_);
  EXPECT_FALSE(tree.live());
  EXPECT_EQ(tree.number("/sys/node/size"), 4096);
  EXPECT_EQ(tree.text("/sys/node/list"), "0-3,8");
  EXPECT_EQ(tree.names("/sys/node"), (std::vector<std::string>{"list", "size"}));
}

TEST_F(TreeTest, WhatIsNotThereIsNothing) {
  const Tree tree(root_);
  EXPECT_EQ(tree.text("/sys/none"), std::nullopt);
  EXPECT_EQ(tree.text("/sys/node"), std::nullopt);
  EXPECT_EQ(tree.number("/sys/node/list"), std::nullopt);
  EXPECT_TRUE(tree.names("/sys/none").empty());
}

TEST(Tree, TheRootIsThisMachine) {
  EXPECT_TRUE(Tree().live());
  EXPECT_TRUE(Tree().text("/proc/meminfo").has_value());
}

TEST_F(TreeTest, LinksAreReadAsTheyAreWritten) {
  std::filesystem::create_symlink("../sys/node", root_ / "sys/link");
  const Tree tree(root_);
  EXPECT_EQ(tree.link("/sys/link"), "../sys/node");
  EXPECT_EQ(tree.link("/sys/node"), std::nullopt);
  EXPECT_TRUE(tree.exists("/sys/node/size"));
  EXPECT_FALSE(tree.exists("/sys/none"));
}

TEST_F(TreeTest, RemembersWhatItWasAskedFor) {
  const Tree tree = Tree(root_).remembering();
  const Tree copy = tree;
  (void)copy.text("/sys/none");
  (void)tree.names("/sys/node");
  EXPECT_EQ(tree.asked(), (std::set<std::string>{"/sys/node", "/sys/none"}));
  EXPECT_TRUE(Tree(root_).asked().empty());
}

}  // namespace
}  // namespace steelyard::sense
