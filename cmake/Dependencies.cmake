# Everything that is not LibTorch comes from the distribution's packages (tools/setup.sh lists them).

find_package(nlohmann_json 3.10 QUIET)
if(NOT nlohmann_json_FOUND)  # headers alone (tools/gpu/pack.sh)
  find_path(NLOHMANN_JSON_INCLUDE nlohmann/json.hpp REQUIRED)
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json SYSTEM INTERFACE ${NLOHMANN_JSON_INCLUDE})
endif()
find_package(Threads REQUIRED)

# An option that needs pkg-config's packages; off, and said so, where they are missing.
#   cosmos_optional(OPTION PREFIX WHAT_IS_MISSING WHAT_TO_DO PACKAGE...): target PkgConfig::PREFIX
macro(cosmos_optional option prefix missing remedy)
  if(${option})
    find_package(PkgConfig QUIET)
    if(PkgConfig_FOUND)
      pkg_check_modules(${prefix} IMPORTED_TARGET ${ARGN})
    endif()
    if(NOT ${prefix}_FOUND)
      message(STATUS "${missing}" "${remedy}")
      set(${option} OFF)
    endif()
  endif()
endmacro()

cosmos_optional(COSMOS_VIDEO FFMPEG
  "FFmpeg's libav* not found: building without video I/O "
  "(packages libavformat-dev libavcodec-dev libswscale-dev, or -DCOSMOS_VIDEO=OFF)"
  libavformat libavcodec libavutil libswscale)

cosmos_optional(COSMOS_TEXT COSMOS_TEXT_LIBS
  "PCRE2 or utf8proc not found: building without text tokenizers "
  "(packages libpcre2-dev libutf8proc-dev, or -DCOSMOS_TEXT=OFF)"
  libpcre2-8 libutf8proc)

cosmos_optional(COSMOS_POSTGRES LIBPQ
  "libpq not found: building without PostgreSQL "
  "(package libpq-dev, or -DCOSMOS_POSTGRES=OFF)"
  libpq)

cosmos_optional(COSMOS_CURL LIBCURL
  "libcurl not found: building without captions from a server "
  "(package libcurl4-openssl-dev, or -DCOSMOS_CURL=OFF)"
  libcurl)

# Arrow's headers and libraries, as a pyarrow wheel holds them: COSMOS_ARROW, or .deps/pyarrow.
if(COSMOS_PARQUET)
  set(COSMOS_ARROW "" CACHE PATH "Arrow folder (holds include/parquet and libparquet.so.*)")
  set(_arrow ${COSMOS_ARROW})
  if(NOT _arrow)
    set(_arrow ${CMAKE_CURRENT_LIST_DIR}/../.deps/pyarrow)
  endif()
  file(GLOB _arrow_libs ${_arrow}/libparquet.so* ${_arrow}/libarrow.so* ${_arrow}/lib/libparquet.so
                        ${_arrow}/lib/libarrow.so)
  if(_arrow_libs AND EXISTS ${_arrow}/include/parquet/arrow/writer.h)
    add_library(cosmos::arrow INTERFACE IMPORTED)
    target_include_directories(cosmos::arrow SYSTEM INTERFACE ${_arrow}/include)
    target_link_libraries(cosmos::arrow INTERFACE ${_arrow_libs})
    target_link_options(cosmos::arrow INTERFACE -Wl,-rpath,${_arrow} -Wl,-rpath,${_arrow}/lib)
  else()
    message(STATUS "Arrow not found in ${_arrow}: building without Parquet "
                   "(tools/setup.sh fetches it, or -DCOSMOS_PARQUET=OFF)")
    set(COSMOS_PARQUET OFF)
  endif()
endif()

cosmos_optional(COSMOS_METRICS PROMETHEUS
  "prometheus-cpp not found: building without trainer.metrics_port "
  "(package prometheus-cpp-dev, or -DCOSMOS_METRICS=OFF)"
  prometheus-cpp-pull prometheus-cpp-core)
