// Private to fiber.cpp: the switch of stacks. CMake puts the folder of the one to use before the others.
#pragma once

#include "runtime/fiber.hpp"
#include "switch/machine.hpp"
