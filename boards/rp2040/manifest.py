# What is frozen into the firmware: bytecode that runs from flash and costs no heap.
include("../node.py", without=("board/esp32", "board/unix", "board/wifi", "sensor/replay",
                               "uplink/espnow", "uplink/mqtt", "uplink/tcp"))
freeze("modules", "_boot.py")
freeze("$(PORT_DIR)/modules", "rp2.py")
