# Everything that is not LibTorch comes from the distribution's packages (tools/setup.sh lists them).

find_package(nlohmann_json 3.10 REQUIRED)
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
