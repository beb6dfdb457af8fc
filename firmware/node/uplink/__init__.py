# Ways home, one a file. A link carries whole frames of node/frame.py:
#   send(frame)            an OSError if it can't
#   receive(buf, ms)       the length of the next frame, 0 if none came within ms
#   close()
#   size, window           the longest frame, and how many may be on their way at a time
#   ahead                  pieces of a package that may come one behind the other, unasked
#   carried                bytes that went over it until now, both ways, with what is around them
#   patience_ms, tries     how long an answer may take, and how often it is worth asking
# What is said over it: session.py.
