# red_add_library, red_add_test: every target of the project is made by one of these.

find_program(RED_CCACHE ccache)
if(RED_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER "${RED_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${RED_CCACHE}")
endif()

add_library(red_flags INTERFACE)
target_compile_features(red_flags INTERFACE cxx_std_20)
target_include_directories(red_flags INTERFACE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}")
# -ffp-contract=off: the same sums whatever the optimiser sees, so that two builds of one commit agree;
# kernels ask for fused multiply-adds by name.
set(options -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror=return-type -ffp-contract=off -fno-math-errno)
# Paths in error messages are relative to the project, so that objects are the same in every checkout.
list(APPEND options "-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=")
target_compile_options(red_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${options}>")
# nvcc hands them to the host's compiler; code that it generates has shadows. On a GPU multiply-adds stay fused. fmt is
# told what nvcc can do, which it would not believe.
list(REMOVE_ITEM options -Wshadow)
list(JOIN options "," options)
target_compile_options(red_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xcompiler=${options} --expt-relaxed-constexpr --extended-lambda -lineinfo -std=c++20 -DFMT_USE_CONSTEXPR=1>")
if(RED_SANITIZE)
  target_compile_options(red_flags INTERFACE "-fsanitize=${RED_SANITIZE}" -fno-omit-frame-pointer -g1
    -fno-sanitize-recover=all)
  target_link_options(red_flags INTERFACE "-fsanitize=${RED_SANITIZE}")
endif()
if(RED_FUZZ)
  target_compile_options(red_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# red_add_library(name SOURCES a.cpp ... [PUBLIC libs...] [PRIVATE libs...])
# One folder, one target, one namespace. A folder with headers alone is an INTERFACE target.
function(red_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_link_libraries(${name} PUBLIC red_flags ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE red_flags ${ARG_PUBLIC})
  endif()
endfunction()

# Tests are not worth the optimiser's time; what they call is.
set(RED_TEST_OPTIONS "$<$<CONFIG:Release>:-O1>")

# red_add_test(name SOURCES a.cpp ... [LIBRARIES libs...] [RANKS 1 2 4] [TIMEOUT seconds] [LABELS l...] [ARGS ...])
# Without RANKS: a plain GoogleTest program. With RANKS: an MPI test, registered once per rank count as name.npN;
# failures of all ranks gather on rank 0 (tests/support/mpi_main.cpp). More than four ranks have the label many_ranks, for
# builds in which they take too long.
function(red_add_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBRARIES;RANKS;LABELS;ARGS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(RED_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_options(${name} PRIVATE ${RED_TEST_OPTIONS})
  target_compile_definitions(${name} PRIVATE RED_SOURCE_DIR="${PROJECT_SOURCE_DIR}" RED_BINARY_DIR="${PROJECT_BINARY_DIR}")
  if(ARG_RANKS)
    target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} red_test_support red_mpi_test_main)
    foreach(ranks IN LISTS ARG_RANKS)
      add_test(NAME ${name}.np${ranks}
        COMMAND "${PROJECT_SOURCE_DIR}/launch/local.sh" -n ${ranks} "$<TARGET_FILE:${name}>" ${ARG_ARGS})
      set(labels ${ARG_LABELS})
      if(ranks GREATER 4)
        list(APPEND labels many_ranks)
      endif()
      set_tests_properties(${name}.np${ranks} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${labels}"
        PROCESSORS $<IF:$<EQUAL:${ranks},1>,1,2>)
      list(APPEND registered ${name}.np${ranks})
    endforeach()
  else()
    target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} red_test_support GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
    set(registered ${name})
  endif()
  if(RED_SANITIZE)
    set(environment "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/support/lsan.supp:print_suppressions=0"
      "UBSAN_OPTIONS=print_stacktrace=1")
    if(ARG_RANKS)
      # Open MPI has no frame pointers: only the slow unwinder finds out which leaks are its own.
      # GCC 12's guess at thread-local memory of loaded libraries is wrong for some, and LeakSanitizer crashes on it.
      list(APPEND environment "ASAN_OPTIONS=fast_unwind_on_malloc=0:intercept_tls_get_addr=0")
    endif()
    set_tests_properties(${registered} PROPERTIES ENVIRONMENT "${environment}")
  endif()
endfunction()
