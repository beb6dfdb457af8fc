/* One constant, for a case that is an error. */
#define NAN __builtin_nanf("")
