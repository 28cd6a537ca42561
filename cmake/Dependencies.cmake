# Everything that is not LibTorch comes from the distribution's packages (tools/setup.sh lists them).

find_package(nlohmann_json 3.10 QUIET)
if(NOT nlohmann_json_FOUND)  # headers alone (tools/gpu/pack.sh)
  find_path(NLOHMANN_JSON_INCLUDE nlohmann/json.hpp REQUIRED)
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json SYSTEM INTERFACE ${NLOHMANN_JSON_INCLUDE})
endif()
find_package(Threads REQUIRED)

if(COSMOS_VIDEO)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(FFMPEG IMPORTED_TARGET libavformat libavcodec libavutil libswscale)
  endif()
  if(NOT FFMPEG_FOUND)
    message(STATUS "FFmpeg's libav* not found: building without video I/O "
                   "(packages libavformat-dev libavcodec-dev libswscale-dev, or -DCOSMOS_VIDEO=OFF)")
    set(COSMOS_VIDEO OFF)
  endif()
endif()

if(COSMOS_TEXT)
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(COSMOS_TEXT_LIBS IMPORTED_TARGET libpcre2-8 libutf8proc)
  endif()
  if(NOT COSMOS_TEXT_LIBS_FOUND)
    message(STATUS "PCRE2 or utf8proc not found: building without text tokenizers "
                   "(packages libpcre2-dev libutf8proc-dev, or -DCOSMOS_TEXT=OFF)")
    set(COSMOS_TEXT OFF)
  endif()
endif()
