// The wrapper itself: values return as written, failures are exceptions with HDF5's own reasons, ids are
// closed exactly once.
#include "checkpoint/h5.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace red::checkpoint::h5 {
namespace {

namespace fs = std::filesystem;

class H5Test : public testing::Test {
 protected:
  ~H5Test() override { fs::remove(path_); }

  File create() const {
    return File(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, file_access().get()));
  }
  template <class E, class F>
  static std::string error_of(const F& call) {
    try {
      call();
    } catch (const E& error) {
      return error.what();
    }
    return "no error";
  }
  static bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  const fs::path path_ = fs::temp_directory_path() / ("redllm-h5-" + std::to_string(getpid()) + ".h5");
};

TEST_F(H5Test, ValuesReturn) {
  const std::string long_text(200000, 'x');
  {
    const File file = create();
    write_text(file.get(), "text", "a \xc3\xa4\nb");
    write_text(file.get(), "nothing", "");
    write_text(file.get(), "long", long_text);
    write_int(file.get(), "int", -5);
    write_uint(file.get(), "uint", ~uint64_t{0});
    const Group group = create_group(file.get(), "group");
    write_texts(group.get(), "texts", {"one", "", "three"});
    write_texts(group.get(), "no_texts", {});
    write_all(group.get(), "numbers", {1, 2, 3});
  }
  const File file = open_file(path_);
  EXPECT_EQ(read_text(file.get(), "text", "here"), "a \xc3\xa4\nb");
  EXPECT_EQ(read_text(file.get(), "nothing", "here"), "");
  EXPECT_EQ(read_text(file.get(), "long", "here"), long_text);
  EXPECT_EQ(read_int(file.get(), "int", "here"), -5);
  EXPECT_EQ(read_uint(file.get(), "uint", "here"), ~uint64_t{0});
  EXPECT_EQ(read_double(file.get(), "int", "here"), -5.0);
  EXPECT_EQ(read_texts(file.get(), "group/texts"), (std::vector<std::string>{"one", "", "three"}));
  EXPECT_TRUE(read_texts(file.get(), "group/no_texts").empty());
  EXPECT_EQ(read_all<uint64_t>(file.get(), "group/numbers"), (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(member_names(file.get(), "group"), (std::vector<std::string>{"no_texts", "numbers", "texts"}));
  EXPECT_EQ(attribute_names(file.get(), "here"),
            (std::vector<std::string>{"int", "long", "nothing", "text", "uint"}));
}

TEST_F(H5Test, FailuresSayWhatAndWhere) {
  const File file = create();
  write_text(file.get(), "text", "a");
  EXPECT_TRUE(has(error_of<DataError>([&] { read_int(file.get(), "none", "here"); }),
                  "here: attribute 'none' is missing"));
  EXPECT_TRUE(has(error_of<DataError>([&] { read_int(file.get(), "text", "here"); }),
                  "cannot read attribute 'text'"));
  EXPECT_TRUE(
      has(error_of<DataError>([&] { open_dataset(file.get(), "a/b"); }), path_.string() + ": dataset 'a/b'"));
  EXPECT_TRUE(has(error_of<DataError>([&] { member_names(file.get(), "a"); }), "group 'a' is missing"));
  EXPECT_TRUE(
      has(error_of<IoError>([&] { write_text(file.get(), "zero", std::string("a\0b", 3)); }), "zero byte"));
  const std::string twice = error_of<IoError>([&] { write_text(file.get(), "text", "b"); });
  for (const char* part : {"cannot create attribute 'text'", "checkpoint/h5.cpp:", "H5Acreate2", "failed: "})
    EXPECT_TRUE(has(twice, part)) << twice;
}

TEST_F(H5Test, SystemErrorsAreShort) {
  const PropertyList access = file_access();
  const std::string text = error_of<DataError>(
      [&] { RED_HDF5(DataError, H5Fopen("/nowhere/x.h5", H5F_ACC_RDONLY, access.get()), "opening"); });
  EXPECT_TRUE(has(text, "No such file or directory (errno 2)")) << text;
  EXPECT_FALSE(has(text, "time = ")) << text;
}

TEST_F(H5Test, WhatCannotBeReadIsNotDamaged) {
  EXPECT_EQ(error_of<DataError>([] { open_file("/nowhere/x.h5"); }), "'/nowhere/x.h5' is missing");
  // HDF5 reads of a folder what no folder gives.
  EXPECT_TRUE(has(error_of<IoError>([&] { open_file(path_.parent_path()); }), "(errno 21)"));
  // A link that leads to itself.
  fs::remove(path_);
  fs::create_symlink(path_, path_);
  EXPECT_TRUE(has(error_of<IoError>([&] { open_file(path_); }), "(errno 40)"));
  EXPECT_EQ(take_failed_read(), "");
}

/// A failed read is told once, and not of the next file.
TEST_F(H5Test, AFailedReadIsForgottenWithItsFile) {
  const PropertyList access = file_access();
  set_reading_driver(access);
  EXPECT_LT(H5Fopen("/nowhere/x.h5", H5F_ACC_RDONLY, access.get()), 0);
  std::ofstream(path_) << "no HDF5 file";
  EXPECT_TRUE(has(error_of<DataError>([&] { open_file(path_); }), "cannot be opened as an HDF5 file"));
}

TEST_F(H5Test, OnlyHardLinksCount) {
  const File file = create();
  const Group group = create_group(file.get(), "group");
  write_all(group.get(), "numbers", {1});
  ASSERT_GE(H5Lcreate_soft("/group", file.get(), "soft", H5P_DEFAULT, H5P_DEFAULT), 0);
  EXPECT_TRUE(contains(file.get(), "group/numbers"));
  EXPECT_FALSE(contains(file.get(), "soft"));
  EXPECT_FALSE(contains(file.get(), "soft/numbers"));
  EXPECT_FALSE(contains(file.get(), "group/none/deeper"));
  EXPECT_TRUE(
      has(error_of<DataError>([&] { member_names(file.get(), "/"); }), "'soft' is a soft or external link"));
}

TEST_F(H5Test, IdsAreClosedOnce) {
  const File file = create();
  const auto count = [&] { return H5Fget_obj_count(file.get(), H5F_OBJ_GROUP); };
  {
    Group first = create_group(file.get(), "first");
    EXPECT_EQ(count(), 1);
    Group second = std::move(first);
    EXPECT_EQ(count(), 1);
    second = create_group(file.get(), "second");
    EXPECT_GE(second.close(), 0);
    EXPECT_GE(second.close(), 0);
    EXPECT_FALSE(second);
  }
  EXPECT_EQ(count(), 0);
}

TEST_F(H5Test, TypesOfTensors) {
  for (const DType dtype : {DType::fp32, DType::fp64, DType::int32, DType::uint8})
    EXPECT_EQ(dtype_of_file_type(file_type(dtype), "x"), dtype);
  EXPECT_THROW(dtype_of_file_type(H5T_IEEE_F64BE, "x"), DataError);
  EXPECT_THROW(dtype_of_file_type(H5T_STD_I64LE, "x"), DataError);
}

}  // namespace
}  // namespace red::checkpoint::h5
