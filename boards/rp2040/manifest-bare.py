# Firmware without the node: its modules go on the file system, as .mpy.
freeze("modules", "_boot.py")
freeze("$(PORT_DIR)/modules", "rp2.py")
