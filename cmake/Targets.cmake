# One helper per kind of target, so that every folder's CMakeLists.txt is a few lines.
# Sources are globbed (CONFIGURE_DEPENDS): adding a model or an operator is adding a folder.

# The one precompiled header. ops/ does not use it, it sees narrow ATen headers only. Clang instantiates
# the header's templates once, in the header (0.9 s for an empty file); GCC again in every file (6 s).
function(_cosmos_pch_options target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  endif()
endfunction()

function(cosmos_use_pch target)
  if(NOT TARGET cosmos_pch)
    file(WRITE ${PROJECT_BINARY_DIR}/pch.cpp "// Owns the shared precompiled header.\n")
    add_library(cosmos_pch OBJECT ${PROJECT_BINARY_DIR}/pch.cpp)
    target_link_libraries(cosmos_pch PRIVATE cosmos::torch nlohmann_json::nlohmann_json)
    _cosmos_pch_options(cosmos_pch)
    if(COSMOS_SANITIZE)
      _cosmos_common(cosmos_pch)  # the same options as its users, or GCC refuses it
    endif()
    target_precompile_headers(cosmos_pch PRIVATE <torch/nn/modules/container/modulelist.h>
                               <torch/nn/pimpl.h> <torch/types.h> <nlohmann/json.hpp>)
  endif()
  get_target_property(_type ${target} TYPE)
  if(_type STREQUAL "EXECUTABLE")
    # The header is compiled with -fPIC for the libraries; CMake would give programs -fPIE.
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  _cosmos_pch_options(${target})
  target_precompile_headers(${target} REUSE_FROM cosmos_pch)
endfunction()

function(_cosmos_common target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter>)
  if(COSMOS_SANITIZE)
    # vptr checks would need type information that LibTorch does not export.
    target_compile_options(${target} PRIVATE -fsanitize=address,undefined -fno-sanitize=vptr
                           -fno-sanitize-recover=undefined -fno-omit-frame-pointer
                           $<$<CXX_COMPILER_ID:Clang>:-Wno-pass-failed>)  # vectorising is not the point here
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
  endif()
endfunction()

# cosmos_library(modules DEPENDS cosmos::ops): libcosmos_modules.so from every .cpp below this folder.
function(cosmos_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;SOURCES" ${ARGN})
  set(target cosmos_${name})
  if(NOT ARG_SOURCES)
    file(GLOB_RECURSE ARG_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  endif()
  add_library(${target} SHARED ${ARG_SOURCES})
  add_library(cosmos::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name} VERSION ${PROJECT_VERSION})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/cosmos>)
  target_link_libraries(${target} PUBLIC cosmos::torch ${ARG_DEPENDS})
  _cosmos_common(${target})
endfunction()

# cosmos_program(cosmos-train train.cpp)
function(cosmos_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE cosmos::trainer)
  _cosmos_common(${name})
  cosmos_use_pch(${name})
endfunction()
