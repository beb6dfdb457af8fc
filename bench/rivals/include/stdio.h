/* emlearn only logs with it, and logging is off. */
