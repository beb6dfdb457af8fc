# Models compiled into the firmware: OUTPOST_UNITS are the C files, one a model, that
# host_tools/outpost/firmware.py writes.
add_library(usermod_outpost INTERFACE)
target_sources(usermod_outpost INTERFACE ${OUTPOST_UNITS})
target_include_directories(usermod_outpost INTERFACE ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(usermod INTERFACE usermod_outpost)
