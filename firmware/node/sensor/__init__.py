# Sensors, one a file: capture(buf) fills int16 samples and returns how many, or raises OSError.
