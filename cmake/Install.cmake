# find_package(CosmosTrain) gives cosmos::ops, cosmos::modules and cosmos::trainer.
include(CMakePackageConfigHelpers)

set(_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/CosmosTrain)
install(TARGETS cosmos_ops cosmos_modules cosmos_trainer EXPORT CosmosTrainTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ops modules trainer DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/cosmos
        FILES_MATCHING PATTERN "*.h")
install(EXPORT CosmosTrainTargets NAMESPACE cosmos:: DESTINATION ${_package_dir})
configure_package_config_file(cmake/CosmosTrainConfig.cmake.in
  ${PROJECT_BINARY_DIR}/CosmosTrainConfig.cmake INSTALL_DESTINATION ${_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/CosmosTrainConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/CosmosTrainConfig.cmake
  ${PROJECT_BINARY_DIR}/CosmosTrainConfigVersion.cmake cmake/LibTorch.cmake
  DESTINATION ${_package_dir})
