# What is frozen into the firmware: bytecode that runs from flash and costs no heap.
freeze("modules", "_boot.py")
freeze("$(PORT_DIR)/modules", "rp2.py")
include("$(MPY_DIR)/extmod/asyncio")
package("node", base_path="../../firmware", opt=3)
module("main.py", base_path="../../firmware", opt=3)
