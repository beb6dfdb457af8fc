# Sensors, one a file: capture(buf, first, enough) fills int16 rows and returns how many,
# fewer if enough() says after the first of them that they will do; or raises OSError.
